"""Choose which latent size goes with which noise level, move between sizes, and sample scale by scale."""

from swd_schedules import presets
from swd_schedules.grid import shifted_grid
from swd_schedules.process import FlowMatching, VariancePreserving
from swd_schedules.resize import downscale, upscale
from swd_schedules.sampling import sample_scalewise, scalewise_stages
from swd_schedules.schedule import ScaleSchedule, Stage

__all__ = [
    "FlowMatching",
    "ScaleSchedule",
    "Stage",
    "VariancePreserving",
    "downscale",
    "presets",
    "sample_scalewise",
    "scalewise_stages",
    "shifted_grid",
    "upscale",
]
