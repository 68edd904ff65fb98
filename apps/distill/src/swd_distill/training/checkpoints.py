"""Checkpoints: a folder that is whole or absent; a run goes on from the newest; `latest` names it for others."""

import json
import os
import shutil
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from swd_data import checksum, write_text
from swd_distill.training.trainer import Trainer
from swd_models.adapters import adapter_state, load_adapter_state

STATE, LATEST = "state.json", "latest"
_DAMAGE = (SafetensorError, RuntimeError, EOFError, UnpicklingError, OSError, json.JSONDecodeError, KeyError, TypeError)


def save_checkpoint(folder: Path, trainer: Trainer, step: int) -> Path:
    """Write the state after `step` iterations, name it `latest`, then drop all but the last few.

    Raises:
        OSError: it cannot be written; those before are untouched.
    """
    final = folder / f"step-{step:06d}"
    temporary = folder / f"tmp-{step:06d}"
    for leftover in folder.glob("tmp-*"):
        shutil.rmtree(leftover)
    temporary.mkdir(parents=True)
    try:
        _write(temporary, trainer, step)
    except (SafetensorError, RuntimeError) as error:
        raise OSError(f"expected to write a checkpoint to {folder}, got {error}: is the disk full?") from error
    shutil.rmtree(final, ignore_errors=True)
    temporary.replace(final)
    write_text(folder / LATEST, f"{final.name}\n")
    for path in (folder / LATEST, folder):
        _flush(path)
    for old in sorted(folder.glob("step-*"))[: -trainer.config.training.keep]:
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
    state = {"step": step, "skips": skips, "scalers": scalers, "sha256": sums}
    (folder / STATE).write_text(json.dumps(state, indent=1) + "\n")
    for path in (*folder.iterdir(), folder):
        _flush(path)


def load_checkpoint(folder: Path, trainer: Trainer) -> int:
    """Load the newest checkpoint of the folder into the trainer; return its step, 0 without one.

    Raises:
        ValueError: a file that is not what was written, or of other adapters.
    """
    newest = max(folder.glob("step-*"), default=None)
    if newest is None:
        return 0
    try:
        return _load(newest, trainer)
    except _DAMAGE as error:
        raise ValueError(
            f"expected a whole checkpoint, got {newest}: delete it to go on from the one before ({error})"
        ) from error


def _load(folder: Path, trainer: Trainer) -> int:
    state = json.loads((folder / STATE).read_text())
    if folder.name != f"step-{state['step']:06d}":
        raise OSError(f"{STATE} says step {state['step']}")
    for name, expected in state["sha256"].items():
        if checksum(folder / name) != expected:
            raise OSError(f"{name} has changed since it was written")
    optimizers = torch.load(folder / "optimizers.pt", weights_only=True, map_location="cpu")
    for name, network in trainer.networks.items():
        network.optimizer.load_state_dict(optimizers[name])
        network.skips_in_a_row, network.skips = state["skips"][name]
        network.scaler.load_state_dict(state["scalers"][name])
    load_adapter_state(trainer.roles.student, load_file(folder / "student.safetensors"))
    if trainer.student.average:
        with trainer.student.averaged():
            load_adapter_state(trainer.roles.student, load_file(folder / "average.safetensors"))
    if trainer.roles.fake is not None:
        load_adapter_state(trainer.roles.fake, load_file(folder / "fake.safetensors"))
    if trainer.head is not None:
        trainer.head.load_state_dict(load_file(folder / "head.safetensors"))
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
    return tensors


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _contiguous(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}
