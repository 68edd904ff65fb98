"""Teacher, student and fake model as three views of one frozen base."""

import copy
from dataclasses import dataclass
from itertools import chain

import torch
import torch.distributed as dist
from peft import LoraConfig
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from swd_models.adapters import adapter_parameters, add_adapters
from swd_models.compiling import compile_layers
from swd_models.denoiser import Denoiser
from swd_models.lora.loading import lora_config

VERSIONS = 2 * 2 * 2
"""Of a compiled block: with adapters or without, with gradients or without, and with or without one for its input."""


@dataclass(frozen=True)
class Roles:
    """Three denoisers that share every frozen tensor; training with MMD alone has no fake."""

    teacher: Denoiser
    student: Denoiser
    fake: Denoiser | None


def share_base(denoiser: Denoiser, lora: LoraConfig | int, *, fake: bool = True, seed: int = 0) -> Roles:
    """Freeze `denoiser` as the teacher and build student and fake over its tensors, each with adapters of its own.

    `lora` is a rank, of the paper's adapters for the family (`lora_config`), or any config of PEFT.

    No adapter is ever switched at run time: gradient checkpointing recomputes under the adapters of the forward
    (switching on one module gives gradients 64-131 % wrong, without an error), and compile and DDP see plain modules.
    """
    if len(denoiser.experts) > 1:
        raise ValueError("expected one denoiser, got two experts: load each with `expert=`, one of `experts_of(model)`")
    teacher = denoiser.requires_grad_(False)
    lora = lora_config(denoiser, lora) if isinstance(lora, int) else lora
    student = _adapted_view(teacher, lora, seed)
    return Roles(teacher, student, _adapted_view(teacher, lora, seed + 1) if fake else None)


def compile_blocks(roles: Roles, backend: str) -> int:
    """Compile each block of each role by itself, in place; return the most compilations that there will be.

    Sizes of a schedule and batches (guidance doubles them) share a version: with static shapes they would multiply with
    the ways to run a block.
    """
    layers = [layer for role in (roles.teacher, roles.student, roles.fake) if role for layer in role.layers]
    return compile_layers(layers, backend, VERSIONS, dynamic=True)


def shard_base(roles: Roles, device: torch.device) -> None:
    """Split the blocks of the frozen base over the processes (FSDP2), each gathered when it runs; adapters stay whole.

    The base may still be on the CPU: block by block, a process takes its part to the device, and last what is no block.

    FSDP2 owns the tensors that it shards, one set for each view: a process holds 1/N of the blocks three times instead
    of all of them once, which pays from four processes on (two views, with MMD alone: from three).

    Raises:
        ValueError: one process.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        raise ValueError("expected several processes to split the base over, got one: leave --training.shard-base out")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    present = [role for role in (roles.teacher, roles.student, roles.fake) if role is not None]
    # All views of a block at once: they share its tensors, which are whole on the device until the last is split.
    for layers in zip(*(role.layers for role in present), strict=True):
        for layer in layers:
            fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=set(adapter_parameters(layer)))
    moved: dict[int, tuple[Tensor, Tensor]] = {}
    for role in present:
        _move_whole(role, device, moved)


def _move_whole(role: Denoiser, device: torch.device, moved: dict[int, tuple[Tensor, Tensor]]) -> None:
    """Move what is not split: parameters in place, buffers once for all roles, which share both."""
    for parameter in role.parameters():
        if not isinstance(parameter, DTensor):
            parameter.data = parameter.data.to(device)
    for module in role.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                _, module._buffers[name] = moved.setdefault(id(buffer), (buffer, buffer.to(device)))


def _adapted_view(teacher: Denoiser, lora: LoraConfig, seed: int) -> Denoiser:
    """Copy the module objects, keep every parameter and buffer, and add adapters."""
    tensors: chain[Tensor] = chain(teacher.parameters(), teacher.buffers())
    copied = copy.deepcopy(teacher, {id(tensor): tensor for tensor in tensors})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        add_adapters(copied, lora)
    return copied
