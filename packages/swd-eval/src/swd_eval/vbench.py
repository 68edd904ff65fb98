"""VBench-2.0 (Zheng et al., 2025) around its own environment: which videos to make, and table 10 from its results."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swd_data import make_folder, own, read_json, read_object, read_rows, write_json, write_text

CATEGORIES = {
    "Creativity": ("Composition", "Diversity"),
    "Commonsense": ("Motion_Rationality", "Instance_Preservation"),
    "Controllability": (
        "Dynamic_Spatial_Relationship",
        "Dynamic_Attribute",
        "Motion_Order_Understanding",
        "Human_Interaction",
        "Complex_Landscape",
        "Complex_Plot",
        "Camera_Motion",
    ),
    "Human Fidelity": ("Human_Anatomy", "Human_Clothes", "Human_Identity"),
    "Physics": ("Mechanics", "Material", "Thermotics", "Multi-View_Consistency"),
}
DIMENSIONS = tuple(name for names in CATEGORIES.values() for name in names)
NAME_LENGTH = 180


@dataclass(frozen=True)
class Video:
    """A video that VBench-2.0 looks for."""

    dimension: str
    prompt: str
    index: int

    @property
    def file_name(self) -> str:
        """Its path: a folder a dimension, for dimensions share prompts."""
        return f"{self.dimension}/{self.prompt[:NAME_LENGTH]}-{self.index}.mp4"


def prepare(source: Path, out: Path) -> str:
    """Write videos.jsonl, a line (file_name, text, index) for each video to make, and say which are there.

    Args:
        source: VBench-2.0's folder `prompts/prompt` of DIMENSION.txt, or its VBench2_full_info.json.
        out: The folder that the videos go to, which VBench-2.0 is then given dimension by dimension.
    """
    videos = read_videos(source)
    rows = [{"file_name": video.file_name, "text": video.prompt, "index": video.index} for video in videos]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for dimension in {video.dimension for video in videos}:
        make_folder(out / dimension)
    own(out, ["videos.jsonl"])
    write_text(out / "videos.jsonl", text)
    missing = [video.file_name for video in videos if not (out / video.file_name).is_file()]
    tail = f"; the first that is missing: {missing[0]}" if missing else ""
    return f"{len(videos) - len(missing)} of {len(videos)} videos are in {out}{tail}\nwrote {out / 'videos.jsonl'}"


def read_videos(source: Path) -> list[Video]:
    """Return the videos of a prompt list: 20 for each prompt of Diversity, 3 for each other."""
    prompts = _prompts_of_folder(source) if source.is_dir() else _prompts_of_file(source)
    videos = [
        Video(dimension, prompt, index)
        for dimension, prompt in prompts
        for index in range(20 if dimension == "Diversity" else 3)
    ]
    if not videos:
        raise ValueError(f"expected prompts of VBench-2.0 in {source}, got none: give prompts/prompt or full_info.json")
    seen: dict[str, str] = {}
    for video in videos:
        if seen.setdefault(video.file_name, video.prompt) != video.prompt or "/" in video.prompt[:NAME_LENGTH]:
            raise ValueError(f"expected prompts that name files, got one that does not: {video.file_name}")
    return videos


def collect(source: Path, out: Path) -> str:
    """Write results.json and table.md from VBench-2.0's *_eval_results.json, in per cent as table 10; return the table.

    Raises:
        ValueError: dimensions are missing; VBench-2.0's own script would count them as 0.
    """
    scores = read_scores(source)
    categories = category_means(scores)
    total = sum(categories.values()) / len(categories)
    own(out, ["results.json", "table.md"])
    write_json(out / "results.json", {"total": total, "categories": categories, "dimensions": scores})
    columns = {"Total": total} | categories | {name.replace("_", " "): scores[name] for name in DIMENSIONS}
    lines = [columns, ["---"] * len(columns), [f"{value:.2f}" for value in columns.values()]]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    write_text(out / "table.md", table)
    return table


def category_means(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the mean of each category's dimensions; the total is the mean of these five."""
    return {category: sum(scores[name] for name in names) / len(names) for category, names in CATEGORIES.items()}


def read_scores(source: Path) -> dict[str, float]:
    """Read the score of each dimension, in per cent, from a file or all JSON files below a folder."""
    files = sorted(source.rglob("*_eval_results.json")) if source.is_dir() else [source]
    found: dict[str, float] = {}
    for file in files:
        for name, value in read_object(file, "results of VBench-2.0").items():
            score = value[0] if isinstance(value, list) and value else value
            if name not in DIMENSIONS:
                continue
            if not isinstance(score, int | float):
                raise ValueError(f"expected a number for {name} in {file}, got {str(score)[:40]!r}")
            if found.setdefault(name, 100 * float(score)) != 100 * float(score):
                raise ValueError(f"expected one score for {name} in {source}, got another in {file.name}")
    missing = [name for name in DIMENSIONS if name not in found]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"expected 18 dimensions in {source}, got {len(found)}, without {', '.join(missing[:3])}{more}: run "
            "VBench-2.0 for these too"
        )
    wrong = [name for name in found if not (math.isfinite(found[name]) and 0 <= found[name] <= 100)]
    if wrong:
        raise ValueError(f"expected scores from 0 to 1 in {source}, got {found[wrong[0]] / 100} for {wrong[0]}")
    return found


def _prompts_of_folder(source: Path) -> list[tuple[str, str]]:
    files = [source / f"{dimension}.txt" for dimension in DIMENSIONS]
    return [(file.stem, row["text"]) for file in files if file.is_file() for _, row in read_rows(file)]


def _prompts_of_file(source: Path) -> list[tuple[str, str]]:
    rows = read_json(source, "VBench-2.0's list of prompts")
    keys = {"prompt_en", "dimension"}
    if not isinstance(rows, list) or not all(isinstance(row, dict) and keys <= row.keys() for row in rows):
        raise ValueError(f"expected a list of objects with prompt_en and dimension in {source}, got something else")
    return [(dimension, row["prompt_en"]) for row in rows for dimension in row["dimension"] if dimension in DIMENSIONS]
