"""Gradients of each kernel of attention: beside float32's, and a second time.

cuDNN's are wrong for FLUX and FLUX.2, whose last blocks lay attention's output beside that of an MLP: its gradient is a
slice. What has gradients does not use it (`swd_models.denoiser.sound_attention`); here it is let in, to see whether
that is still so, and what the others cost.
"""

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu.devices import free, timed
from benchmarks.gpu.setting import Rows, Setting
from benchmarks.gpu.smoke import distance, grow
from swd_models import Denoiser, share_base
from swd_models.adapters import adapter_parameters
from swd_models.tiny import SIZES, TINY, tiny_cond

KERNELS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
}
Gradient = Callable[[], Tensor]


def gradients(setting: Setting, rows: Rows) -> None:
    """Compare gradients of attention alone, of tiny members' adapters, and of full-size models at their first stage."""
    for name, beside in {"": 0, ", its gradient a slice": 4}.items():
        with sdpa_kernel(SDPBackend.MATH):
            exact = _attention(setting, beside, torch.float32)()
        rows[f"attention{name}"] = _compared(_attention(setting, beside, setting.dtype), exact)
    for family, build in TINY.items():
        student = share_base(build(), 4, fake=False).student.to(setting.device)
        grow(student, std=0.1)
        x_t = _noise(setting, student, SIZES[family][1])
        exact = _gradient(student, x_t, tiny_cond(family, 2), torch.float32)()
        rows[family] = _compared(
            _gradient(_in(student, setting.dtype), x_t, tiny_cond(family, 2), setting.dtype), exact
        )
    for family in ("flux", "sd3", "wan"):
        config = setting.config(family, 1)
        roles, cache = setting.roles(config)
        grow(roles.student)
        x_t = _noise(setting, roles.student, config.scales.sizes[0])
        gradient = _gradient(roles.student, x_t, cache.cond(range(2)), setting.dtype)
        with sdpa_kernel(SDPBackend.MATH):
            exact = gradient()
        rows[f"{config.name}, {config.scales.stages[0].target}"] = _compared(gradient, exact)
        del roles, cache, gradient
        free()


def _compared(gradient: Gradient, exact: Tensor) -> dict[str, float | str]:
    """Return the cosine with the exact gradient by kernel, its seconds, and how far a second of the usual one is."""
    first = gradient()
    found: dict[str, float | str] = {"cosine": _cosine(first, exact), "a second time": distance(gradient(), first)}
    for name, kernel in KERNELS.items():
        try:
            with sdpa_kernel(kernel), patch("swd_models.denoiser.sound_attention", nullcontext):
                found[name] = _cosine(gradient(), exact)
                found[f"{name} s"] = timed(gradient)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except RuntimeError:  # torch's word for a kernel that does not take these shapes, or this device
            found[name] = "none"
    return found


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one, other, dim=0))


def _noise(setting: Setting, denoiser: Denoiser, size: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, denoiser.num_channels, *size, generator=generator).to(setting.device)


def _attention(setting: Setting, beside: int, dtype: torch.dtype) -> Gradient:
    """Return what attends as FLUX's largest stage does and goes back, its output `beside` times as wide an MLP's."""
    heads, tokens, width = (2, 64, 16) if setting.device.type == "cpu" else (24, 4608, 128)
    generator = torch.Generator(setting.device).manual_seed(1)
    draw = partial(torch.randn, generator=generator, device=setting.device)
    inputs = [draw(1, tokens, heads, width).to(dtype).requires_grad_() for _ in range(3)]
    slope = draw(1, tokens, (1 + beside) * heads * width).to(dtype)

    def gradient() -> Tensor:
        found = scaled_dot_product_attention(*(each.transpose(1, 2) for each in inputs)).transpose(1, 2).flatten(2)
        whole = torch.cat([found, found.detach().repeat(1, 1, beside)], dim=2)
        return torch.cat([each.float().flatten() for each in torch.autograd.grad(whole, inputs, slope)])

    return gradient


def _gradient(denoiser: Denoiser, x_t: Tensor, cond: Mapping[str, Tensor], dtype: torch.dtype) -> Gradient:
    cond = {name: value.to(x_t.device, dtype) for name, value in cond.items()}
    sigma = torch.tensor([0.9, 0.4], device=x_t.device)

    def gradient() -> Tensor:
        loss = denoiser.denoise(x_t, sigma, cond).float().square().mean()
        found = torch.autograd.grad(loss, adapter_parameters(denoiser))
        return torch.cat([each.float().flatten() for each in found])

    return gradient


def _in(denoiser: Denoiser, dtype: torch.dtype) -> Denoiser:
    """Return a copy whose base is of a dtype, as a run has it; adapters stay float32."""
    moved = copy.deepcopy(denoiser)
    for parameter in moved.parameters():
        parameter.data = parameter.data if parameter.requires_grad else parameter.data.to(dtype)
    return moved
