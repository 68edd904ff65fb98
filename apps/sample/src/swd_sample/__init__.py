"""Few-step sampling whose resolution grows with every step."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swd_sample.pipeline import SwDPipeline

__all__ = ["SwDPipeline"]


def __getattr__(name: str) -> object:
    """Import the pipeline on first use: diffusers takes seconds, `swd-sample --help` should not."""
    if name == "SwDPipeline":
        from swd_sample.pipeline import SwDPipeline

        return SwDPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
