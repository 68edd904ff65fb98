"""A folder of samples in Hugging Face's `imagefolder` form: what evaluation and studies take."""

import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from swd_data import read_text, write_text
from swd_sample.media import save_media
from swd_sample.pipeline import SwDPipeline
from swd_schedules import ScaleSchedule


def sample_folder(
    pipe: SwDPipeline,
    prompts: Sequence[str],
    folder: Path,
    *,
    schedule: ScaleSchedule,
    seed: int,
    batch: int,
    names: Sequence[str] | None = None,
) -> int:
    """Sample prompt i from seed + i into a file of its own where there is none; return how many were made.

    Files are called 000000, 000001, ... or by `names`, which may lead into subfolders.

    Raises:
        ValueError: the folder holds samples of other prompts.
    """
    names = file_names(len(prompts), schedule, names)
    files = [folder / name for name in names]
    write_metadata(folder, names, prompts)
    made = 0
    for start in tqdm(unfinished(files, batch), desc="sample", unit="batch"):
        few = slice(start, start + batch)
        for media, file in zip(pipe(prompts[few], seed=seed + start, schedule=schedule), files[few], strict=True):
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
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
    lines = (json.dumps({"file_name": name, "text": text}) for name, text in zip(names, prompts, strict=True))
    metadata, text = folder / "metadata.jsonl", "".join(f"{line}\n" for line in lines)
    if metadata.is_file() and read_text(metadata) != text:
        raise ValueError(f"expected samples of these prompts in {folder}, got others: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(metadata, text)


def unfinished(files: Sequence[Path], batch: int) -> list[int]:
    """Return where batches start of which a file is missing.

    Whole batches of neighbours, as an unbroken run has them: the rounding of a sample depends on its batch.
    """
    return [i for i in range(0, len(files), batch) if not all(file.is_file() for file in files[i : i + batch])]
