"""Families on an accelerator, beside the CPU."""

import copy

import pytest
import torch

from swd_models import load_denoiser, share_base
from swd_models.adapters import adapter_parameters, merge_adapters
from swd_models.tiny import SIZES, TINY, tiny_cond

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.accelerator.is_available(), reason="torch finds no accelerator"),
]
family = pytest.mark.parametrize("family", list(TINY))


@pytest.fixture(autouse=True)
def _no_tf32(monkeypatch):
    """Multiply float32 as float32, whatever ran before in this process."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def device():
    return torch.accelerator.current_accelerator()


def _student(family):
    """Give a family's student adapters as after some training: B is no longer zero."""
    student, generator = share_base(TINY[family](), 4, fake=False).student, torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter_parameters(student):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return student


def _moved(student, device, dtype):
    """Return a copy on a device: the base in a dtype, adapters in float32."""
    moved = copy.deepcopy(student).to(device)
    for parameter in moved.parameters():
        parameter.data = parameter.data if parameter.requires_grad else parameter.data.to(dtype)
    for module in moved.modules():
        module._buffers = {
            name: value.to(dtype) if value is not None and value.is_floating_point() else value
            for name, value in module._buffers.items()
        }
    return moved


def _predict(denoiser, family, dtype=torch.float32):
    generator, device = torch.Generator().manual_seed(1), next(denoiser.parameters()).device
    x_t = torch.randn(2, denoiser.num_channels, *SIZES[family][1], generator=generator).to(device)
    cond = {name: value.to(device, dtype) for name, value in tiny_cond(family, 2).items()}
    return denoiser.denoise(x_t, torch.tensor([0.9, 0.4], device=device), cond).float()


def _gradient(denoiser, family, dtype=torch.float32):
    x0 = _predict(denoiser, family, dtype)
    gradients = torch.autograd.grad(x0.square().mean(), adapter_parameters(denoiser))
    return x0.detach().cpu(), torch.cat([gradient.flatten() for gradient in gradients]).cpu()


def _distance(one, other):
    return float((one - other).norm() / other.norm())


@family
@pytest.mark.parametrize(
    ("dtype", "near", "cosine"),
    [(torch.float32, 1e-3, 0.9999), (torch.bfloat16, 3e-2, 0.99)],
    ids=["float32", "bfloat16"],
)
def test_forward_and_backward_on_the_device_are_those_of_the_cpu(family, dtype, near, cosine, device):
    student = _student(family)
    x0, gradient = _gradient(_moved(student, device, dtype), family, dtype)
    expected, slope = _gradient(student, family)
    assert _distance(x0, expected) < near
    assert float(torch.cosine_similarity(gradient, slope, dim=0)) > cosine


@family
def test_recomputed_blocks_give_the_same_gradient_on_the_device(family, device):
    plain = _moved(_student(family), device, torch.bfloat16)
    recomputing = copy.deepcopy(plain)
    recomputing.checkpoint(len(recomputing.layers))
    gradients = [_gradient(each, family, torch.bfloat16)[1] for each in (plain, recomputing)]
    assert _distance(*gradients) < 1e-3


@family
def test_merged_adapters_predict_as_those_apart_on_the_device(family, device):
    student = _moved(_student(family), device, torch.bfloat16)
    base = TINY[family]().to(device, torch.bfloat16)
    with torch.no_grad():
        expected, without = (_predict(each, family, torch.bfloat16) for each in (student, base))
        merge_adapters(student)
        found = _predict(student, family, torch.bfloat16)
    assert _distance(found, expected) < 3e-2
    assert _distance(without, expected) > 2 * _distance(found, expected)


def test_the_embedded_teacher_predicts_on_the_device_as_on_the_cpu(device):
    cpu, there = load_denoiser("embedded"), load_denoiser("embedded", dtype=torch.bfloat16).to(device)
    x_t, sigma = (
        torch.randn(2, cpu.num_channels, 16, 16, generator=torch.Generator().manual_seed(0)),
        torch.full((2,), 0.8),
    )
    cond = {name: 0.1 * torch.ones(2, *shape) for name, shape in cpu.cond_shapes.items()}
    with torch.no_grad():
        expected = cpu.denoise(x_t, sigma, cond)
        found = there.denoise(
            x_t.to(device), sigma.to(device), {name: value.to(device, torch.bfloat16) for name, value in cond.items()}
        )
    assert _distance(found.float().cpu(), expected) < 3e-2
