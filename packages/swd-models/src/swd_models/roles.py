"""Teacher, student and fake model as three views of one frozen base."""

import copy
from dataclasses import dataclass
from itertools import chain

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from swd_models.denoiser import Denoiser
from swd_models.lora import lora_config


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
    teacher = denoiser.requires_grad_(False)
    lora = lora_config(denoiser, lora) if isinstance(lora, int) else lora
    student = _adapted_view(teacher, lora, seed)
    return Roles(teacher, student, _adapted_view(teacher, lora, seed + 1) if fake else None)


def adapter_parameters(denoiser: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters: those of the adapters."""
    return [parameter for parameter in denoiser.parameters() if parameter.requires_grad]


def _adapted_view(teacher: Denoiser, lora: LoraConfig, seed: int) -> Denoiser:
    """Copy the module objects, keep every parameter and buffer, and add adapters."""
    tensors: chain[Tensor] = chain(teacher.parameters(), teacher.buffers())
    copied = copy.deepcopy(teacher, {id(tensor): tensor for tensor in tensors})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(lora, copied.backbone)
    for parameter in adapter_parameters(copied):
        if parameter.itemsize < 4:  # adapters train in float32 over a half-precision base
            parameter.data = parameter.data.float()
    return copied
