"""How many blocks a run recomputes in backward, so that it fits its device."""

from collections.abc import Mapping

import torch

from swd_distill.config import Config
from swd_distill.devices import from_main, processes
from swd_models import Roles
from swd_schedules.devices import free_bytes

Shapes = Mapping[str, tuple[int, ...]]


def recompute_blocks(config: Config, roles: Roles, share: int, cond: Shapes | None = None) -> None:
    """Let roles recompute as many blocks as a config asks for, or (auto) as few as fit the device.

    `cond` has the shapes of a prompt's embeddings, for a model that is counted.

    Raises:
        ValueError: a share of a batch that does not fit the device even so.
    """
    asked, blocks = config.training.checkpointing, len(roles.teacher.layers)
    device = next(roles.student.parameters()).device
    if asked == "auto" and not config.chooses_blocks:
        count = blocks
    elif asked == "auto":
        count = 0 if device.type == "cpu" else _of_main(config, share, device, cond)
    else:
        count = {"all": blocks, "none": 0}[asked] if isinstance(asked, str) else min(asked, blocks)
    for role in (roles.teacher, roles.student, roles.fake):
        if role is not None:
            role.checkpoint(count)


def _of_main(config: Config, share: int, device: torch.device, cond: Shapes | None) -> int:
    """Return what the main process finds, which counts for all: minutes of its CPU where no counts ship."""
    found: list[int | str] = [0]
    if processes().is_main_process:
        try:
            found = [_fewest(config, share, device, cond)]
        except ValueError as error:
            found = [str(error)]
    (answer,) = from_main(found)
    if isinstance(answer, str):
        raise ValueError(answer)
    return int(answer)


def _fewest(config: Config, share: int, device: torch.device, cond: Shapes | None = None) -> int:
    from swd_distill.planning.counts import Counts
    from swd_distill.planning.estimate import HEADROOM, Estimate, advice, fewest
    from swd_distill.planning.roofline import GIB

    # Memory is that of the largest size: where no counts ship, no other is counted.
    counts = Counts.shipped(config) or Counts.count(config, [config.scales.sizes[-1]], cond)
    found = Estimate(config, counts, share)
    held = sum(found.memory()[name] for name in ("base", "adapters and head"))  # which are there already
    gib = HEADROOM * free_bytes(device) / GIB + held
    chosen, num = fewest(found, gib), processes().num_processes
    if chosen is None:
        raise ValueError(f"expected a share that fits {gib:.1f} GiB, got {share} samples: {advice(found, gib, num)}")
    blocks = f"{chosen.checkpointed} of {counts.num_blocks} blocks"
    print(f"{blocks} are recomputed in backward: {chosen.total():.1f} GiB of {gib:.1f}")
    return chosen.checkpointed
