"""Where a run computes."""

import torch
from accelerate import PartialState


def device_and_dtype() -> tuple[torch.device, torch.dtype]:
    """Return the device, and the dtype of frozen weights there: bfloat16 on a GPU, float32 on the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device()), torch.bfloat16
    return torch.device("cpu"), torch.float32


def processes() -> PartialState:
    """Return the state of the processes of this launch; on the CPU too, which accelerate would not look at."""
    return PartialState(cpu=not torch.cuda.is_available())
