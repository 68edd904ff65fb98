"""How a LoRA is computed: float32 masters, one product in the base's dtype; how it is added and merged.

PEFT casts a layer's input up to the adapters' float32, multiplies there, scales, adds and casts back: over a bfloat16
base that costs more than the base itself. Here the masters are cast down and their product is added onto the base
layer's output by one `addmm`. What PEFT holds, names and saves stays as it is.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.functional import linear

from swd_models.denoiser import Denoiser


class AdapterLinear(PeftLinear):
    """PEFT's adapted linear layer: `y = W x + b + scale (x A^T) B^T`, computed in the dtype of `W x + b`.

    What a plain LoRA is not (dropout, DoRA, several adapters at once, adapters switched off) is computed by PEFT.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the adapted output (..., out) of x (..., in)."""
        name = self._plain_adapter()
        if name is None or kwargs:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        base: Tensor = self.base_layer(x, *args)
        down, up = (layer[name].weight.to(base.dtype) for layer in (self.lora_A, self.lora_B))
        low = linear(x.to(base.dtype), down)
        added = torch.addmm(_rows(base), _rows(low), up.t(), alpha=self.scaling[name])
        return added.view_as(base)

    def _plain_adapter(self) -> str | None:
        """Return the one adapter that is active, if nothing but a plain LoRA is."""
        active = self.active_adapters
        if self.disable_adapters or self.merged or len(active) != 1 or active[0] not in self.lora_A:
            return None
        name: str = active[0]
        plain = isinstance(self.lora_dropout[name], nn.Identity) and not self.lora_bias[name]
        return name if plain and name not in self.lora_variant else None


def add_adapters(denoiser: Denoiser, lora: LoraConfig) -> None:
    """Put new adapters into a denoiser: float32, or float64 over a float64 base; `lora` is not changed."""
    lora = copy.copy(lora)
    lora._register_custom_module({nn.Linear: AdapterLinear})
    inject_adapter_in_model(lora, denoiser.backbone)
    for name, parameter in denoiser.backbone.named_parameters():
        if ".lora_" in name and parameter.itemsize < 4:  # PEFT gives them the base's dtype
            parameter.data = parameter.data.float()


def merge_adapters(denoiser: Denoiser) -> None:
    """Add the adapters to the weights, in float32 or wider and then cast, and remove them: a plain model again.

    Views that share the weights change too.
    """
    backbone = denoiser.backbone
    adapted = [(name, layer) for name, layer in backbone.named_modules() if isinstance(layer, BaseTunerLayer)]
    for name, layer in adapted:
        weight = layer.get_base_layer().weight
        dtype = weight.dtype
        weight.data = weight.data.to(torch.promote_types(dtype, torch.float32))
        layer.merge()
        weight.data = weight.data.to(dtype)
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, layer.get_base_layer())
    del backbone.peft_config


@contextmanager
def without_adapters(denoiser: nn.Module) -> Iterator[None]:
    """Sample as the base alone does inside. Not for training: what is recomputed in backward would switch too."""
    layers = adapted_layers(denoiser)
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def adapted_layers(denoiser: nn.Module) -> list[BaseTunerLayer]:
    """Return the layers that have an adapter apart."""
    return [layer for layer in denoiser.modules() if isinstance(layer, BaseTunerLayer)]


def adapter_parameters(denoiser: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters: those of the adapters."""
    return [parameter for parameter in denoiser.parameters() if parameter.requires_grad]


def adapter_state(denoiser: Denoiser) -> dict[str, Tensor]:
    """Return the adapter tensors by layer: `LAYER.lora_A.weight`, `LAYER.lora_B.weight`."""
    state: dict[str, Tensor] = get_peft_model_state_dict(denoiser.backbone)
    return state


def adapter_alphas(denoiser: Denoiser) -> dict[str, float]:
    """Return the alpha of each layer that has an adapter."""
    layers = denoiser.backbone.named_modules()
    return {name: float(layer.lora_alpha["default"]) for name, layer in layers if isinstance(layer, BaseTunerLayer)}


def load_adapter_state(denoiser: Denoiser, state: dict[str, Tensor]) -> None:
    """Copy tensors into adapters that are already there; names and shapes must match."""
    own = adapter_state(denoiser)
    if {key: value.shape for key, value in own.items()} != {key: value.shape for key, value in state.items()}:
        ranks = [min(next(iter(tensors.values())).shape) for tensors in (own, state) if tensors]
        raise ValueError(f"expected adapters of rank {ranks[0]}, got other names or shapes (rank {ranks[-1]})")
    with torch.no_grad():
        set_peft_model_state_dict(denoiser.backbone, state)


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])
