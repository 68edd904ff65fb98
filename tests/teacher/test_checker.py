import numpy as np
import pytest

from benchmarks.teacher.checker import check, parse
from benchmarks.teacher.scenes import draw, random_scene


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(11)
    return [(scene, draw(scene, rng)) for scene in (random_scene(rng, None) for _ in range(2000))]


def test_a_caption_parses_back_to_its_scene(scenes):
    assert all(parse(scene.caption) == scene for scene, _ in scenes)
    with pytest.raises(ValueError, match="expected a caption of a scene"):
        parse("a cat")


def test_drawn_scenes_are_read_right_and_shuffled_captions_are_not(scenes):
    right = np.mean([check(image, scene.caption).all_right for scene, image in scenes])
    others = [scene.caption for scene, _ in scenes[1:] + scenes[:1]]
    shuffled = np.mean([check(image, caption).all_right for caption, (_, image) in zip(others, scenes, strict=True)])
    assert right >= 0.99
    assert shuffled < 0.05


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (("big", "small"), {"size"}),
        (("red", "blue"), {"color"}),
        (("circle", "triangle"), {"shape"}),
        (("left", "right"), {"place"}),
        (("green", "white"), {"background"}),
    ],
)
def test_each_attribute_is_told_apart(change, wrong):
    caption = "a big red circle at the left, green background"
    image = draw(parse(caption), np.random.default_rng(0))
    verdict = check(image, caption.replace(*change))
    assert {name for name, right in vars(verdict).items() if not right} == wrong
