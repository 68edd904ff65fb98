"""GenEval's rules against its own script, on random detections.

    python proofs/geneval.py GENEVAL/evaluation/evaluate_images.py

The script imports mmdet 2 and reads its options at the top: its functions are taken out, and run with drawn detections
and colours.
"""

import ast
import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageOps

from swd_eval.geneval.score import COLOURS, Detection, judge

CLASSES = ("cat", "dog", "cup")
SIDE = 512


def load_original(path: Path) -> dict[str, Any]:
    """Run the script's functions and the names that they need, with the options' defaults."""
    wanted = ("compute_iou", "relative_position", "evaluate", "evaluate_image")
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    scope: dict[str, Any] = {"np": np, "json": json, "Image": Image, "ImageOps": ImageOps, "COLORS": list(COLOURS)}
    scope |= {"THRESHOLD": 0.3, "COUNTING_THRESHOLD": 0.9, "MAX_OBJECTS": 16, "NMS_THRESHOLD": 1.0}
    scope |= {"POSITION_THRESHOLD": 0.1, "classnames": CLASSES, "object_detector": None}
    exec(compile(tree, str(path), "exec"), scope)
    return scope


def draw_metadata(rng: Generator) -> dict[str, Any]:
    """Draw what a prompt asks for."""
    tag = str(rng.choice(["single_object", "two_object", "counting", "colors", "position", "color_attr"]))
    include: list[dict[str, Any]] = []
    for index in range(rng.integers(1, 3)):
        include.append({"class": str(rng.choice(CLASSES)), "count": int(rng.integers(1, 4))})
        if rng.random() < 0.4:
            include[-1]["color"] = str(rng.choice(COLOURS[:2]))
        if index and rng.random() < 0.7:
            include[-1]["position"] = [str(rng.choice(["left of", "right of", "above", "below"])), 0]
    exclude = [{"class": str(rng.choice(CLASSES)), "count": int(rng.integers(1, 6))}] if rng.random() < 0.5 else []
    return {"tag": tag, "prompt": "", "include": include, "exclude": exclude}


def draw_boxes(rng: Generator, tag: str) -> list[np.ndarray]:
    """Draw boxes and confidences (left, top, right, bottom, score) of each class."""
    found = []
    for _ in CLASSES:
        num = rng.integers(0, 20 if tag == "counting" else 4)
        low = rng.uniform(0, SIDE - 112, (num, 2))
        score = rng.uniform(0.85 if tag == "counting" else 0.1, 1, (num, 1))
        found.append(np.concatenate([low, low + rng.uniform(5, 112, (num, 2)), score], 1))
    return found


def main() -> None:
    """Print in how many cases both agree."""
    original, rng, verdicts = load_original(Path(sys.argv[1])), np.random.default_rng(0), Counter[tuple[bool, bool]]()
    image, file = Image.new("RGB", (SIDE, SIDE)), io.BytesIO()
    image.save(file, "bmp")
    for case in range(20_000):
        metadata = draw_metadata(rng)
        boxes = draw_boxes(rng, metadata["tag"])
        # The colour depends on the crop alone, which both have: on its width in whole pixels.
        original["inference_detector"] = lambda _, __, boxes=boxes: boxes
        original["color_classification"] = lambda _, objects, __, case=case: [
            COLOURS[(int(round(box[2]) - round(box[0])) + case) % 2] for box, _ in objects
        ]
        theirs = original["evaluate_image"](file, metadata)["correct"]
        detections = [
            Detection(name, float(row[4]), tuple(map(float, row[:4])))
            for name, rows in zip(CLASSES, boxes, strict=True)
            for row in rows
        ]
        rng.shuffle(detections)  # type: ignore[arg-type]
        ours = not judge(
            image,
            detections,
            metadata,
            lambda crops, _, case=case: [COLOURS[(crop.width + case) % 2] for crop in crops],
        )
        verdicts[ours, theirs] += 1
    for (ours, theirs), num in sorted(verdicts.items()):
        print(f"ours {ours}, original {theirs}: {num} cases")


if __name__ == "__main__":
    main()
