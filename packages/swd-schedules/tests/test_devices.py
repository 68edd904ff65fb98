import pytest
import torch

from swd_schedules.devices import check_dtype, default_dtype, find_device, has_float64, has_fused_adamw
from swd_schedules.process import VariancePreserving

CPU = torch.device("cpu")


def _pretend(monkeypatch, kind, count=1):
    accelerator = torch.accelerator
    monkeypatch.setattr(accelerator, "is_available", lambda: True)
    monkeypatch.setattr(accelerator, "current_accelerator", lambda: torch.device(kind))
    monkeypatch.setattr(accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(accelerator, "device_count", lambda: count)


def test_without_an_accelerator_it_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert find_device() == find_device("cpu") == CPU
    with pytest.raises(ValueError, match=r"expected a device of this machine, got cuda: torch .* finds the CPU alone"):
        find_device("cuda")


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_any_accelerator_that_torch_names_is_taken(monkeypatch, kind):
    _pretend(monkeypatch, kind, count=2)
    assert find_device() == find_device(kind) == torch.device(kind, 0)
    assert find_device(f"{kind}:1") == torch.device(kind, 1)
    assert find_device("cpu") == CPU
    with pytest.raises(ValueError, match=f"finds 2 x {kind}"):
        find_device(f"{kind}:2")
    other = "xpu" if kind == "cuda" else "cuda"
    with pytest.raises(ValueError, match=f"got {other}: "):
        find_device(other)


def test_a_name_of_no_device_is_refused():
    with pytest.raises(ValueError, match="expected a device such as cuda, cuda:1, xpu, mps or cpu, got 'gpu'"):
        find_device("gpu")


def test_half_precision_is_bfloat16_where_there_is_some(monkeypatch):
    assert default_dtype(CPU) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    old = torch.device("cuda", 0)
    assert default_dtype(old) == torch.float16
    with pytest.raises(ValueError, match="expected a dtype that cuda:0 computes in, got bfloat16"):
        check_dtype(torch.bfloat16, old)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert default_dtype(old) == torch.bfloat16
    check_dtype(torch.bfloat16, old)


def test_float64_is_refused_where_there_is_none():
    mps = torch.device("mps")
    assert not has_float64(mps)
    assert not has_fused_adamw(mps)
    assert has_fused_adamw(CPU)
    with pytest.raises(ValueError, match="got float64"):
        check_dtype(torch.float64, mps)
    check_dtype(torch.float64, CPU)


def test_the_table_of_a_variance_preserving_process_needs_no_float64(monkeypatch):
    process, sigma = VariancePreserving(), torch.linspace(0, 1, 11)
    wide = process.alpha_bar(sigma)
    assert wide.dtype == torch.float64
    monkeypatch.setattr("swd_schedules.process.has_float64", lambda device: False)
    narrow = process.alpha_bar(sigma)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-4, atol=1e-6)
