"""A stage of a teacher's training: resumable, to the weights of an unbroken one."""

import copy
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.provenance import machine
from benchmarks.teacher.parts import EMBEDDED, Architecture

Look = Callable[[int, nn.ModuleDict], dict[str, float]]


@dataclass(frozen=True)
class Settings:
    """By default what the committed weights were trained with.

    Since then latents are held in half precision, and one compiled version serves all sizes.
    """

    num_scenes: int = 40_000
    vae_steps: int = 2_000
    steps: int = 20_000
    early: float = 0.35  # the share of the steps, at the start, with even sizes
    batch: int = 32
    vae_batch: int = 16
    lr: float = 1e-3
    decay: float = 0.25  # the share of the steps, at the end, in which the learning rate falls to zero
    warmup: int = 300
    drop_caption: float = 0.1
    ema: float = 0.999
    save_every: int = 250
    look_every: int = 1_000  # steps between sample grids
    seed: int = 0
    architecture: Architecture = EMBEDDED
    latent_sizes: tuple[int, ...] = (16, 12, 10, 8)
    early_shares: tuple[float, ...] = (0.4, 0.2, 0.2, 0.2)
    """Of the steps at each size: even at first, for layouts are learned as well and faster at small ones."""
    late_shares: tuple[float, ...] = (0.7, 0.1, 0.1, 0.1)
    """Then mostly at the top. A low scale is no new world for the teacher (appendix B)."""
    vae_sizes: tuple[int, ...] = (64, 64, 64, 48, 40, 32)
    """Pixels: half of the batches are small pictures, as the low scales of the schedule are."""


def run_stage(
    name: str,
    folder: Path,
    modules: nn.ModuleDict,
    loss_at: Callable[[int, float], Tensor],
    num_steps: int,
    settings: Settings,
    look: Look | None = None,
    *,
    batch: int,
    seconds: float | None = None,
) -> nn.ModuleDict:
    """Minimise `loss_at(step, progress)` with AdamW, warm-up, a plateau and linear decay; return the averaged weights.

    `progress` goes from 0 to 1: with the steps or, where it is ahead, with the `seconds` that this call may take.
    `look(step, average)` is called now and then; what it returns goes into the log. `NAME-plateau.pt` is the last
    checkpoint before the decay: renamed to `NAME.pt` it lets a longer run go on from there. On a CPU and without
    `seconds` a resumed stage ends in the weights of an unbroken one.

    Raises:
        ValueError: no step is asked for.
    """
    if num_steps < 1:
        raise ValueError(f"expected 1 step or more of the stage {name}, got {num_steps}")
    average, device = copy.deepcopy(modules).requires_grad_(False), next(modules.parameters()).device
    optimizer = torch.optim.AdamW(
        modules.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    checkpoint = folder / f"{name}.pt"
    state = _restore(checkpoint, device, modules=modules, average=average, optimizer=optimizer)
    step, before, clocked = state.get("step", 0), state.get("seconds", 0.0), state.get("clocked", 0.0)
    seen, began, recent = state.get("samples", step * batch), time.monotonic(), []

    def clock() -> float:
        """Return the seconds of all calls that were given so many: a CPU's hours are no part of a GPU's minutes."""
        return clocked + (time.monotonic() - began if seconds is not None else 0.0)

    def progress_at(step: int) -> float:
        if seconds is None:
            return step / num_steps
        return max(step / num_steps, clock() / (clocked + seconds) if seconds else 1.0)  # 0: what is there is enough

    progress = progress_at(step)
    with tqdm(desc=name, initial=step, total=num_steps, mininterval=10) as bar:
        while progress < 1:
            ramp = min((step + 1) / settings.warmup, (1 - progress) / settings.decay, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * ramp
            loss = loss_at(step, progress)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
            optimizer.step()
            decay = min(settings.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(modules.parameters()), 1 - decay)
            recent.append(loss.detach())
            step, seen = step + 1, seen + batch
            bar.update()
            on_plateau = progress <= 1 - settings.decay
            progress = progress_at(step)
            if step % settings.save_every == 0 or progress >= 1:
                line = {"stage": name, "step": step, "loss": float(torch.stack(recent).mean())}
                line |= {"seconds": before + time.monotonic() - began, "samples": seen, "machine": machine(device)}
                recent = []
                state = {"modules": modules.state_dict(), "average": average.state_dict(), "step": step}
                state |= {"optimizer": optimizer.state_dict(), "clocked": clock()}
                state |= {name: line[name] for name in ("seconds", "samples")}
                torch.save(state, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").replace(checkpoint)
                if on_plateau:
                    shutil.copyfile(checkpoint, folder / f"{name}-plateau.pt")
                if look is not None and (step % settings.look_every == 0 or progress >= 1):
                    line |= look(step, average)
                with (folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps(line) + "\n")
    return average.eval()


def _restore(checkpoint: Path, device: torch.device, **parts: nn.Module | torch.optim.Optimizer) -> dict[str, Any]:
    """Load parts from a checkpoint, if there is one; return all that it has."""
    if not checkpoint.exists():
        return {}
    state: dict[str, Any] = torch.load(checkpoint, device, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state
