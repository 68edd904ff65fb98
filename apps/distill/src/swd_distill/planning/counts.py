"""Counts of a model's iteration at each size; those of the presets ship, so that a plan takes seconds, not minutes."""

import gzip
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any, Self

from tqdm import tqdm

from swd_distill.config import Config
from swd_distill.planning.pieces import Piece, StageCost
from swd_distill.planning.roofline import Ops, join, repeat
from swd_distill.training.batches import STUDENT, intervals

Size = tuple[int, ...]


@dataclass(frozen=True)
class Counts:
    """An iteration, counted: each size for one sample, the largest for two as well, and with all blocks recomputed.

    Attributes:
        key: What it was counted for: `key_of` a config.
        parameters, facts: As of `Counted`.
        num_blocks: Of the model.
        plain: By size, for one sample, no block being recomputed in backward.
        recomputing: The largest size for one sample, all blocks being recomputed.
        peaks: The largest size for one sample and for two, by the number of recomputed blocks: none, those up to the
            features' (beyond which passes that stop there save nothing more), all; each number of a U-Net's unequal
            stages. Of two, what does not double is held once.
        around: Of one sample, "text", "encode" (at all sizes) and "decode", where the parts are known; `parameters` has
            theirs by the names "text" and "vae".
    """

    key: Mapping[str, Any]
    parameters: Mapping[str, int]
    facts: Mapping[str, int]
    num_blocks: int
    plain: Mapping[Size, StageCost]
    recomputing: StageCost
    peaks: Mapping[int, tuple[StageCost, StageCost]]
    around: Mapping[str, Piece] = field(default_factory=dict)

    @classmethod
    def count(
        cls, config: Config, sizes: Iterable[Size] = (), cond: Mapping[str, tuple[int, ...]] | None = None
    ) -> Self:
        """Count a config at the sizes of its schedule, or at others: seconds for a small model, minutes for a large.

        `cond` has the shapes of a prompt's embeddings, where they are known.
        """
        from swd_distill.planning.cost import Counted  # which imports diffusers; what ships needs none of it
        from swd_models.logs import quiet

        quiet()
        sizes, counted = sorted(set(sizes or config.scales.sizes), key=math.prod), Counted(config, cond)
        blocks = counted.num_blocks
        is_unet = len(counted.roles.teacher.blocks) == 1  # features in the middle alone: stages are unequal
        between = range(1, blocks) if is_unet else [min(config.training.block, blocks - 1)]
        total = len(sizes) + 3 + 2 * len(between)
        with tqdm(total=total, desc="count", unit="pass", leave=False) as bar:

            def at(size: Size, share: int, checkpointed: int) -> StageCost:
                found = counted.at(size, share, checkpointed=checkpointed)
                bar.update()
                return found

            plain = {size: at(size, 1, 0) for size in sizes}
            recomputing = at(sizes[-1], 1, blocks)
            ones = {0: plain[sizes[-1]], blocks: recomputing}
            ones |= {count: at(sizes[-1], 1, count) for count in between}
            peaks = {count: (_bare(one), _bare(at(sizes[-1], 2, count))) for count, one in ones.items()}
        return cls(key_of(config), counted.parameters(), counted.facts, blocks, plain, recomputing, peaks)

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
            "facts": dict(self.facts),
            "num_blocks": self.num_blocks,
            "plain": {_name(size): _cost_to_json(cost) for size, cost in self.plain.items()},
            "recomputing": _cost_to_json(self.recomputing),
            "peaks": {str(count): [_cost_to_json(cost) for cost in each] for count, each in self.peaks.items()},
            "around": {name: _piece_to_json(piece) for name, piece in self.around.items()},
        }

    def recomputed(self, size: Size) -> StageCost:
        """Return the cost at a size with all blocks recomputed: their forwards, as often as at the largest, come to it.

        Those of the largest are counted; how often a block runs does not depend on the size.
        """
        largest, cost = self.plain[max(self.plain, key=math.prod)], self.plain[size]
        if cost is largest:
            return self.recomputing
        pieces = {name: _with_forwards(name, cost, largest, self.recomputing) for name in cost.pieces}
        return replace(cost, pieces=pieces)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Undo `to_json`."""
        plain = {tuple(map(int, name.split("x"))): _cost_from_json(cost) for name, cost in data["plain"].items()}
        peaks = {
            int(count): (_cost_from_json(one), _cost_from_json(two)) for count, (one, two) in data["peaks"].items()
        }
        around = {name: _piece_from_json(piece) for name, piece in data["around"].items()}
        recomputing = _cost_from_json(data["recomputing"])
        return cls(
            data["key"], data["parameters"], data["facts"], data["num_blocks"], plain, recomputing, peaks, around
        )


def _bare(cost: StageCost) -> StageCost:
    """Return a cost without its operations."""
    return replace(cost, pieces={name: replace(piece, work=()) for name, piece in cost.pieces.items()})


def _with_forwards(name: str, cost: StageCost, largest: StageCost, recomputing: StageCost) -> Piece:
    """Return a piece with the forwards that recomputing adds: the teacher's, or the student's and fake model's.

    Their count is that of the largest size, in FLOPs: the first blocks may cost more than the others.
    """
    found, plain, more = cost.pieces[name], largest.pieces[name], recomputing.pieces[name]
    counts = {role: count - plain.passes[role] for role, count in more.passes.items()}
    forwards = {role: "forward" if role == "teacher" else "rollout" for role in counts}
    expected = sum(count * largest.pieces[forwards[role]].flops for role, count in counts.items())
    share = (more.flops - plain.flops) / expected if expected else 0.0
    flops, work = float(found.flops), found.work
    for role, count in counts.items():
        forward = cost.pieces[forwards[role]]
        flops, work = flops + share * count * forward.flops, join(work, repeat(forward.work, share * count))
    return replace(found, flops=round(flops), passes=more.passes, work=work)


def key_of(config: Config) -> dict[str, Any]:
    """Return what decides which operations an iteration has, sizes apart."""
    recipe, training = config.recipe, config.training
    return {
        "model": config.model,
        "rank": training.rank,
        "block": training.block,
        "mmd_features": recipe.mmd_features,
        "gradient_penalty": bool(recipe.gradient_penalty),
        "fake": config.needs_fake,
        "losses": list(intervals(recipe, STUDENT)),
    } | ({} if config.data.text_tokens is None else {"text_tokens": config.data.text_tokens})


def _serves(key: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether counts of one key hold another's: those of more losses hold fewer, a fake model's as it is trained.

    With a GAN the fake model's update has passes for its head.
    """
    rest = [{name: value for name, value in each.items() if name != "losses"} for each in (key, wanted)]
    same_fake = not wanted["fake"] or ("gan" in key["losses"]) == ("gan" in wanted["losses"])
    rest = [each | {"fake": True} for each in rest] if not wanted["fake"] else rest
    return rest[0] == rest[1] and same_fake and set(wanted["losses"]) <= set(key["losses"])


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
