"""What a folder of ours is, by the file that its command leaves there: one may be given where another is meant."""

from pathlib import Path
from typing import Any

from swd_data.files import checksum, read_object

SETTINGS, MANIFEST, IMAGES, STUDENT = "config.json", "manifest.json", "images", "student"
CACHE, LORA, SAMPLING = "cache", "lora", "sampling.json"


def is_run(folder: Path) -> bool:
    """Tell whether a folder is a run of swd-distill."""
    return {"model", "recipe"} <= _object(folder / SETTINGS).keys()


def is_cache(folder: Path) -> bool:
    """Tell whether a folder is the cache of a run."""
    return "settings" in _object(folder / MANIFEST)


def samples_of(folder: Path) -> Path:
    """Return the folder of samples that is meant by a folder: of a run what its student drew, else itself.

    Raises:
        ValueError: a run whose student has drawn nothing yet or was trained on since, or a cache, which holds latents.
    """
    if is_cache(folder):
        raise ValueError(f"expected samples, got the cache {folder}, which holds latents: give a folder of images")
    if not is_run(folder):
        return folder
    student = folder / STUDENT
    if not student.is_dir():
        raise ValueError(
            f"expected samples, got the run {folder}, whose {IMAGES} are its teacher's: `swd-sample {folder} --unseen` "
            f"lets its student draw into {student}"
        )
    drew = _object(student / SAMPLING).get("lora")
    now = {checksum(file) for file in (folder / LORA).rglob("*.safetensors")}
    if isinstance(drew, str) and now and not now >= set(drew.split()):
        raise ValueError(
            f"expected samples of the LoRA in {folder / LORA}, got those of an earlier one in {student}: remove them, "
            f"and let `swd-sample {folder} --unseen` draw again"
        )
    return student


def teachers_of(folder: Path) -> Path:
    """Return the folder of references that is meant by one: of a run the images that it was trained on, else itself.

    Raises:
        ValueError: those of a run are no folder that is there.
    """
    if not is_run(folder):
        return folder
    data = _object(folder / SETTINGS).get("data")
    own = data.get(IMAGES) if isinstance(data, dict) else None
    images = Path(own) if isinstance(own, str) else folder / IMAGES
    if not images.is_dir():
        raise ValueError(f"expected the images of the run {folder} in {images}, got no such folder: give their folder")
    return images


def latents_of(path: Path) -> Path:
    """Return what holds the latents of a run: its cache, or before that its images; else the path itself."""
    if not is_run(path):
        return path
    return path / CACHE if is_cache(path / CACHE) else teachers_of(path)


def _object(path: Path) -> dict[str, Any]:
    """Return what a file says, nothing where there is none of ours."""
    try:
        return dict(read_object(path)) if path.is_file() else {}
    except (ValueError, OSError):  # somebody else's
        return {}
