"""What is timed: table 4's rows of a model, and its teacher with guidance."""

from dataclasses import dataclass

from swd_distill.presets import PRESETS
from swd_schedules import ScaleSchedule, presets

TEACHER, TIMED_STEPS = "teacher", 4

# Four and six steps. Appendix D has no six steps for the last two: their sizes are ours.
SCALEWISE = {
    "sd35-medium": ("sd35-medium-4", "sd35-medium-6"),
    "sd35-large": ("sd35-large-4", "sd35-medium-6"),
    "flux": ("flux-4-paper", "sd35-medium-6"),
    "wan": ("wan-4", "1000:6x20x34,945:9x26x44,896:11x30x52,790:14x36x62,737:16x40x70,602:21x60x104"),
    "sdxl": ("sdxl-4", "1000:32,900:48,800:64,700:80,600:96,400:128"),
}
TINY = {
    "embedded": ("tiny-4", "1000:4,945:6,896:8,790:10,737:12,602:16"),
    "large": ("1000:12,896:16,737:24,602:32", "1000:12,945:16,896:16,790:20,737:24,602:32"),
    "random-sd3": ("tiny-4", "1000:4,945:6,896:8,790:10,737:12,602:16"),
    "random-flux": (PRESETS["tiny-flux"].schedule, "1000:4x4,945:4x6,896:6x6,790:6x8,737:8x8,602:10x12"),
    "random-wan": (PRESETS["tiny-wan"].schedule, "1000:2x4x6,945:3x4x6,896:3x4x8,790:4x4x8,737:4x6x10,602:6x8x12"),
    "random-sdxl": (PRESETS["tiny-sdxl"].schedule, "1000:4x4,900:4x4,800:4x8,700:8x8,600:8x8,400:8x12"),
}
INVENTED = {"wan": "scale-6", "sdxl": "scale-6"}


@dataclass(frozen=True)
class Row:
    """One way to sample.

    Attributes:
        steps: Steps in all; those of `schedule` are run, and more of its last kind are reckoned.
        guidance: None: none, or what the model is told anyway.
    """

    schedule: ScaleSchedule
    steps: int
    guidance: float | None = None


def schedules(name: str) -> dict[str, ScaleSchedule]:
    """Return table 4's rows."""
    four, six = (presets.resolve(text) for text in (SCALEWISE | TINY)[name])
    full = four.full_scale()
    return {"full-4": full, "full-2": full.thin(2), "scale-6": six, "scale-4": four}


def rows(name: str) -> dict[str, Row]:
    """Return table 4's rows and the teacher's: of its many steps, all alike, few are run."""
    found = {row: Row(schedule, len(schedule.sizes)) for row, schedule in schedules(name).items()}
    data = PRESETS[name if name in SCALEWISE else "tiny"].data
    teacher = Row(found["full-4"].schedule, data.teacher_steps, data.teacher_guidance)
    assert len(teacher.schedule.sizes) == TIMED_STEPS
    return found | {TEACHER: teacher}
