"""Where a run computes."""

import torch


def device_and_dtype() -> tuple[torch.device, torch.dtype]:
    """Return the device, and the dtype of frozen weights there: bfloat16 on a GPU, float32 on the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device()), torch.bfloat16
    return torch.device("cpu"), torch.float32
