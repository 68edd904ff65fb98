"""GenEval (Ghosh et al., 2023): does a detector find the objects, counts, colours and places that a prompt names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9
MAX_OBJECTS = 16
POSITION_THRESHOLD = 0.1
BACKGROUND = "#999"


@dataclass(frozen=True)
class Detection:
    """An object: COCO's name, confidence, box (left, top, right, bottom) in pixels, and mask if there is one."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | None = None


@runtime_checkable
class Detector(Protocol):
    """Finds objects of COCO's classes; GenEval's own is Mask2Former Swin-S of mmdet 2, and numbers depend on it."""

    def __call__(self, image: Image.Image) -> Sequence[Detection]:
        """Return what is in an image."""


NameColours = Callable[[Sequence[Image.Image], str], Sequence[str]]
"""Names the colour, one of COLOURS, of each crop of a class."""


def judge(
    image: Image.Image, detections: Sequence[Detection], metadata: Mapping[str, Any], name_colours: NameColours
) -> str:
    """Return what is wrong with an image by its prompt's metadata; nothing if it is correct.

    `include` holds (class, count, color, position), all of which must be met; `exclude` (class, count) says from which
    count on there are too many. Colours and places are those of the most confident objects.
    """
    objects, faults = keep(detections, metadata["tag"]), []
    groups: list[Sequence[Detection] | None] = []
    for wanted in metadata.get("include", ()):
        found = objects.get(wanted["class"], [])[: wanted["count"]]
        fault = _fault(image, found, wanted, groups, name_colours)
        groups.append(None if fault else found)
        faults += [fault] if fault else []
    for unwanted in metadata.get("exclude", ()):
        num = len(objects.get(unwanted["class"], []))
        if num >= unwanted["count"]:
            faults.append(f"expected fewer than {unwanted['count']} {unwanted['class']}, found {num}")
    return "; ".join(faults)


def keep(detections: Sequence[Detection], tag: str) -> dict[str, list[Detection]]:
    """Return the objects that count by class, the most confident first."""
    threshold = COUNTING_THRESHOLD if tag == "counting" else THRESHOLD
    objects: dict[str, list[Detection]] = {}
    for each in sorted(detections, key=lambda detection: -detection.score):
        if each.score > threshold and len(objects.get(each.name, [])) < MAX_OBJECTS:
            objects.setdefault(each.name, []).append(each)
    return objects


def relations(a: Detection, b: Detection) -> set[str]:
    """Return where `a` is from `b`: the offset of their centres, less a tenth of both extents on each axis.

    An axis counts if it has more than half of the offset's length; in between both do.
    """
    box_a, box_b = (np.array(each.box).reshape(2, 2) for each in (a, b))
    offset = box_a.mean(0) - box_b.mean(0)
    slack = POSITION_THRESHOLD * (np.abs(box_a[1] - box_a[0]) + np.abs(box_b[1] - box_b[0]))
    rest = np.maximum(np.abs(offset) - slack, 0) * np.sign(offset)
    if np.all(np.abs(rest) < 1e-3):
        return set()
    x, y = rest / np.linalg.norm(offset)
    held = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, holds in held.items() if holds}


def crop(image: Image.Image, detection: Detection) -> Image.Image:
    """Return an object on grey, cut to its box."""
    if detection.mask is not None:
        blank = Image.new("RGB", image.size, BACKGROUND)
        image = Image.composite(image, blank, Image.fromarray(detection.mask))
    return image.crop(detection.box)  # PIL rounds


def overall(correct: Mapping[str, Sequence[bool]]) -> dict[str, float]:
    """Return each task's share of correct images, and `geneval`, the mean of the six: not the share of all images."""
    missing = [task for task in TASKS if not correct.get(task)]
    if missing:
        raise ValueError(f"expected images of GenEval's six tasks, got none of {', '.join(missing)}")
    shares = {task: sum(correct[task]) / len(correct[task]) for task in TASKS}
    return shares | {"geneval": sum(shares.values()) / len(TASKS)}


def _fault(
    image: Image.Image,
    found: Sequence[Detection],
    wanted: Mapping[str, Any],
    groups: Sequence[Sequence[Detection] | None],
    name_colours: NameColours,
) -> str:
    name, count = wanted["class"], wanted["count"]
    if len(found) < count:
        return f"expected {count} {name}, found {len(found)}"
    if "color" in wanted:
        colours = name_colours([crop(image, each) for each in found], name)
        if list(colours).count(wanted["color"]) < count:
            return f"expected {count} {wanted['color']} {name}, found {', '.join(colours)}"
    if "position" in wanted:
        relation, target = wanted["position"]
        others = groups[target]
        if others is None:
            return f"expected {name} {relation} something that is not there"
        if any(relation not in relations(each, other) for each in found for other in others):
            return f"expected {name} {relation} its target, found it elsewhere"
    return ""
