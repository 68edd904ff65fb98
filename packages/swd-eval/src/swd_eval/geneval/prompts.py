"""GenEval's 553 prompts, drawn as its authors drew them, and the folders that its images go to.

The order of draws is that of create_prompts.py of djghosh13/geneval (MIT).
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from swd_data import make_folder, own, read_json, write_text
from swd_eval.geneval.score import COLOURS

Metadata = dict[str, Any]

# COCO's classes in its order, by GenEval's names. No prompt gives a person a colour: the first is left out there.
CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "computer mouse", "tv remote", "computer keyboard", "cell phone", "microwave", "oven", "toaster",
    "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
NUMBERS = {2: "two", 3: "three", 4: "four"}
POSITIONS = ("left of", "right of", "above", "below")
SEED, NUM_DRAWS, NUM_IMAGES = 43, 100, 4
SHA256 = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
"""Of the released evaluation_metadata.jsonl."""


def draw_prompts() -> list[Metadata]:
    """Return the metadata of each prompt: as JSON lines, the released file byte for byte.

    Raises:
        ValueError: NumPy draws other numbers from the seed than it did (1.26 to 2.4 draw the same).
    """
    rng = np.random.default_rng(SEED)
    rows = [_row("single_object", _a(name), [_object(name)]) for name in _draw(rng, CLASSES, len(CLASSES))]
    for draw in (_two_objects, _counting, _colour, _position, _two_colours):
        rows += [draw(rng) for _ in range(NUM_DRAWS)]
    lines = {json.dumps(row) + "\n": row for row in rows}  # without those drawn twice
    if hashlib.sha256("".join(lines).encode()).hexdigest() != SHA256:
        raise ValueError(f"expected GenEval's prompts, got others from NumPy {np.__version__}: install NumPy 2.4")
    return list(lines.values())


def prepare(out: Path) -> str:
    """Write a folder for each prompt and prompts.jsonl, a line (file_name, text) an image; say which are there.

    Raises:
        ValueError: a folder is there, of another prompt.
    """
    folders = {out / f"{index:05d}": row for index, row in enumerate(draw_prompts())}
    for folder, row in folders.items():
        path = folder / "metadata.jsonl"
        if path.is_file() and read_json(path, "GenEval's metadata") != row:
            raise ValueError(f"expected {path} of {row['prompt']!r}, got another prompt: choose another --out")
    own(out, ["prompts.jsonl"])
    names: dict[str, str] = {}
    for folder, row in folders.items():
        make_folder(folder / "samples")
        write_text(folder / "metadata.jsonl", json.dumps(row) + "\n")
        names |= {f"{folder.name}/samples/{image:04d}.png": row["prompt"] for image in range(NUM_IMAGES)}
    lines = (json.dumps({"file_name": name, "text": text}) + "\n" for name, text in names.items())
    write_text(out / "prompts.jsonl", "".join(lines))
    missing = [name for name in names if not (out / name).is_file()]
    tail = f"; the first that is missing: {missing[0]}" if missing else ""
    return f"{len(names) - len(missing)} of {len(names)} images are in {out}{tail}\nwrote {out / 'prompts.jsonl'}"


def _two_objects(rng: Generator) -> Metadata:
    a, b = _draw(rng, CLASSES, 2)
    return _row("two_object", f"{_a(a)} and {_a(b)}", [_object(a), _object(b)])


def _counting(rng: Generator) -> Metadata:
    [name], count = _draw(rng, CLASSES, 1), int(rng.integers(min(NUMBERS), max(NUMBERS), endpoint=True))
    plural = name + ("es" if name.endswith("s") else "s")  # GenEval's: two sandwichs
    exclude = [{"class": name, "count": count + 1}]
    return _row("counting", f"{NUMBERS[count]} {plural}", [{"class": name, "count": count}], exclude=exclude)


def _colour(rng: Generator) -> Metadata:
    [name], [colour] = _draw(rng, CLASSES[1:], 1), _draw(rng, COLOURS, 1)
    return _row("colors", f"{_a(colour)} {name}", [_object(name, color=colour)])


def _position(rng: Generator) -> Metadata:
    (a, b), [position] = _draw(rng, CLASSES, 2), _draw(rng, POSITIONS, 1)
    return _row("position", f"{_a(a)} {position} {_a(b)}", [_object(b), _object(a, position=[position, 0])])


def _two_colours(rng: Generator) -> Metadata:
    (a, b), (of_a, of_b) = _draw(rng, CLASSES[1:], 2), _draw(rng, COLOURS, 2)
    return _row("color_attr", f"{_a(of_a)} {a} and {_a(of_b)} {b}", [_object(a, color=of_a), _object(b, color=of_b)])


def _draw(rng: Generator, names: tuple[str, ...], num: int) -> list[str]:
    return [str(name) for name in rng.choice(names, num, replace=False)]


def _row(tag: str, what: str, include: list[Metadata], **more: Any) -> Metadata:
    return {"tag": tag, "include": include} | more | {"prompt": f"a photo of {what}"}


def _object(name: str, **more: Any) -> Metadata:
    return {"class": name, "count": 1} | more


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
