"""Where to compute: any accelerator that torch names, and what each of them cannot do."""

import torch

CPU = torch.device("cpu")
_FUSED_ADAMW = {"cpu", "cuda", "xpu"}  # ROCm's devices are called cuda too; on MPS it does not skip


def find_device(name: str = "auto") -> torch.device:
    """Return a device by its name; "auto" is the accelerator that torch finds (CUDA, ROCm, XPU, MPS), else the CPU.

    Raises:
        ValueError: no device has that name, or this machine has none of its kind.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return CPU if found is None else torch.device(found.type, torch.accelerator.current_device_index())
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"expected a device such as cuda, cuda:1, xpu, mps or cpu, got {name!r}") from error
    if device.type == "cpu":
        return CPU
    here = "the CPU alone" if found is None else f"{torch.accelerator.device_count()} x {found.type}"
    if found is None or device.type != found.type or (device.index or 0) >= torch.accelerator.device_count():
        raise ValueError(f"expected a device of this machine, got {name}: torch {torch.__version__} finds {here}")
    return device if device.index is not None else torch.device(device.type, torch.accelerator.current_device_index())


def use_device(device: torch.device) -> None:
    """Make a device the current one of its kind: what names none, as events and streams do, then means it."""
    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index or 0)


def default_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of frozen weights: float32 on the CPU, else bfloat16, or float16 where there is no bfloat16."""
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if _has_bfloat16(device) else torch.float16


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Raise ValueError for a dtype that a device does not compute in."""
    lacks = (dtype == torch.bfloat16 and not _has_bfloat16(device)) or (
        dtype == torch.float64 and not has_float64(device)
    )
    if lacks:
        short = str(dtype).removeprefix("torch.")
        raise ValueError(f"expected a dtype that {device} computes in, got {short}: try float16 or float32")


def has_float64(device: torch.device) -> bool:
    """Tell whether a device knows float64; Apple's GPUs and some of Intel's do not."""
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return device.type != "mps"


def has_fused_adamw(device: torch.device) -> bool:
    """Tell whether torch updates all parameters there in one kernel, which can skip an update by itself."""
    return device.type in _FUSED_ADAMW


def has_pinned_memory(device: torch.device) -> bool:
    """Tell whether a device reads memory of the host by itself, if that is pinned, while it computes."""
    return device.type in {"cuda", "xpu"}


def free_bytes(device: torch.device) -> int:
    """Return the memory of an accelerator that nobody uses; what torch keeps for tensors to come counts too."""
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    part = getattr(torch, device.type)
    return int(part.mem_get_info(device)[0] + part.memory_reserved(device) - part.memory_allocated(device))


def total_bytes(device: torch.device) -> int:
    """Return the memory of an accelerator, whoever holds it."""
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return int(getattr(torch, device.type).mem_get_info(device)[1])


def peak_bytes(device: torch.device) -> int:
    """Return the most bytes that tensors have held on an accelerator at a time; on MPS, what they hold now."""
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return int(getattr(torch, device.type).max_memory_allocated(device))


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":  # emulated before Ampere, and slower than float32
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return True
