"""Balance: the gradients of several losses to x0 stand in given shares, whatever the losses' own scales.

The paper's L = MMD + alpha DMD + beta GAN names no alpha and no beta, and none would serve twice: what a loss weighs
depends on its kernel, the width of its features, the size of latents and batch. As shares of MMD's gradient they do.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from swd_losses.precision import full_precision

__all__ = ["RunningBalance", "balance", "sample_norms"]


@torch.no_grad()
def balance(
    gradients: Mapping[str, Float[Tensor, "b *s"]], shares: Mapping[str, float], reference: str = "mmd"
) -> dict[str, Float[Tensor, "b *s"]]:
    """Scale each gradient, sample by sample, to its share of the norm of the reference's, which stays as it is.

    A gradient that vanishes at a sample stays zero there, and so do all where the reference's does. Samples do not
    know of each other: a batch gives the same numbers however it is split.

    Examples:
        >>> leaf = x0.detach().requires_grad_()  # differentiate each loss to x0 alone, then the student once
        >>> slopes = {name: torch.autograd.grad(loss(leaf), leaf)[0] for name, loss in losses.items()}
        >>> x0.backward(sum(balance(slopes, {"dmd": 0.3, "gan": 0.1}).values()))

    Raises:
        ValueError: no gradient of the reference, or none for a share.
    """
    if reference not in gradients or not shares.keys() <= gradients.keys() - {reference}:
        raise ValueError(
            f"expected gradients of {reference} and of what has a share ({', '.join(shares)}), got "
            f"{', '.join(gradients) or 'none'}"
        )
    norm = sample_norms(gradients[reference])
    found = {}
    for name, gradient in gradients.items():
        if name in shares:
            gradient = _scaled(gradient, sample_norms(gradient), shares[name] * norm)
        found[name] = gradient
    return found


class RunningBalance:
    """Balance over a run: the gradients of whole batches stand in given shares in the mean over updates.

    It is a weight for each loss, found while training: the share times the ratio of the mean norms of the reference's
    gradient and its own. All samples, stages and updates have the same, so a loss keeps its strength where the
    reference is weak; `balance` weakens it there. The means are of about the last 100 updates: a loss whose gradient
    grows, as the GAN's at first, has more than its share. The first `warmup` updates are balanced sample by sample:
    of a gradient that starts at nearly nothing, as DMD's where the fake model is still the teacher, the first norms
    would ask for a weight without bound. In neither the paper nor the authors' code.

    Examples:
        >>> shared = RunningBalance()
        >>> x0.backward(sum(shared(slopes, {"dmd": 0.12, "gan": 0.1}).values()))  # for each part of a batch
        >>> shared.step()  # once for each update
    """

    def __init__(self, reference: str = "mmd", decay: float = 0.99, warmup: int = 10) -> None:
        """Take the reference's name, what a mean keeps of itself at each update, and how many updates come first."""
        self.reference, self.decay, self.warmup = reference, decay, warmup
        self.means: dict[str, Tensor] = {}
        """Of each loss the mean norm, up to a factor that all have in common, on its gradient's device."""
        self.updates = torch.zeros((), dtype=torch.long)
        """How many updates the means are of: those that were finite."""
        self._squares: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(
        self, gradients: Mapping[str, Float[Tensor, "b *s"]], shares: Mapping[str, float]
    ) -> dict[str, Float[Tensor, "b *s"]]:
        """Scale each gradient that has a share; its norms are noted for the updates that follow.

        Raises:
            ValueError: as `balance`.
        """
        balanced = balance(gradients, shares, self.reference)
        for name, gradient in gradients.items():
            self._squares[name] = self._squares.get(name, 0) + sample_norms(gradient).square().sum()
            if name in shares and name in self.means:
                weighed = _scaled(gradient, self.means[name], shares[name] * self.means[self.reference])
                balanced[name] = torch.where(self.updates < max(self.warmup, 1), balanced[name], weighed)
        return balanced

    @torch.no_grad()
    def step(self, parts: int = 1, sum_up: Callable[[Sequence[Tensor]], object] | None = None) -> None:
        """Take the gradients since the last step for those of a batch; one that is not finite changes no mean.

        A batch may come in `parts`, whose losses are such that their gradients are averaged. `sum_up` adds up tensors
        over the processes that had them, in place.
        """
        squares = list(self._squares.values())
        if not squares:
            return
        if sum_up is not None:
            sum_up(squares)
        finite = torch.stack(squares).isfinite().all()
        for name, square in self._squares.items():
            mean = self.means.get(name, torch.zeros_like(square))
            self.means[name] = torch.where(finite, mean.lerp(square.sqrt() / parts, 1 - self.decay), mean)
        self.updates = self.updates.to(finite.device) + finite
        self._squares = {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return all state, for a checkpoint."""
        return {"updates": self.updates} | {f"means.{name}": mean for name, mean in self.means.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state_dict` returned, on the device where the gradients will be."""
        self.updates = state["updates"]
        self.means = {name.removeprefix("means."): mean for name, mean in state.items() if name != "updates"}


def _scaled(gradient: Tensor, norm: Tensor, to: Tensor) -> Tensor:
    """Return a gradient of one norm with another; in two steps, for a quotient of both could leave floats' range."""
    unit = torch.where(norm > 0, 1 / norm.clamp(min=torch.finfo(norm.dtype).tiny), 0)
    return full_precision(gradient) * unit * to


def sample_norms(gradient: Float[Tensor, "b *s"]) -> Float[Tensor, "b *ones"]:
    """Return the norm of each sample's gradient, of as many axes."""
    axes = tuple(range(1, gradient.ndim))
    norms: Tensor = torch.linalg.vector_norm(full_precision(gradient), dim=axes, keepdim=True)
    return norms
