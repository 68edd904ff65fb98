"""Which two images are shown together and on which side: the key of a study, which raters never see."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from swd_data import read_object
from swd_eval.study.sources import Item

_MEDIA = re.compile(r"[0-9a-f]{16}\.(png|mp4|webm)")
PUBLIC, KEY, RATERS, VOTES = "public", "key.json", "raters.txt", "votes.sqlite"


@dataclass(frozen=True)
class Pair:
    """Two images of one prompt: `runs` are the numbers of the runs shown as image 1 and image 2."""

    id: str
    prompt: str
    item: str
    runs: tuple[int, int]
    media: tuple[str, str]


@dataclass(frozen=True)
class Key:
    """All that the analysis knows and a rater must not."""

    study: str
    kind: str
    seed: int
    runs: tuple[str, ...]
    pairs: tuple[Pair, ...]

    def to_json(self) -> str:
        """Return the text of key.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "Key":
        """Read the key of a study's folder."""
        path = folder / KEY
        if not path.is_file():
            raise ValueError(f"expected a study, got {folder} without {KEY}: make one with `swd-eval study build`")
        found = read_object(path, "the key of a study")
        try:
            pairs = tuple(_pair(row, len(found["runs"])) for row in _list(found["pairs"]))
            runs = tuple(_text(run) for run in _list(found["runs"]))
            return cls(_text(found["study"]), _text(found["kind"]), int(found["seed"]), runs, pairs)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"expected the key of a study in {path}, got something else: {error!r}") from error


def _pair(row: dict[str, Any], num_runs: int) -> Pair:
    """Read a pair; names of media are ours, for what they name is served."""
    first, second = row["runs"]
    media = tuple(_text(name) for name in row["media"])
    if {type(first), type(second)} != {int} or not 0 <= min(first, second) < max(first, second) < num_runs:
        raise ValueError(f"runs {first!r:.40} and {second!r:.40}")
    if len(media) != 2 or not all(_MEDIA.fullmatch(name) for name in media):
        raise ValueError(f"media {media!r:.80}")
    return Pair(_text(row["id"]), _text(row["prompt"]), _text(row["item"]), (first, second), (media[0], media[1]))


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.40}, which is no list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40}, which is no text")
    return value


def draw_items(items: Sequence[Item], seed: int, num_prompts: int, per_prompt: int) -> list[Item]:
    """Return at most `per_prompt` items of at most `num_prompts` prompts, which the seed draws."""
    grouped: dict[str, list[Item]] = {}
    for item in items:
        grouped.setdefault(item.prompt, []).append(item)
    prompts = list(grouped)
    if len(prompts) > num_prompts:
        chosen = set(random.Random(f"prompts {seed}").sample(prompts, num_prompts))
        prompts = [prompt for prompt in prompts if prompt in chosen]
    return [item for prompt in prompts for item in islice(grouped[prompt], per_prompt)]


def draw_pairs(items: Sequence[Item], seed: int, suffix: str) -> list[Pair]:
    """Pair the first run with each other one, in random order, on each side equally often.

    Each pair has names of its own: an image of the first run under one name in two pairs would give it away.
    """
    rng = random.Random(f"pairs {seed}")
    pairs = []
    for other in range(1, len(items[0].files)):
        sides = [(0, other) if index % 2 else (other, 0) for index in range(len(items))]
        rng.shuffle(sides)
        for item, runs in zip(items, sides, strict=True):
            names = (f"{rng.randbytes(8).hex()}{suffix}", f"{rng.randbytes(8).hex()}{suffix}")
            pairs.append(Pair(rng.randbytes(6).hex(), item.prompt, item.name, runs, names))
    rng.shuffle(pairs)
    return pairs
