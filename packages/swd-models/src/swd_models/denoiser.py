"""What every family's denoiser is: a backbone of diffusers that predicts x0, with its conventions inside."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swd_models.known.facts import Expert
from swd_models.norms import fuse_norms
from swd_models.prediction import Prediction
from swd_schedules import FlowMatching, VariancePreserving


class Denoiser(nn.Module):
    """Base of the families: names what apps may ask of one, and holds what all do alike.

    A family sets the class attributes and implements `forward`; latents are (B, C, H, W) or (B, C, T, H, W) outside.
    """

    family: ClassVar[str]
    subfolder: ClassVar[str] = "transformer"
    """What diffusers calls it in a pipeline: its folder, and what LoRA keys begin with."""
    lora_targets: tuple[str, ...] | str
    """Layers that get adapters (appendix A): suffixes, or a regular expression over whole names."""
    num_tokens: ClassVar[int] = 512
    """Text tokens of a prompt, as the pipeline pads it by default."""
    clip_tokens: ClassVar[int] = 0
    """Those of them that are CLIP's, whose number is fixed."""
    process: FlowMatching | VariancePreserving = FlowMatching()
    takes_float16: ClassVar[bool] = True
    """Whether its numbers stay within float16's range."""
    guidance: float | None = None
    """What a guidance-distilled model is told, in one pass; None: guidance takes an unconditional pass."""

    expert: Expert = Expert()
    """Which of a model's denoisers it is."""

    checkpointed: int = 0
    """How many blocks of a pass, from the first on, are recomputed in backward."""

    backbone: Any

    def __init__(self, backbone: nn.Module, *, blocks: range, num_channels: int, num_features: int) -> None:
        """Note the blocks whose features can be asked for, the channels of latents, and the width of features."""
        super().__init__()
        fuse_norms(backbone)
        self.backbone = backbone
        self.blocks, self.num_channels, self.num_features = blocks, num_channels, num_features

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the backbone's config."""
        config: Mapping[str, Any] = self.backbone.config
        return config

    @classmethod
    def fps_of(cls, config: Mapping[str, Any]) -> int | None:
        """Return the frames a second of the videos that a backbone's config knows; None: it makes images."""
        return None

    @property
    def folder(self) -> str:
        """Return where diffusers keeps it in a pipeline: `subfolder`, but for the second of two experts."""
        return self.expert.subfolder or self.subfolder

    @property
    def experts(self) -> Sequence["Denoiser"]:
        """Return the denoisers that the noise levels are split between, the noisiest first: itself alone."""
        return (self,)

    @property
    def fps(self) -> int | None:
        """Return the frames a second of the videos that the model knows; None: it makes images."""
        return self.fps_of(self.config)

    @property
    def layers(self) -> Sequence[nn.Module]:
        """Return the blocks in the order in which they run."""
        raise NotImplementedError

    @property
    def cond_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one prompt's embeddings, without the batch."""
        raise NotImplementedError

    def forward(
        self, x_t: Tensor, sigma: Tensor, cond: Mapping[str, Tensor], *, block: int | None = None, stop: bool = False
    ) -> Prediction:
        """Predict x0; return the image tokens after `block` too, and with `stop` run nothing beyond it."""
        raise NotImplementedError

    def comfyui_name(self, layer: str) -> str:
        """Return what ComfyUI calls a layer in a LoRA file."""
        return f"transformer.{layer}"

    def denoise(self, x_t: Tensor, sigma: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Predict x0 alone: what samplers ask for."""
        x0 = self(x_t, sigma, cond).x0
        assert isinstance(x0, Tensor)
        return x0

    def guide(self, x_t: Tensor, sigma: Tensor, cond: Tensor, uncond: Tensor, weight: float) -> Tensor:
        """Guide x0 without a classifier, as the pipeline does: uncond + weight (cond - uncond).

        `cond` and `uncond` are x0 as predicted at x_t and sigma with the prompt and without.
        """
        return uncond + weight * (cond - uncond)

    def last_block(self, block: int | None, stop: bool) -> int:
        """Return the last block that a pass runs."""
        return block if block is not None and stop else len(self.layers) - 1

    def checkpoint(self, count: int) -> None:
        """Recompute the first `count` blocks of each pass in backward: memory for time, the same gradients."""
        self.checkpointed = count

    def run(self, layer: nn.Module, *args: Any, index: int, last: int) -> Any:
        """Run block `index` of a pass that ends with block `last`, to be recomputed in backward if that was asked for.

        But for the last of a pass: backward begins with it, when to recompute it would need the same memory again.
        """
        if torch.is_grad_enabled() and index < min(self.checkpointed, last):
            return recomputed(layer, *args)
        return soundly(layer, *args)


@contextmanager
def sound_attention() -> Iterator[None]:
    """Attend without cuDNN in what has gradients: those that it gives are wrong, without a word.

    torch prefers it on Hopper and Blackwell. FLUX's and FLUX.2's gradients were noise of 1e36 and NaN there, those of
    torch's other kernels right (H200, torch 2.11: benchmarks/results/gpu); with a mask they are NaN at some lengths
    (https://github.com/pytorch/pytorch/issues/196678). Forward it is right: where there is no gradient, it stays.
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(before and not torch.is_grad_enabled())
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def recomputed(layer: Any, *args: Any) -> Any:
    """Run a layer forward, and once more in its backward."""
    return checkpoint(soundly, layer, *args, use_reentrant=False)


def soundly(layer: Any, *args: Any, **options: Any) -> Any:
    """Run a layer with `sound_attention`."""
    with sound_attention():
        return layer(*args, **options)


def check_block(block: int | None, blocks: range) -> None:
    """Raise ValueError for a block that has no features."""
    if block is not None and block not in blocks:
        raise ValueError(f"expected a block in {blocks[0]}..{blocks[-1]}, got {block}")
