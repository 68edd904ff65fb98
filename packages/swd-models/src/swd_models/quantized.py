"""A frozen base in fewer bits: int8 and fp8 by torchao, nf4 by bitsandbytes (extra `swd-models[quantized]`).

The libraries hold the weights, and turn them back into numbers; diffusers quantises layer by layer as it loads. What is
computed is ours: one product with the weights as they were, of which nothing is kept for backward. torchao's own would
keep a bfloat16 copy of each, and bitsandbytes' repacks weights on some CPUs, under the other views of the base.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal, get_args
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from swd_models.denoiser import Denoiser

Base = Literal["bf16", "int8", "fp8", "nf4"]
"""How the frozen base is held: in the model's dtype, or its blocks' linear layers in 8 or 4 bits."""
_PACKAGES = {"int8": "torchao", "fp8": "torchao", "nf4": "bitsandbytes"}


def check_base(base: str) -> None:
    """Raise ValueError for a base that is none, or whose library is not installed."""
    if base not in get_args(Base):
        raise ValueError(f"expected a base of {', '.join(get_args(Base))}, got {base!r}")
    missing = [name for name in (_PACKAGES.get(base), "accelerate") if name and base != "bf16" and not find_spec(name)]
    if missing:
        raise ValueError(f"expected {missing[0]} for a base in {base}, got none: pip install 'swd-models[quantized]'")


def quantised_layers(denoiser: Denoiser) -> list[str]:
    """Return the names of the linear layers that a smaller base quantises: those of the blocks.

    Embeddings, the last norm and the output stay as they are: they are small, and all goes through them.
    """
    blocks = set(denoiser.layers)
    named = dict(denoiser.backbone.named_modules())
    inside = [name for name, module in named.items() if module in blocks]
    return [
        name
        for name, module in named.items()
        if isinstance(module, nn.Linear) and any(name.startswith(f"{block}.") for block in inside)
    ]


@contextmanager
def loading(names: Sequence[str], base: Base, dtype: torch.dtype, device: torch.device) -> Iterator[dict[str, Any]]:
    """Give what tells `from_pretrained` of diffusers to quantise these layers while it loads them."""
    place = {"device_map": {"": str(device)}}
    if base == "nf4":
        from diffusers import BitsAndBytesConfig

        nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
        with _bitsandbytes_for(names):
            yield {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **nf4), **place}
        return
    from diffusers import TorchAoConfig
    from torchao.quantization import FqnToConfig

    config = FqnToConfig({f"re:{'|'.join(map(re.escape, names))}": _of_torchao(base)})
    # To diffusers the CPU in a map is a place for what does not fit, and stays as it is.
    yield {"quantization_config": TorchAoConfig(config), **({} if device.type == "cpu" else place)}


def quantise(denoiser: Denoiser, base: Base) -> Denoiser:
    """Quantise a denoiser that is loaded already, in place: one with a LoRA merged into it, for example.

    Raises:
        ValueError: as `check_base`.
    """
    check_base(base)
    for name in quantised_layers(denoiser) if base != "bf16" else ():
        layer = denoiser.backbone.get_submodule(name)
        if base == "nf4":
            from bitsandbytes.nn.modules import Params4bit

            whole = layer.weight
            weight: Any = Params4bit(whole.data, requires_grad=False, quant_type="nf4", compress_statistics=True)
            layer.weight = weight.to(whole.device)
        else:
            from torchao.quantization import quantize_

            quantize_(layer, _of_torchao(base))
    return freeze(denoiser)


def freeze(denoiser: Denoiser) -> Denoiser:
    """Let the quantised layers of a denoiser compute as `FrozenLinear` does."""
    for module in denoiser.backbone.modules():
        if isinstance(module, nn.Linear) and type(module) is not FrozenLinear and is_quantised(module.weight):
            module.__class__ = FrozenLinear
            # What the libraries hang on it refers to itself, and would outlive it; and each view would copy the scales.
            module.__dict__.pop("extra_repr", None)
            module.__dict__.pop("quant_state", None)
            if hasattr(module.weight, "module"):
                module.weight.module = None
    return denoiser


def check_quantised(denoiser: Denoiser, base: Base) -> None:
    """Raise ValueError where a library has left layers as they were."""
    for name in quantised_layers(denoiser):
        if type(denoiser.backbone.get_submodule(name)) is not FrozenLinear:
            raise ValueError(f"expected {name} in {base}, got it whole: update torchao, bitsandbytes and diffusers")


def check_whole(denoiser: Denoiser) -> None:
    """Raise ValueError for a quantised base: what is merged into it would be rounded once more, or lost in codes."""
    coded = any(not weight.is_floating_point() for weight in denoiser.backbone.parameters())
    if coded or any(isinstance(module, FrozenLinear) for module in denoiser.backbone.modules()):
        raise ValueError(
            "expected a base that is not quantised to merge a LoRA into, got one: merge it while the base is loaded "
            "(`loras` of load_denoiser), or keep it apart"
        )


class FrozenLinear(nn.Linear):
    """A linear layer over quantised weights, which are turned back for each product: forward and again backward."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `W x + b` of x (..., in), in its dtype."""
        product: Tensor = _Product.apply(x, self.weight, self.bias)
        return product


class _Product(torch.autograd.Function):
    """`W x + b` that keeps the quantised weights alone for its backward, which is to x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return linear(x, dequantised(weight).to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient @ dequantised(ctx.weight).to(gradient.dtype), None, None


def is_quantised(weight: Tensor) -> bool:
    """Tell whether one of the libraries holds a weight in fewer bits."""
    return getattr(weight, "quant_state", None) is not None or hasattr(weight, "qdata")


def dequantised(weight: Tensor) -> Tensor:
    """Return the numbers of a quantised weight (out, in)."""
    if hasattr(weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        whole: Tensor = dequantize_4bit(weight.data, weight.quant_state)
        return whole
    return weight.dequantize()


@contextmanager
def _bitsandbytes_for(names: Collection[str]) -> Iterator[None]:
    """Let diffusers quantise these layers by bitsandbytes, on the CPU too, for which it asks for a GPU in vain.

    Its list of what to leave out is of names' ends: FLUX's last `proj_out` would leave out those of all blocks.
    """
    from diffusers.quantizers import auto
    from diffusers.quantizers.bitsandbytes.bnb_quantizer import BnB4BitDiffusersQuantizer

    class Quantizer(BnB4BitDiffusersQuantizer):
        def validate_environment(self, *args: Any, **options: Any) -> None:
            """Accept any device."""

        def _process_model_before_weight_loading(self, model: nn.Module, *args: Any, **options: Any) -> None:
            before = dict(model.named_modules())
            super()._process_model_before_weight_loading(model, *args, **options)
            for name, module in before.items():
                if isinstance(module, nn.Linear) and name not in names:
                    model.set_submodule(name, module)

    with patch.dict(auto.AUTO_QUANTIZER_MAPPING, {"bitsandbytes_4bit": Quantizer}):
        yield


def _of_torchao(base: Base) -> Any:
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    return Int8WeightOnlyConfig() if base == "int8" else Float8WeightOnlyConfig()
