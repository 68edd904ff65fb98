"""What a command sets for torch, before torch is imported."""

import os

_SETTINGS = {
    # Threads sleep while they wait. Spinning, they take the time of what they wait for, if another process is busy.
    "OMP_WAIT_POLICY": "PASSIVE",
}
_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


def prepare_torch() -> None:
    """Set what a user has not set."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if not any(name in os.environ for name in _ALLOCATOR):
        # Segments grow: a schedule's sizes would else leave gaps in a GPU's memory.
        os.environ[_ALLOCATOR[0]] = "expandable_segments:True"
