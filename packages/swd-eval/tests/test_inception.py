import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from swd_eval.distances.inception import FidInception, load_inception
from swd_eval.distances.modes import prepare_torch_fidelity


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    state = FidInception().state_dict()
    for name, value in state.items():
        if name.endswith("conv.weight"):
            torch.nn.init.kaiming_normal_(value)
        elif name.endswith(("running_var", "bn.weight")):
            torch.nn.init.uniform_(value, 0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, path)
    return path


def test_features_are_those_of_torch_fidelity(weights):
    oracle = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights))
    pixels = torch.randint(0, 256, (3, 50, 33), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    with torch.no_grad():
        features = load_inception(weights)(prepare_torch_fidelity(image)[None])
        expected = oracle(pixels[None])[0]
    assert features.shape == (1, 2048)
    assert features.max() > 1
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4)


def test_weights_come_from_safetensors_too_and_without_counters(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    save_file({name: value for name, value in state.items() if "batches" not in name}, tmp_path / "w.safetensors")
    loaded = load_inception(tmp_path / "w.safetensors").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.items() if "batches" not in name)


def test_other_weights_are_refused_in_one_line(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    torch.save({name: value for name, value in state.items() if "Mixed_7c" not in name}, tmp_path / "fewer.pth")
    torch.save(state | {"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 5, 5)}, tmp_path / "shape.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    for name, message in (
        ("fewer", "got others"),
        ("shape", "got others"),
        ("list", "state dict"),
        ("text", "refuses"),
    ):
        with pytest.raises(ValueError, match=message):
            load_inception(tmp_path / f"{name}.pth")
