"""PEFT's own way with adapters against ours, at the last stage."""

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn

from benchmarks.gpu.devices import forget_peak, peak, timed
from benchmarks.gpu.setting import Rows, Setting
from benchmarks.gpu.smoke import distance, grow
from swd_models import Denoiser
from swd_models.adapters import AdapterLinear, adapter_parameters, merge_adapters

Predict = Callable[[Denoiser], Tensor]


def adapters(setting: Setting, rows: Rows) -> None:
    """Time a forward of teacher and student, and the student's with backward: ours, PEFT's, merged."""
    config = setting.config("sd3", setting.samples)
    roles, cache = setting.roles(config)
    student = roles.student
    grow(student)
    student.checkpoint(len(student.layers))
    samples = range(setting.samples)
    predict = _prediction(setting, cache.latents(samples, config.scales.sizes[-1]), cache.cond(samples))
    _forward(setting, "teacher, forward", roles.teacher, predict, rows)
    ours, gradient = _both(setting, "student", student, predict, rows)
    _switch(student, AdapterLinear, PeftLinear)
    theirs, expected = _both(setting, "student by PEFT", student, predict, rows)
    _switch(student, PeftLinear, AdapterLinear)
    merge_adapters(student)  # into the weights that the teacher shares: last
    merged = _forward(setting, "student, merged, forward", student, predict, rows)
    rows["outputs apart"] = {"ours / PEFT": distance(ours, theirs), "merged / apart": distance(merged, ours)}
    rows["gradients"] = {"cosine of ours and PEFT's": float(torch.cosine_similarity(gradient, expected, dim=0))}


def _prediction(setting: Setting, latents: Tensor, cond: dict[str, Tensor]) -> Predict:
    cond = {name: value.to(setting.device) for name, value in cond.items()}
    x_t = latents.to(setting.device)
    sigma = torch.full((len(x_t),), 0.6, device=setting.device)
    return lambda denoiser: denoiser.denoise(x_t, sigma, cond)


def _both(setting: Setting, name: str, student: Denoiser, predict: Predict, rows: Rows) -> tuple[Tensor, Tensor]:
    """Time a student's forward, and forward and backward; return its output and its adapters' gradient."""
    found = _forward(setting, f"{name}, forward", student, predict, rows)
    parameters = adapter_parameters(student)

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(predict(student).float().square().mean(), parameters)

    gradient = torch.cat([each.float().flatten() for each in backward()])
    _time(setting, f"{name}, forward and backward", backward, rows)
    return found, gradient


def _forward(setting: Setting, name: str, denoiser: Denoiser, predict: Predict, rows: Rows) -> Tensor:
    with torch.no_grad():
        found = predict(denoiser)
        _time(setting, name, partial(predict, denoiser), rows)
    return found


def _time(setting: Setting, name: str, run: Callable[[], object], rows: Rows) -> None:
    forget_peak()
    seconds = median(timed(run) for _ in range(setting.repeats))
    rows[name] = {"seconds": seconds, "peak GiB": peak(setting.device)}


def _switch(student: Denoiser, before: type[nn.Module], after: type[nn.Module]) -> None:
    for layer in student.modules():
        if type(layer) is before:
            layer.__class__ = after
