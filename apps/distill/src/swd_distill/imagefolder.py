"""Images with captions in Hugging Face's `imagefolder` form: files beside a metadata.jsonl or metadata.csv."""

from pathlib import Path
from typing import Any

from swd_distill.prompts import read_csv, read_jsonl

METADATA = ("metadata.jsonl", "metadata.csv")


def read_imagefolder(folder: Path) -> list[tuple[Path, str]]:
    """Return (image file, text) pairs in the order of the metadata.

    Raises:
        ValueError: no metadata, a broken line, or a file that is not there.
    """
    found = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if found is None:
        raise ValueError(f"expected {' or '.join(METADATA)} in {folder}, got neither: run `swd-distill generate` first")
    pairs = []
    for number, row in _rows(found):
        name, text = row.get("file_name"), row.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"expected file_name and text in line {number} of {found}, got {sorted(map(str, row))}")
        if not (folder / name).is_file():
            raise ValueError(f"expected the image {folder / name} of line {number} of {found}, got no such file")
        pairs.append((folder / name, text))
    if not pairs:
        raise ValueError(f"expected at least one image in {found}, got none")
    return pairs


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows with their line numbers."""
    text = path.read_text(encoding="utf-8-sig")
    return read_csv(text) if path.suffix == ".csv" else read_jsonl(text, path)
