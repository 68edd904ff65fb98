"""What configs alone tell of a family: sizes, blocks, experts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
PATCH = 2
"""Cells a side that FLUX.1, and those who pack as it does, make one token of."""
MAX_TOKENS = 512
"""Text tokens of a prompt beyond which diffusers encodes none."""
EXPERTS = ("high-noise", "low-noise")


@dataclass(frozen=True)
class Expert:
    """One denoiser of a model: most have one, without a name, for all noise levels.

    Attributes:
        name: "high-noise" or "low-noise": of its run, and of its LoRA's folder.
        subfolder: Where diffusers keeps it in a pipeline; "": where the family has its only one.
        levels: The noise levels that it knows, from the first to below the second, or to 1.
    """

    name: str = ""
    subfolder: str = ""
    levels: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Facts:
    """What is known of a family before its classes are imported.

    Attributes:
        module: Its module, in `families`.
        check_size: Raises ValueError for a latent size that a config does not take.
        blocks: The blocks of a config whose features can be asked for.
        subfolder: Where diffusers keeps the denoiser in a pipeline.
        takes_tokens: Whether a language model reads the prompt, whose number of tokens can be chosen; CLIP's cannot.
    """

    module: str
    check_size: Callable[[Config, Sequence[int]], None]
    blocks: Callable[[Config], range]
    subfolder: str = "transformer"
    takes_tokens: bool = True


def experts_in(index: Mapping[str, Any]) -> tuple[Expert, ...]:
    """Return the experts that a pipeline's index names, the noisiest first.

    Raises:
        ValueError: a boundary between them that is no share.
    """
    boundary = index.get("boundary_ratio")
    if boundary is None:
        return (Expert(),)
    if not isinstance(boundary, float) or not 0 < boundary < 1:
        raise ValueError(f"expected a boundary_ratio above 0 and below 1 in the pipeline's index, got {boundary!r:.40}")
    return (
        Expert(EXPERTS[0], "transformer", (boundary, 1.0)),
        Expert(EXPERTS[1], "transformer_2", (0.0, boundary)),
    )


def check_tokens(num_tokens: int, any_length: bool) -> None:
    """Raise ValueError for text of a length that diffusers does not encode, or a model whose texts have one length."""
    if not any_length:
        raise ValueError(
            f"expected no number of text tokens for a model that has CLIP alone, whose length is fixed, got "
            f"{num_tokens}: leave it out"
        )
    if not 1 <= num_tokens <= MAX_TOKENS:
        raise ValueError(f"expected 1 to {MAX_TOKENS} text tokens, got {num_tokens}: give fewer")


def _check_kind(size: Sequence[int], *, videos: bool = False) -> None:
    """Of images and videos schedules are not the other's."""
    if len(size) != 2 + videos:
        kind, axes = ("videos", "frames, height and width") if videos else ("images", "height and width")
        raise ValueError(
            f"expected latent {axes} for a model of {kind}, got {'x'.join(map(str, size))}; take a preset or schedule "
            f"of {kind}, or another model"
        )


def _check_sd3(config: Config, size: Sequence[int]) -> None:
    """Patches would silently truncate other sizes; positions do not reach larger ones."""
    _check_kind(size)
    patch, reach = config["patch_size"], config["pos_embed_max_size"]
    if any(side % patch or side // patch > reach for side in size):
        raise ValueError(
            f"expected latent height and width divisible by {patch} and at most {patch * reach}, got "
            f"{'x'.join(map(str, size))}; change the sizes of the schedule"
        )


def _check_packed(config: Config, size: Sequence[int]) -> None:
    """Packing cannot divide other sizes."""
    _check_divisible(size, PATCH)


def _check_unet(config: Config, size: Sequence[int]) -> None:
    """A U-Net halves a size as often as it has levels, but one."""
    _check_divisible(size, 2 ** (len(config["block_out_channels"]) - 1))


def _check_divisible(size: Sequence[int], divisor: int) -> None:
    _check_kind(size)
    if any(side % divisor for side in size):
        raise ValueError(
            f"expected latent height and width divisible by {divisor}, got {'x'.join(map(str, size))}; change the "
            "sizes of the schedule"
        )


def _check_wan(config: Config, size: Sequence[int]) -> None:
    """Patches would silently truncate other sizes; positions do not reach larger ones."""
    _check_kind(size, videos=True)
    patch, reach = config["patch_size"], config["rope_max_seq_len"]
    if not all(side % p == 0 and side // p <= reach for side, p in zip(size, patch, strict=True)):
        raise ValueError(
            f"expected latent frames, height and width divisible by {'x'.join(map(str, patch))} and at most {reach} "
            f"patches, got {'x'.join(map(str, size))}; change the sizes of the schedule"
        )


def _layers(config: Config) -> range:
    return range(int(config["num_layers"]))


def _double_and_single(config: Config) -> range:
    return range(int(config["num_layers"]) + int(config["num_single_layers"]))


def _middle(config: Config) -> range:
    """The middle of a U-Net, counted as a stage."""
    middle = len(config["down_block_types"])
    return range(middle, middle + 1)


def _after_refiners(config: Config) -> range:
    """Those that have image and text."""
    refining = 2 * int(config["n_refiner_layers"])
    return range(refining, refining + int(config["n_layers"]))


SD3 = Facts("sd3", _check_sd3, _layers)
FLUX = Facts("flux", _check_packed, _double_and_single)
WAN = Facts("wan", _check_wan, _layers)
SDXL = Facts("sdxl", _check_unet, _middle, subfolder="unet", takes_tokens=False)
FLUX2 = Facts("flux2", _check_packed, _double_and_single)
QWEN = Facts("qwen", _check_packed, _layers)
ZIMAGE = Facts("zimage", _check_packed, _after_refiners)
FACTS = {
    "StableDiffusion3Pipeline": SD3,
    "FluxPipeline": FLUX,
    "WanPipeline": WAN,
    "StableDiffusionXLPipeline": SDXL,
    "Flux2KleinPipeline": FLUX2,
    "QwenImagePipeline": QWEN,
    "ZImagePipeline": ZIMAGE,
}
"""By the pipeline's class, which `model_index.json` names."""
