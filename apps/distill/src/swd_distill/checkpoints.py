"""Checkpoints: a folder that is whole or absent; the newest whole one is where a run goes on."""

import json
import os
import shutil
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from swd_distill.trainer import Trainer
from swd_models.lora import adapter_state, load_adapter_state

KEEP = 2


def save_checkpoint(folder: Path, trainer: Trainer, step: int) -> Path:
    """Write the state after `step` iterations, then drop all but the last two."""
    final = folder / f"step-{step:06d}"
    temporary = folder / f"tmp-{step:06d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    optimizers = {"student": trainer.student.optimizer.state_dict()}
    save_file(_contiguous(adapter_state(trainer.roles.student)), temporary / "student.safetensors")
    if trainer.roles.fake is not None:
        save_file(_contiguous(adapter_state(trainer.roles.fake)), temporary / "fake.safetensors")
        optimizers["fake"] = trainer.fake.optimizer.state_dict()
    if trainer.head is not None:
        save_file(_contiguous(trainer.head.state_dict()), temporary / "head.safetensors")
    torch.save(optimizers, temporary / "optimizers.pt")
    (temporary / "state.json").write_text(json.dumps({"step": step}) + "\n")
    for file in temporary.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    shutil.rmtree(final, ignore_errors=True)
    temporary.replace(final)
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old)
    return final


def load_checkpoint(folder: Path, trainer: Trainer) -> int:
    """Load the newest checkpoint of the folder into the trainer; return its step, 0 without one."""
    newest = max(folder.glob("step-*"), default=None)
    if newest is None:
        return 0
    try:
        return _load(newest, trainer)
    except (SafetensorError, RuntimeError, EOFError, UnpicklingError, OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"expected a whole checkpoint, got {newest}: delete it to go on from the one before ({error})"
        ) from error


def _load(folder: Path, trainer: Trainer) -> int:
    optimizers = torch.load(folder / "optimizers.pt", weights_only=True, map_location="cpu")
    load_adapter_state(trainer.roles.student, load_file(folder / "student.safetensors"))
    trainer.student.optimizer.load_state_dict(optimizers["student"])
    if trainer.roles.fake is not None:
        load_adapter_state(trainer.roles.fake, load_file(folder / "fake.safetensors"))
        trainer.fake.optimizer.load_state_dict(optimizers["fake"])
    if trainer.head is not None:
        trainer.head.load_state_dict(load_file(folder / "head.safetensors"))
    return int(json.loads((folder / "state.json").read_text())["step"])


def _contiguous(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}
