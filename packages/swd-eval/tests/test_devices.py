import pytest
import torch

from swd_eval.devices import device_name, find_device, float64_device


def test_any_accelerator_that_torch_names_is_the_default(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert find_device() == "cpu"
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    assert find_device() == "xpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match=f"expected a --device of this machine, got {name}: pass cpu"):
        find_device(name)


def test_the_cpu_has_no_other_name():
    assert find_device("cpu") == device_name("cpu") == "cpu"


def test_distances_go_to_the_cpu_where_there_is_no_float64(monkeypatch):
    assert float64_device("cpu") == "cpu"
    assert float64_device("meta") == "meta"

    def refuse(*args, **kwargs):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(torch, "empty", refuse)
    assert float64_device("mps") == "cpu"
