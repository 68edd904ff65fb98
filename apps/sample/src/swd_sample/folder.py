"""A folder of samples in Hugging Face's `imagefolder` form: what evaluation and studies take."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from swd_data import claim, make_folder, read_object, read_text, write_text
from swd_data.layout import SAMPLING
from swd_sample.media import save_media
from swd_sample.pipeline import SwDPipeline
from swd_schedules import ScaleSchedule

METADATA, SETTINGS = "metadata.jsonl", SAMPLING
LATER = {"base_lora_files"}


def sample_folder(
    pipe: SwDPipeline,
    prompts: Sequence[str],
    folder: Path,
    *,
    schedule: ScaleSchedule,
    seed: int,
    batch: int,
    names: Sequence[str] | None = None,
    made_with: dict[str, Any] | None = None,
) -> int:
    """Sample prompt i from seed + i into a file of its own where there is none; return how many were made.

    Files are called 000000, 000001, ... or by `names`, which may lead into subfolders. What they are made with, `seed`,
    `schedule` and what `made_with` names, is noted in sampling.json: no folder mixes samples of two models.

    Raises:
        ValueError: the folder holds samples of other prompts, or made with something else.
    """
    names = file_names(len(prompts), schedule, names)
    files = [folder / name for name in names]
    check_metadata(folder, names, prompts)
    settings = {"seed": seed, "schedule": schedule.to_json(), **(made_with or {})}
    noted = read_object(folder / SETTINGS) if (folder / SETTINGS).is_file() else settings
    for name in LATER - noted.keys():  # earlier versions have noted none
        settings.pop(name, None)
    claim(folder / SETTINGS, settings, "samples", writes=[*names, METADATA])
    write_metadata(folder, names, prompts)
    made = 0
    for start in tqdm(unfinished(files, batch), desc="sample", unit="batch"):
        few = slice(start, start + batch)
        for media, file in zip(pipe(prompts[few], seed=seed + start, schedule=schedule), files[few], strict=True):
            if not file.is_file():
                make_folder(file.parent)
                save_media(media, file, pipe.fps)
                made += 1
    return made


def file_names(num: int, schedule: ScaleSchedule, stems: Sequence[str] | None = None) -> list[str]:
    """Return a name for each sample: `stems`, else 000000, 000001, ..., with the suffix of images or videos."""
    suffix = ".mp4" if len(schedule.sizes[-1]) == 3 else ".png"
    return [f"{stem}{suffix}" for stem in stems or [f"{i:06d}" for i in range(num)]]


def write_metadata(folder: Path, names: Sequence[str], prompts: Sequence[str]) -> None:
    """Make a folder, and write which file belongs to which prompt.

    Raises:
        ValueError: the folder holds samples of other prompts.
    """
    text = check_metadata(folder, names, prompts)
    make_folder(folder)
    write_text(folder / METADATA, text)


def check_metadata(folder: Path, names: Sequence[str], prompts: Sequence[str]) -> str:
    """Return the text of a folder's metadata; raise ValueError if it holds samples of other prompts."""
    lines = (json.dumps({"file_name": name, "text": text}) for name, text in zip(names, prompts, strict=True))
    metadata, text = folder / METADATA, "".join(f"{line}\n" for line in lines)
    if metadata.is_file() and read_text(metadata) != text:
        raise ValueError(f"expected samples of these prompts in {folder}, got others: choose another --out")
    return text


def unfinished(files: Sequence[Path], batch: int) -> list[int]:
    """Return where batches start of which a file is missing.

    Whole batches of neighbours, as an unbroken run has them: the rounding of a sample depends on its batch.
    """
    return [i for i in range(0, len(files), batch) if not all(file.is_file() for file in files[i : i + batch])]
