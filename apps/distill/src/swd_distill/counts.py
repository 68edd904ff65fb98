"""Counts of a model's iteration at each size; those of the presets ship, so that a plan takes seconds, not minutes."""

import gzip
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Self

from tqdm import tqdm

from swd_distill.batches import STUDENT, intervals
from swd_distill.config import Config
from swd_distill.cost import Counted, Piece, StageCost
from swd_distill.roofline import Ops

Size = tuple[int, ...]


@dataclass(frozen=True)
class Counts:
    """An iteration, counted: each size for one sample, with no block recomputed in backward and with all.

    Attributes:
        key: What it was counted for: `key_of` a config.
        parameters: As of `Counted.parameters`.
        num_blocks: Of the model.
        plain, checkpointed: By size, for one sample.
        doubled: At the largest size for two samples: without and with; what does not double is held once.
        around: Of one sample, "text", "encode" (at all sizes) and "decode", where the parts are known; `parameters` has
            theirs by the names "text" and "vae".
    """

    key: Mapping[str, Any]
    parameters: Mapping[str, int]
    num_blocks: int
    plain: Mapping[Size, StageCost]
    checkpointed: Mapping[Size, StageCost]
    doubled: tuple[StageCost, StageCost]
    around: Mapping[str, Piece] = field(default_factory=dict)

    @classmethod
    def count(cls, config: Config, sizes: Iterable[Size] = ()) -> Self:
        """Count a config at the sizes of its schedule, or at others: seconds for a small model, minutes for a large."""
        sizes, counted = sorted(set(sizes or config.scales.sizes), key=math.prod), Counted(config)
        blocks = counted.num_blocks
        with tqdm(total=2 * len(sizes) + 2, desc="count", unit="pass", leave=False) as bar:

            def at(size: Size, share: int, checkpointed: int) -> StageCost:
                found = counted.at(size, share, checkpointed=checkpointed)
                bar.update()
                return found

            plain = {size: at(size, 1, 0) for size in sizes}
            checkpointed = {size: at(size, 1, blocks) for size in sizes}
            doubled = at(sizes[-1], 2, 0), at(sizes[-1], 2, blocks)
        return cls(key_of(config), counted.parameters(), blocks, plain, checkpointed, doubled)

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the counts that ship for a config, else count it."""
        return cls.shipped(config) or cls.count(config)

    @classmethod
    def shipped(cls, config: Config) -> Self | None:
        """Return the counts that ship of a config's model and adapters, if they hold its losses and sizes."""
        for path in sorted((files("swd_distill") / "assets" / "counts").iterdir(), key=lambda path: path.name):
            if not path.name.endswith(".json.gz"):
                continue
            data = json.loads(gzip.decompress(path.read_bytes()))
            if _serves(data["key"], key_of(config)):
                found = cls.from_json(data)
                if set(config.scales.sizes) <= found.plain.keys():
                    return found
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON data."""
        return {
            "key": dict(self.key),
            "parameters": dict(self.parameters),
            "num_blocks": self.num_blocks,
            "plain": {_name(size): _cost_to_json(cost) for size, cost in self.plain.items()},
            "checkpointed": {_name(size): _cost_to_json(cost) for size, cost in self.checkpointed.items()},
            "doubled": [_cost_to_json(cost) for cost in self.doubled],
            "around": {name: _piece_to_json(piece) for name, piece in self.around.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Undo `to_json`."""
        plain, checkpointed = (
            {tuple(map(int, name.split("x"))): _cost_from_json(cost) for name, cost in data[which].items()}
            for which in ("plain", "checkpointed")
        )
        first, second = (_cost_from_json(cost) for cost in data["doubled"])
        around = {name: _piece_from_json(piece) for name, piece in data["around"].items()}
        return cls(data["key"], data["parameters"], data["num_blocks"], plain, checkpointed, (first, second), around)


def key_of(config: Config) -> dict[str, Any]:
    """Return what decides which operations an iteration has, sizes apart."""
    recipe, training = config.recipe, config.training
    return {
        "model": config.model,
        "rank": training.rank,
        "block": training.block,
        "mmd_features": recipe.mmd_features,
        "gradient_penalty": bool(recipe.gradient_penalty),
        "losses": list(intervals(recipe, STUDENT)),
    }


def _serves(key: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether counts of one key hold another's: those of more losses hold fewer."""
    rest = [{name: value for name, value in each.items() if name != "losses"} for each in (key, wanted)]
    return rest[0] == rest[1] and set(wanted["losses"]) <= set(key["losses"])


def _name(size: Size) -> str:
    return "x".join(map(str, size))


def _cost_to_json(cost: StageCost) -> dict[str, Any]:
    return {"share": cost.share, "pieces": {name: _piece_to_json(piece) for name, piece in cost.pieces.items()}}


def _cost_from_json(data: Mapping[str, Any]) -> StageCost:
    return StageCost(data["share"], {name: _piece_from_json(piece) for name, piece in data["pieces"].items()})


def _piece_to_json(piece: Piece) -> dict[str, Any]:
    work = [[ops.count, int(ops.half), round(ops.flops), ops.fixed, ops.each] for ops in piece.work]
    return {"flops": piece.flops, "passes": dict(piece.passes), "peak": piece.peak, "work": work}


def _piece_from_json(data: Mapping[str, Any]) -> Piece:
    work = tuple(Ops(count, bool(half), *rest) for count, half, *rest in data["work"])
    return Piece(data["flops"], data["passes"], data["peak"], work)
