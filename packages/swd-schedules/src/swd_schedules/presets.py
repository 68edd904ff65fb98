"""Schedules of the paper (appendix D, table 9), of the released models, and their baselines.

The paper prints rounded timesteps (945, 896, 790, 737, 602). They are points of the 28-step grid of a scheduler with
shift 3 (`grid.shifted_grid`, twice shifted), and stand here with that grid's full precision (945.39, 895.90, ...).
"""

import json
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from swd_schedules.grid import shifted_grid
from swd_schedules.rules import check_upscaler
from swd_schedules.schedule import ScaleSchedule

_GRID = tuple(1000 * sigma for sigma in shifted_grid(28))
_SIX_STEPS = tuple(_GRID[i] for i in (0, 4, 7, 12, 14, 18))
_FOUR_STEPS = tuple(_GRID[i] for i in (0, 7, 14, 18))
_FOUR_STEPS_FLUX_PAPER = tuple(_GRID[i] for i in (0, 4, 12, 18))
_WAN_SIZES = ((20, 34), (30, 52), (40, 70), (60, 104))

_SCALEWISE = {
    "sd35-medium-6": ScaleSchedule.square(_SIX_STEPS, (32, 48, 64, 80, 96, 128)),
    "sd35-medium-4": ScaleSchedule.square(_FOUR_STEPS, (64, 80, 96, 128)),
    "sd35-large-4": ScaleSchedule.square(_FOUR_STEPS, (64, 80, 96, 128)),
    "flux-4-paper": ScaleSchedule.square(_FOUR_STEPS_FLUX_PAPER, (32, 64, 96, 128)),
    "flux-4-released": ScaleSchedule.square(_FOUR_STEPS, (64, 80, 96, 128)),
    "wan-4": ScaleSchedule(_FOUR_STEPS, tuple((t, *hw) for t, hw in zip((6, 11, 16, 21), _WAN_SIZES, strict=True))),
    "wan-4-spatial": ScaleSchedule(_FOUR_STEPS, tuple((21, *hw) for hw in _WAN_SIZES)),
    # FLUX.2's own, from its spectrum (docs/spectrum-flux2.md): noise hides less of its latents than of FLUX.1's.
    "flux2-4": ScaleSchedule.square((1000.0, 816.0, 719.0, 667.0), (32, 64, 96, 128)),
    # Wan2.2's smaller one: cells of 16 px, 121 frames of 704x1280; the shares of Wan2.1's sizes.
    "wan22-5b-4": ScaleSchedule(_FOUR_STEPS, ((9, 14, 26), (16, 22, 40), (23, 30, 54), (31, 44, 80))),
    # SDXL is variance preserving: its own timesteps, not points of the flow grid.
    "sdxl-4": ScaleSchedule.square((1000.0, 800.0, 600.0, 400.0), (64, 80, 96, 128)),
    # Of the embedded teacher (16x16 latents of 64 px): SD3.5's timesteps, an eighth of its sizes.
    "tiny-4": ScaleSchedule.square(_FOUR_STEPS, (8, 10, 12, 16)),
    # Of the embedded video teacher (5x8x8 latents of 17 frames of 32 px): Wan2.1's timesteps and shares of each axis.
    "tiny-video-4": ScaleSchedule(_FOUR_STEPS, ((2, 4, 4), (3, 4, 4), (4, 6, 6), (5, 8, 8))),
}

PRESETS: Final[dict[str, ScaleSchedule]] = {
    **_SCALEWISE,
    "sd35-medium-6-constant-64": ScaleSchedule.square(_SIX_STEPS, (64, 64, 64, 64, 64, 128)),
    "sd35-medium-6-constant-32": ScaleSchedule.square(_SIX_STEPS, (32, 32, 32, 32, 32, 128)),
    **{f"{name}-full": schedule.full_scale() for name, schedule in _SCALEWISE.items()},
}

SD35_MEDIUM_6 = PRESETS["sd35-medium-6"]
SD35_MEDIUM_4 = PRESETS["sd35-medium-4"]
SD35_LARGE_4 = PRESETS["sd35-large-4"]
FLUX_4_PAPER = PRESETS["flux-4-paper"]
FLUX_4_RELEASED = PRESETS["flux-4-released"]
WAN_4 = PRESETS["wan-4"]
WAN_4_SPATIAL = PRESETS["wan-4-spatial"]
SDXL_4 = PRESETS["sdxl-4"]
TINY_4 = PRESETS["tiny-4"]
TINY_VIDEO_4 = PRESETS["tiny-video-4"]


def resolve(text: str) -> ScaleSchedule:
    """Return the schedule of a preset's name, of a JSON file, or of the inline form `1000:8x8,896:10x10`.

    An upscaler may follow a preset's name as it may the inline form: `sd35-medium-4,dct`.

    Raises:
        ValueError: None of the three, or a schedule that breaks a rule.
    """
    name, comma, upscaler = text.partition(",")
    if name in PRESETS:
        return replace(PRESETS[name], upscaler=check_upscaler(upscaler.strip())) if comma else PRESETS[name]
    if Path(text).suffix.lower() == ".json":
        return _read_file(Path(text))
    if ":" not in text:
        near = get_close_matches(text, PRESETS, cutoff=0.5) or PRESETS
        raise ValueError(
            f"expected a schedule, got {text[:60]!r}: take one of {', '.join(near)}, a .json file, or "
            "1000:64,896:80,..."
        )
    return ScaleSchedule.parse(text)


def _read_file(path: Path) -> ScaleSchedule:
    """Read a JSON file in any encoding that JSON may have; whatever is wrong with it, the line names it."""
    try:
        data = path.read_bytes()
        return ScaleSchedule.from_json(data.decode(json.detect_encoding(data)))
    except OSError as error:
        raise ValueError(f"expected a schedule's JSON file, got {path}: {error.strerror}") from error
    except UnicodeError as error:
        raise ValueError(f"expected a schedule's JSON file, got {path}: {error}; save it as UTF-8") from error
    except ValueError as error:
        raise ValueError(f"{error} (in {path})") from error
