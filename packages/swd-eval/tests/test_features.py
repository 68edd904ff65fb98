import pytest
import torch
from PIL import Image, ImageFilter

from swd_eval.distances.features import load_lite0, open_space, prepare_lite0
from swd_eval.distances.fid import Statistics, frechet_distance
from swd_eval.distances.kid import kernel_distance

data = pytest.importorskip("skimage.data")
pytest.importorskip("efficientnet_lite_pytorch")


def tiles(num=24):
    """Cut real photographs that scikit-image ships to squares of 96, alternately into two halves."""
    photos = [Image.fromarray(read()) for read in (data.astronaut, data.chelsea, data.coffee, data.rocket)]
    corners = [(photo, x, y) for photo in photos for x in range(0, 352, 96) for y in range(0, 204, 96)]
    squares = [photo.crop((x, y, x + 96, y + 96)) for photo, x, y in corners]
    return squares[0 : 2 * num : 2], squares[1 : 2 * num : 2]


@pytest.fixture(scope="module")
def embed():
    network = load_lite0()

    def embed(images):
        with torch.inference_mode():
            return network(torch.stack([prepare_lite0(image) for image in images]))

    return embed


def test_worse_images_are_farther_from_the_real_ones(embed):
    reference, clean = tiles()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (len(clean), 96, 96, 3), dtype=torch.uint8, generator=generator)
    sets = [
        clean,
        [image.filter(ImageFilter.GaussianBlur(2)) for image in clean],
        [Image.fromarray(pixels.numpy()) for pixels in noise],
    ]
    real = embed(reference)
    features = [embed(images) for images in sets]
    frechet = [frechet_distance(Statistics.of(each), Statistics.of(real)) for each in features]
    kernel = [kernel_distance(each, real, subsets=1)[0] for each in features]
    assert frechet == sorted(frechet)
    assert frechet[2] > 1.5 * frechet[1] > 1.5 * 1.1 * frechet[0]
    assert kernel == sorted(kernel)


def test_the_weights_are_those_that_classify_a_cat_as_one():
    network = load_lite0().net
    with torch.inference_mode():
        logits = network(prepare_lite0(Image.fromarray(data.chelsea()))[None])
    assert 281 <= int(logits.argmax()) <= 285  # ImageNet's domestic cats


def test_a_space_says_what_its_numbers_depend_on(tmp_path):
    about = open_space("lite0", tmp_path, "cpu").about
    assert about["mode"] == "lite0"
    assert about["weights"]["known"] is True
    assert len(about["weights"]["sha256"]) == 64
    with pytest.raises(FileNotFoundError, match=r"pytorch-fid.*91 MB.*got nothing"):
        open_space("swd", tmp_path, "cpu")
