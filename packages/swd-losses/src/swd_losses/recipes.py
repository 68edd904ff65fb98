"""The two sets of choices: what the paper states and what the authors' code does. Where one is silent it says so."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from swd_losses.choices import HeadPool, Pooling, Weighting

if TYPE_CHECKING:  # a recipe is data: torch comes with its first use
    import torch

    import swd_losses.gan

__all__ = ["PAPER", "RELEASED", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """Name every choice about losses in which the paper and the authors' code differ or one is silent.

    Intervals are noise levels sigma, both ends included. For another choice: `replace(PAPER, mmd_noised=False)`.
    """

    mmd_features: Literal["teacher", "fake"]  # whose block feeds the MMD
    mmd_kernel: Literal["linear", "huber", "rbf", "moments"]  # linear and moments sum over images, the others average
    mmd_interval: tuple[float, float]  # noise on the images before their features are compared
    levels: Literal["uniform", "grid"]  # sigma anywhere in an interval, or only at the teacher's 28 steps within it
    guidance: float  # weight of the real score in DMD
    # What follows is the authors' in both recipes.
    rbf_bandwidth: float | Literal["median"] = 100.0  # for the kernel "rbf" only; the paper gives none
    mmd_pooling: Pooling = "image"  # "batch" is ablation B
    mmd_noised: bool = True  # False is ablation C
    dmd_interval: tuple[float, float] = (0.0, 0.791)  # grid points 12..27, sigma .7904 to .0089; not in the paper
    fake_interval: tuple[float, float] = (0.0, 1.0)  # all grid points, also for the discriminator; not in the paper
    gan_interval: tuple[float, float] = (0.0, 1.0)  # the generator's GAN term: as the discriminator; stated by neither
    gan_sample: Literal["own", "dmd"] = "own"  # the generator's GAN term: on noise of its own, or on DMD's sample
    mmd_weight: float = 1.0  # L = MMD + a DMD + b GAN
    dmd_weight: float = 1.0  # a; not in the paper
    gan_weight: float = 5e-3  # b; not in the paper
    balance: bool = False  # a and b are shares of MMD's gradient at x0
    balance_over: Literal["sample", "run"] = "sample"  # shares hold in each, or in the mean over updates
    gan_rise: int = 0  # updates over which b rises from 0: a new head says nothing
    stages: Literal["random", "cycle"] = "random"  # of each update its own, or one for an iteration, in turn
    discriminator_weight: float = 1e-2  # beside the denoising loss of the fake model; not in the paper
    head_pool: HeadPool = "tokens"  # the paper does not say how logits of tokens become one
    denoising_weighting: Weighting = "x0"  # not in the paper
    fake_updates: int = 5  # updates of the fake model for each of the student; not in the paper
    gradient_penalty: float = 0.0  # R1 on the head; in neither

    @property
    def mmd_sums(self) -> bool:
        """Tell whether the kernel sums over images: of parts of a batch its losses then add up, others are averaged."""
        return self.mmd_kernel in ("linear", "moments")

    def kernel(self) -> "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]":
        """Return the kernel of fake and real features that `MMDObjective` takes."""
        from swd_losses.mmd import huber_mmd, linear_mmd, moments_mmd, rbf_mmd

        if self.mmd_kernel == "rbf":
            return partial(rbf_mmd, bandwidth=self.rbf_bandwidth, pooling=self.mmd_pooling)
        kernels = {"linear": linear_mmd, "huber": huber_mmd, "moments": moments_mmd}
        return partial(kernels[self.mmd_kernel], pooling=self.mmd_pooling)

    def head(self, channels: int) -> "swd_losses.gan.DiscriminatorHead":
        """Return a new discriminator for features of this width."""
        from swd_losses.gan import DiscriminatorHead

        return DiscriminatorHead(channels, pool=self.head_pool)


# Eq. 2 is a sum over channels, and the authors' weights were tuned for a mean: beside it they leave DMD and GAN 150 and
# thousands of times too weak on the embedded teacher, and weaker on wider models. Hence shares. DMD's
# finds weights of 31 and 98 on two small models, where 30 and 100 were tuned by hand: benchmarks/results/balance.md.
PAPER = Recipe(
    mmd_features="teacher",
    mmd_kernel="linear",
    mmd_interval=(0.0, 0.6),  # "[0, 600]"
    levels="uniform",
    guidance=4.5,
    dmd_weight=0.12,
    gan_weight=0.1,
    balance=True,
    balance_over="run",
    gan_rise=100,
)

RELEASED = Recipe(
    mmd_features="fake",
    mmd_kernel="huber",
    mmd_interval=(0.0, 0.603),  # grid points 18..27, sigma .6022 to .0089
    levels="grid",
    guidance=7.0,  # SD3.5 Medium; 4.5 for Large
    gan_sample="dmd",  # the same noise and level
    stages="cycle",  # step mod N, for the fake model's updates and the student's alike
)
"""Left out of the authors' code: they sample the autoencoder's posterior anew at each update (ours encodes its mode,
once: .03 in relative L2 from a sample, with the embedded autoencoder), and take the previous scale from the already
downscaled picture of the stage (ours from the full picture: .19 to .26 in relative L2 from theirs). With MMD alone
their fake model is never trained: its features are the teacher's."""
