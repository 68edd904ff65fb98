"""What a command sets for torch, before torch is imported."""

import os

_SETTINGS = {
    # Threads sleep while they wait. Spinning, they take the time of what they wait for, if another process is busy.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Segments grow: a schedule's sizes would else leave gaps in a GPU's memory.
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
}


def prepare_torch() -> None:
    """Set what a user has not set."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
