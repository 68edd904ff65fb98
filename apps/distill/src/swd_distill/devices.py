"""Where a run computes."""

import torch
from accelerate import PartialState


def device_and_dtype() -> tuple[torch.device, torch.dtype]:
    """Return the device, and the dtype of frozen weights there: bfloat16 on a GPU, float32 on the CPU."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision(
            "high"
        )  # adapters are float32: TF32 keeps them from costing more than the base
        return torch.device("cuda", torch.cuda.current_device()), torch.bfloat16
    return torch.device("cpu"), torch.float32


def one_process(command: str) -> None:
    """Raise ValueError in a launch of several processes, for a command that does not share its work."""
    count = processes().num_processes
    if count > 1:
        raise ValueError(f"expected one process for {command}, got {count}: launch only generate and encode on several")


def processes() -> PartialState:
    """Return the state of the processes of this launch; on the CPU too, which accelerate would not look at."""
    return PartialState(cpu=not torch.cuda.is_available())
