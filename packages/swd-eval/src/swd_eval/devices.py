"""Where to compute: the accelerator that torch finds, else the CPU."""

import torch


def find_device(name: str | None = None) -> str:
    """Return a device's name: by default that of the accelerator that torch finds (CUDA, ROCm, XPU, MPS), else the CPU.

    Raises:
        ValueError: torch has no such device here.
    """
    if name is None:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return "cpu" if found is None else found.type
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # of torch: an unknown name; none of its kind
        here = " or ".join(dict.fromkeys(("cpu", find_device())))
        raise ValueError(f"expected a --device of this machine, got {name}: pass {here}") from error
    return name


def float64_device(device: str) -> str:
    """Return a device where float64 is computed: the CPU in the place of one that does not know it, as Apple's GPUs."""
    try:
        torch.empty(0, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return "cpu"
    return device


def device_name(device: str) -> str:
    """Return the model of a device, where its backend tells it, else its name."""
    properties = getattr(getattr(torch, torch.device(device).type, None), "get_device_name", None)
    return str(properties(device)) if properties and device != "cpu" else device
