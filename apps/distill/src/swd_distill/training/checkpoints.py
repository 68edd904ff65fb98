"""Checkpoints: a folder that is whole or absent; a run goes on from the newest; `latest` names it for others."""

import re
import secrets
import shutil
import sys
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from swd_data import checksum, make_folder, read_object, whole_folder, write_json, write_text
from swd_data.errors import reason_of
from swd_data.folders import inside
from swd_distill.devices import in_all, processes
from swd_distill.training.trainer import Trainer
from swd_losses import RunningBalance
from swd_models.adapters import adapter_state, load_adapter_state

STATE, LATEST = "state.json", "latest"
_STEP = re.compile(r"step-\d{6,12}")


def save_checkpoint(folder: Path, trainer: Trainer, step: int) -> Path:
    """Write the state after `step` iterations, name it `latest`, then drop all but the last few.

    Raises:
        OSError: it cannot be written; those before are untouched.
    """
    make_folder(folder)
    final = folder / f"step-{step:06d}"
    if final.exists() and not (final / STATE).is_file():  # damaged, or a stray file: a run has passed it by
        final.replace(folder / f"damaged-{final.name}-{secrets.token_hex(4)}")
    with whole_folder(final, STATE) as temporary:
        _write(temporary, trainer, step)
    write_text(folder / LATEST, f"{final.name}\n")
    done = [path for path in _steps(folder) if _step_of(path) <= step]  # later ones are damaged, and were passed by
    for old in done[: -trainer.config.training.keep]:
        shutil.rmtree(old)
    return final


def _write(folder: Path, trainer: Trainer, step: int) -> None:
    for name, tensors in _tensors(trainer).items():
        save_file(_contiguous(tensors), folder / f"{name}.safetensors")
    optimizers = {name: network.optimizer.state_dict() for name, network in trainer.networks.items()}
    torch.save(optimizers, folder / "optimizers.pt")
    sums = {file.name: checksum(file) for file in sorted(folder.iterdir())}
    skips = {name: [network.skips_in_a_row, network.skips] for name, network in trainer.networks.items()}
    scalers = {name: network.scaler.state_dict() for name, network in trainer.networks.items()}
    write_json(folder / STATE, {"step": step, "skips": skips, "scalers": scalers, "sha256": sums})


def load_checkpoint(folder: Path, trainer: Trainer) -> int:
    """Load the newest whole checkpoint of the folder into the trainer; return its step, 0 without one.

    A line on stderr names each newer one that is damaged.

    Raises:
        ValueError: none is whole, or the one that is has other adapters.
    """
    state = processes()
    chosen = [in_all(lambda: newest_whole(folder) if state.is_main_process else None)]
    if state.num_processes > 1:
        broadcast_object_list(chosen)  # one looks for all: they go on from the same one
    if chosen[0] is None:
        return 0
    try:
        return _load(folder / chosen[0], trainer)
    except (KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"expected a checkpoint of these networks, got {folder / chosen[0]}: {error}") from error


def newest_whole(folder: Path) -> str | None:
    """Return the name of the newest checkpoint whose files are what was written; None where there is none at all.

    Raises:
        ValueError: there are some, and all are damaged.
    """
    reasons = []
    for path in reversed(_steps(folder)):
        try:
            _check(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reasons.append(f"{path} ({reason_of(error)})")
            continue
        for reason in reasons:
            tqdm.write(f"expected a whole checkpoint, got {reason}: going on from {path.name}", file=sys.stderr)
        return path.name
    if reasons:
        raise ValueError(f"expected a whole checkpoint, got {', '.join(reasons)}: delete {folder} to begin again")
    return None


def _steps(folder: Path) -> list[Path]:
    """Return the checkpoints in the order of their steps."""
    found = {path: _STEP.fullmatch(path.name) for path in folder.glob("step-*") if path.is_dir()}
    return sorted((path for path, match in found.items() if match), key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _check(folder: Path) -> None:
    state = read_object(folder / STATE, "the state of a checkpoint")
    if folder.name != f"step-{state['step']:06d}":
        raise ValueError(f"{STATE} says step {state['step']}")
    for name, expected in state["sha256"].items():
        if checksum(folder / inside(name, STATE)) != expected:
            raise ValueError(f"{name} has changed since it was written")


def _load(folder: Path, trainer: Trainer) -> int:
    state = read_object(folder / STATE, "the state of a checkpoint")
    optimizers = torch.load(folder / "optimizers.pt", weights_only=True, map_location="cpu")
    for name, network in trainer.networks.items():
        fused = [group.get("fused") for group in network.optimizer.param_groups]  # of this device, not of that before
        network.optimizer.load_state_dict(optimizers[name])
        for group, each in zip(network.optimizer.param_groups, fused, strict=True):
            group |= {} if each is None else {"fused": each}
        network.skips_in_a_row, network.skips = state["skips"][name]
        if state["scalers"][name]:  # of a device without float16 there is none
            network.scaler.load_state_dict(state["scalers"][name])
    load_adapter_state(trainer.roles.student, load_file(folder / "student.safetensors"))
    if trainer.student.average:
        with trainer.student.averaged():
            load_adapter_state(trainer.roles.student, load_file(folder / "average.safetensors"))
    if trainer.roles.fake is not None:
        load_adapter_state(trainer.roles.fake, load_file(folder / "fake.safetensors"))
    if trainer.head is not None:
        trainer.head.load_state_dict(load_file(folder / "head.safetensors"))
    if isinstance(trainer.balance, RunningBalance):
        trainer.balance.load_state_dict(load_file(folder / "balance.safetensors", device=str(trainer.device)))
    return int(state["step"])


def _tensors(trainer: Trainer) -> dict[str, dict[str, torch.Tensor]]:
    """Return what is trained, by the names of its files."""
    tensors = {"student": adapter_state(trainer.roles.student)}
    if trainer.student.average:
        with trainer.student.averaged():
            tensors["average"] = adapter_state(trainer.roles.student)
    if trainer.roles.fake is not None:
        tensors["fake"] = adapter_state(trainer.roles.fake)
    if trainer.head is not None:
        tensors["head"] = trainer.head.state_dict()
    if isinstance(trainer.balance, RunningBalance):
        tensors["balance"] = trainer.balance.state_dict()
    return tensors


def _contiguous(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}
