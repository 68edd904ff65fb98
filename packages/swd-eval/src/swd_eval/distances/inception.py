"""FID's Inception: the network of 2015-12-05 that TensorFlow's FID used, to its 2048 pooled features.

Its pools differ from torchvision's Inception v3: averages leave the padding out, and the last block has a maximum.
Keys are those of pt_inception-2015-12-05, which pytorch-fid and torch-fidelity load.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, max_pool2d, relu

from swd_eval.weights import read_state

Layer = tuple[str, int, tuple[int, int], int]
"""Name, channels, kernel and stride of a convolution."""
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "average": lambda x: avg_pool2d(x, 3, 1, padding=1, count_include_pad=False),
    "maximum": lambda x: max_pool2d(x, 3, 1, padding=1),
    "reduce": lambda x: max_pool2d(x, 3, 2),
}


class Conv(nn.Module):
    """Convolution, batch norm and ReLU."""

    def __init__(
        self, width: int, channels: int, kernel: tuple[int, int], stride: int = 1, padding: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations."""
        return relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Paths of convolutions and pools over one input, concatenated; paths may share their first layers."""

    def __init__(self, width: int, *paths: tuple[Layer | str, ...]) -> None:
        super().__init__()
        self.paths = paths
        for path in paths:
            last = width
            for name, channels, kernel, stride in (layer for layer in path if not isinstance(layer, str)):
                if not hasattr(self, name):
                    padding = (kernel[0] // 2, kernel[1] // 2) if stride == 1 else (0, 0)
                    self.add_module(name, Conv(last, channels, kernel, stride, padding))
                last = channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all paths, one after another."""
        done: dict[tuple[Layer | str, ...], Tensor] = {(): x}
        for path in self.paths:
            for length, layer in enumerate(path):
                if path[: length + 1] not in done:
                    run = POOLS[layer] if isinstance(layer, str) else self.get_submodule(layer[0])
                    done[path[: length + 1]] = run(done[path[:length]])
        return torch.cat([done[path] for path in self.paths], 1)


class FidInception(nn.Sequential):
    """Images (B, 3, 299, 299) in [-1, 1] to features (B, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        stem = (("1a", 3, 32, 3, 2, 0), ("2a", 32, 32, 3, 1, 0), ("2b", 32, 64, 3, 1, 1))
        self._add_stem(*stem)
        self.add_module("pool1", nn.MaxPool2d(3, 2))
        self._add_stem(("3b", 64, 80, 1, 1, 0), ("4a", 80, 192, 3, 1, 0))
        self.add_module("pool2", nn.MaxPool2d(3, 2))
        blocks = {
            "5b": _block35(192, 32), "5c": _block35(256, 64), "5d": _block35(288, 64), "6a": _reduce17(),
            "6b": _block17(128), "6c": _block17(160), "6d": _block17(160), "6e": _block17(192), "7a": _reduce8(),
            "7b": _block8(1280, "average"), "7c": _block8(2048, "maximum"),
        }  # fmt: skip
        for name, block in blocks.items():
            self.add_module(f"Mixed_{name}", block)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        for layer in self:
            x = layer(x)
        return adaptive_avg_pool2d(x, 1).flatten(1)

    def _add_stem(self, *layers: tuple[str, int, int, int, int, int]) -> None:
        for name, width, channels, side, stride, padding in layers:
            conv = Conv(width, channels, (side, side), stride, (padding, padding))
            self.add_module(f"Conv2d_{name}_{side}x{side}", conv)


def load_inception(path: Path) -> FidInception:
    """Load weights as pytorch-fid or torch-fidelity ship them, or the same as safetensors.

    Raises:
        ValueError: the file holds other weights.
    """
    state = {name: value for name, value in read_state(path).items() if not name.startswith(("fc.", "AuxLogits."))}
    with torch.device("meta"):
        model = FidInception()
    expected = model.state_dict()
    for name in expected.keys() - state.keys():
        if name.endswith("num_batches_tracked"):  # older files leave it out, and nothing here reads it
            state[name] = torch.zeros((), dtype=torch.long)
    fits = state.keys() == expected.keys() and all(state[name].shape == expected[name].shape for name in expected)
    if not fits:
        raise ValueError(f"expected the weights pt_inception-2015-12-05 in {path}, got others: give FID's Inception")
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def _chain(name: str, *layers: tuple[int, int, int]) -> tuple[Layer, ...]:
    """Number the layers of a path; each is channels, kernel height and width."""
    return tuple((f"{name}_{index}", channels, (h, w), 1) for index, (channels, h, w) in enumerate(layers, start=1))


def _strided(name: str, channels: int) -> Layer:
    return (name, channels, (3, 3), 2)


def _one(name: str, channels: int) -> Layer:
    return (name, channels, (1, 1), 1)


def _block35(width: int, pool: int) -> Mixed:
    return Mixed(
        width,
        (_one("branch1x1", 64),),
        _chain("branch5x5", (48, 1, 1), (64, 5, 5)),
        _chain("branch3x3dbl", (64, 1, 1), (96, 3, 3), (96, 3, 3)),
        ("average", _one("branch_pool", pool)),
    )


def _reduce17() -> Mixed:
    double = (*_chain("branch3x3dbl", (64, 1, 1), (96, 3, 3)), _strided("branch3x3dbl_3", 96))
    return Mixed(288, (_strided("branch3x3", 384),), double, ("reduce",))


def _block17(inner: int) -> Mixed:
    across, down = (inner, 1, 7), (inner, 7, 1)
    return Mixed(
        768,
        (_one("branch1x1", 192),),
        _chain("branch7x7", (inner, 1, 1), across, (192, 7, 1)),
        _chain("branch7x7dbl", (inner, 1, 1), down, across, down, (192, 1, 7)),
        ("average", _one("branch_pool", 192)),
    )


def _reduce8() -> Mixed:
    large = (*_chain("branch7x7x3", (192, 1, 1), (192, 1, 7), (192, 7, 1)), _strided("branch7x7x3_4", 192))
    return Mixed(768, (_one("branch3x3_1", 192), _strided("branch3x3_2", 320)), large, ("reduce",))


def _block8(width: int, pool: str) -> Mixed:
    single = _chain("branch3x3", (384, 1, 1))
    double = _chain("branch3x3dbl", (448, 1, 1), (384, 3, 3))
    return Mixed(
        width,
        (_one("branch1x1", 320),),
        (*single, ("branch3x3_2a", 384, (1, 3), 1)),
        (*single, ("branch3x3_2b", 384, (3, 1), 1)),
        (*double, ("branch3x3dbl_3a", 384, (1, 3), 1)),
        (*double, ("branch3x3dbl_3b", 384, (3, 1), 1)),
        (pool, _one("branch_pool", 192)),
    )
