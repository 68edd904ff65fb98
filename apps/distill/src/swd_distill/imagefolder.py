"""Images with captions in Hugging Face's `imagefolder` form: files beside a metadata.jsonl or metadata.csv."""

import csv
import json
from pathlib import Path
from typing import Any

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
    for number, row in enumerate(_rows(found), start=1):
        name, text = row.get("file_name"), row.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"expected file_name and text in row {number} of {found}, got {sorted(row)}")
        if not (folder / name).is_file():
            raise ValueError(f"expected the image {folder / name} of row {number} of {found}, got no such file")
        pairs.append((folder / name, text))
    if not pairs:
        raise ValueError(f"expected at least one image in {found}, got none")
    return pairs


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            return list(csv.DictReader(file))
        try:
            return [json.loads(line) for line in file if line.strip()]
        except json.JSONDecodeError as error:
            raise ValueError(f"expected one JSON object a line in {path}, got a broken one: {error}") from error
