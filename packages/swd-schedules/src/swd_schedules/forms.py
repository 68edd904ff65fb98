"""How schedules are written: in line, `1000:8x8,896:10x10`, and as JSON. Which of them are valid is not asked here."""

import json
import re
from typing import Any

from swd_schedules.rules import UpscaleMode, check_upscaler

Fields = tuple[tuple[float, ...], tuple[tuple[int, ...], ...], UpscaleMode]
_ENTRY = re.compile(r"(\d+(?:\.\d+)?(?:e-?\d+)?):(\d{1,9}(?:x\d{1,9}){0,2})")
_JSON = 'expected JSON such as {"timesteps": [1000, 602], "sizes": [[8, 8], [16, 16]]}'


def read_inline(text: str) -> Fields:
    """Return timesteps, sizes and upscaler of the inline form.

    Raises:
        ValueError: an entry is not of that form.
    """
    timesteps, sizes = [], []
    entries, _, last = text.rpartition(",")
    named = bool(entries) and ":" not in last
    for entry in (entries if named else text).split(","):
        match = _ENTRY.fullmatch(entry.strip())
        if match is None:
            raise ValueError(
                f"expected entries such as 1000:8x8, got {entry.strip()[:60]!r}; write timestep:size, split by commas"
            )
        size = tuple(int(axis) for axis in match[2].split("x"))
        timesteps.append(float(match[1]))
        sizes.append(size if len(size) > 1 else size * 2)
    return tuple(timesteps), tuple(sizes), check_upscaler(last.strip()) if named else "bicubic"


def read_json(text: str) -> Fields:
    """Return timesteps, sizes and upscaler of a JSON object.

    Raises:
        ValueError: no JSON, other keys, or values of other types.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{_JSON}, got {text[:60]!r}; check the syntax ({error})") from error
    if not isinstance(data, dict) or set(data) - {"upscaler"} != {"timesteps", "sizes"}:
        raise ValueError(f"{_JSON}, got {text[:60]!r}; give exactly these two keys, or upscaler too")
    timesteps, sizes = data["timesteps"], data["sizes"]
    if not _is_list_of((int, float), timesteps):
        raise ValueError(f"{_JSON}, got timesteps {_short(timesteps)}; give a list of numbers")
    if not (_is_list_of((list,), sizes) and all(_is_list_of((int,), size) for size in sizes)):
        raise ValueError(f"{_JSON}, got sizes {_short(sizes)}; give a list of lists of whole numbers")
    # Clamped: `float` of a whole number of 400 digits raises.
    numbers = (t if isinstance(t, float) else float(max(-(10**9), min(t, 10**9))) for t in timesteps)
    return tuple(numbers), tuple(map(tuple, sizes)), check_upscaler(data.get("upscaler", "bicubic"))


def _is_list_of(kinds: tuple[type, ...], value: Any) -> bool:
    """Tell whether a value is a list of some types; true and false are no numbers."""
    return isinstance(value, list) and all(isinstance(x, kinds) and not isinstance(x, bool) for x in value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
