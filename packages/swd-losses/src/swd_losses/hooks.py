"""What a block of any model returns, and an early end of the pass behind it: a `Denoiser` around a stock model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

__all__ = ["Tapped", "image_tokens", "tapped"]


@dataclass
class Tapped:
    """What was seen of a block.

    Attributes:
        features: Of its last run, with their graph; None: it has not run.
        ended: The pass was ended behind it.
    """

    features: Tensor | None = None
    ended: bool = False


class _End(Exception):  # noqa: N818 (it is no error)
    """The pass is over."""


def image_tokens(output: Any) -> Tensor:
    """Return a block's tensor; of several the last, which is the image's in joint blocks of SD3, FLUX and Qwen-Image.

    In those of HunyuanVideo, CogVideoX, Mochi, CogView4 and HiDream it is the first: `take=lambda output: output[0]`.
    Both are tokens (N, L, C), so that nothing else would tell.

    Raises:
        ValueError: it returns none.
    """
    found = output[-1] if isinstance(output, tuple | list) and output else output
    if not isinstance(found, Tensor):
        raise ValueError(
            f"expected a tensor, or a tuple with the image's last, from the block, got {type(found).__name__}"
        )
    return found


@contextmanager
def tapped(block: nn.Module, *, stop: bool = False, take: Callable[[Any], Tensor] = image_tokens) -> Iterator[Tapped]:
    """Watch a block in the passes inside; with `stop` a pass ends behind it, and with it what stands inside.

    `take` finds the features (N, L, C) in what the block returns: look into the block's `forward` for their place.

    Compiled models do not see hooks that come later, unless `torch._dynamo.config.skip_nnmodule_hook_guards` is False
    when they are compiled. Of a model within DDP tap and call `ddp.module`, and average gradients yourself: a pass that
    ends early leaves DDP's own averaging out.

    Raises:
        ValueError: with `stop` the block was not run.

    Examples:
        >>> with tapped(model.transformer_blocks[11], stop=True) as seen:
        ...     model(x_t, ...)  # ends behind the block: nothing after this line inside is run
        >>> seen.features, seen.ended
    """
    seen = Tapped()

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        seen.features = take(output)
        if stop:
            raise _End

    handle = block.register_forward_hook(note)
    try:
        yield seen
        if stop:
            raise ValueError(
                "expected a pass that runs the block, got none that ends behind it: a compiled model sees no hook that "
                "comes later, unless torch._dynamo.config.skip_nnmodule_hook_guards is False before it is compiled"
            )
    except _End:
        seen.ended = True
    finally:
        handle.remove()
