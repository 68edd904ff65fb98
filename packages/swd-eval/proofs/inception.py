"""FID's Inception against torch-fidelity and pytorch-fid with the same random weights; each mode's preprocessing.

In an environment of its own with torch-fidelity, pytorch-fid, clean-fid (scipy < 1.17): python proofs/inception.py
"""

import tempfile
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytorch_fid.inception as other
import torch
from cleanfid.resize import build_resizer
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize, ToTensor

from swd_eval.distances.inception import FidInception, load_inception
from swd_eval.distances.modes import prepare_clean, prepare_swd, prepare_torch_fidelity


def random_weights(seed: int) -> dict[str, torch.Tensor]:
    """Return weights that keep activations alive, with the running statistics that a trained network has."""
    torch.manual_seed(seed)
    state = FidInception().state_dict()
    for name, value in state.items():
        if name.endswith("conv.weight"):
            torch.nn.init.kaiming_normal_(value)
        elif name.endswith(("running_mean", "bn.bias")):
            torch.nn.init.normal_(value, std=0.1)
        elif name.endswith(("running_var", "bn.weight")):
            torch.nn.init.uniform_(value, 0.5, 1.5)
    return state | {"fc.weight": torch.randn(1008, 2048), "fc.bias": torch.randn(1008)}


def check_modes(image: Image.Image) -> None:
    """Print how far the modes `swd` and `clean` are from torchvision and clean-fid."""
    clean = torch.from_numpy(build_resizer("clean")(np.array(image))).permute(2, 0, 1)
    crop = Compose([Resize(256, InterpolationMode.LANCZOS), CenterCrop(256), ToTensor()])
    resized = torch.nn.functional.interpolate(crop(image)[None], (299, 299), mode="bilinear", align_corners=False)[0]
    for name, difference in (
        ("clean-fid", prepare_clean(image) - (clean - 128) / 128),
        ("torchvision", prepare_swd(image) - (2 * resized - 1)),
    ):
        print(f"  pixels: largest difference to {name} {difference.abs().max():.1e}")


def main() -> None:
    """Print the largest differences."""
    for package in ("torch", "torchvision", "torch-fidelity", "pytorch-fid", "clean-fid", "pillow"):
        print(package, version(package))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        state = random_weights(0)
        torch.save(state, path)
        ours = load_inception(path)
        fidelity = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        )
        with patch.object(other, "load_state_dict_from_url", lambda *_, **__: state):
            pytorch_fid = other.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    print("keys", len(state), "parameters", sum(p.numel() for p in ours.parameters()))
    rng = np.random.default_rng(0)
    for width, height in ((299, 299), (256, 256), (1024, 768), (33, 50)):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        prepared = prepare_torch_fidelity(Image.fromarray(pixels))[None]
        with torch.no_grad():
            features = ours(prepared)
            by_fidelity = fidelity(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
            by_pytorch_fid = pytorch_fid(prepared)[0].flatten(1)
        print(f"{width}x{height}: features up to {features.max():.3f};", *(
            f"largest difference to {name} {(features - values).abs().max():.1e};"
            for name, values in (("torch-fidelity", by_fidelity), ("pytorch-fid", by_pytorch_fid))
        ))  # fmt: skip
        check_modes(Image.fromarray(pixels))


if __name__ == "__main__":
    main()
