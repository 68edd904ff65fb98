"""Where to compute: the accelerator that torch finds, else the CPU."""

import torch


def default_device() -> str:
    """Return its name."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if found is None else found.type


def device_name(device: str) -> str:
    """Return the model of a device, where its backend tells it, else its name."""
    properties = getattr(getattr(torch, torch.device(device).type, None), "get_device_name", None)
    return str(properties(device)) if properties and device != "cpu" else device
