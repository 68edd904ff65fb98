"""How many blocks a run recomputes in backward, so that it fits its device."""

import torch

from swd_distill.config import Config
from swd_distill.devices import processes
from swd_models import Roles
from swd_schedules.devices import free_bytes

HEADROOM = 0.95
"""Of the free memory: the rest is for what libraries take for themselves, and for gaps."""


def recompute_blocks(config: Config, roles: Roles, share: int) -> None:
    """Let roles recompute as many blocks as a config asks for, or (auto) as few as fit the device.

    Raises:
        ValueError: a share of a batch that does not fit the device even so.
    """
    asked, blocks = config.training.checkpointing, len(roles.teacher.layers)
    device = next(roles.student.parameters()).device
    if asked == "auto" and config.training.shard_base:
        count = blocks  # a process holds parts of the base, which no count knows
    elif asked == "auto":
        count = 0 if device.type == "cpu" else _fewest(config, share, device)
    else:
        count = {"all": blocks, "none": 0}[asked] if isinstance(asked, str) else min(asked, blocks)
    for role in (roles.teacher, roles.student, roles.fake):
        if role is not None:
            role.checkpoint(count)


def _fewest(config: Config, share: int, device: torch.device) -> int:
    from swd_distill.counts import Counts
    from swd_distill.estimate import Estimate, advice, fewest
    from swd_distill.roofline import GIB

    # Memory is that of the largest size: where no counts ship, no other is counted.
    found = Estimate(config, Counts.shipped(config) or Counts.count(config, [config.scales.sizes[-1]]), share)
    held = sum(found.memory()[name] for name in ("base", "adapters and head"))  # which are there already
    gib = HEADROOM * free_bytes(device) / GIB + held
    chosen, num = fewest(found, gib), processes().num_processes
    if chosen is None:
        raise ValueError(f"expected a share that fits {gib:.1f} GiB, got {share} samples: {advice(found, gib, num)}")
    if processes().is_main_process:
        blocks = f"{chosen.checkpointed} of {found.counts.num_blocks} blocks"
        print(f"{blocks} are recomputed in backward: {chosen.total():.1f} GiB of {gib:.1f}")
    return chosen.checkpointed
