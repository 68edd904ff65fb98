"""What a forward pass costs: FLOPs as a function of the latent size."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from swd_schedules import ScaleSchedule

Cost = Callable[[tuple[int, ...]], float]


@dataclass(frozen=True)
class TokenCost:
    """FLOPs of a transformer on n image tokens: `constant + linear n + quadratic n^2`, the last of attention.

    `patch` is the latent cells along a token's side.
    """

    constant: float
    linear: float
    quadratic: float
    patch: int = 2

    def __call__(self, size: tuple[int, ...]) -> float:
        """Return the cost at a latent size (h, w) or (t, h, w)."""
        num_tokens = prod(size) / self.patch**2
        return self.constant + self.linear * num_tokens + self.quadratic * num_tokens**2


# TFLOP of one forward pass at batch 1, without guidance: fitted to counts on diffusers' full-size models at 32 to 128
# latents (Wan2.1: at the four sizes of the paper), which they meet within .2 %. SDXL's U-Net is fitted in the same
# form.
COSTS: dict[str, TokenCost] = {
    "sd35-medium": TokenCost(0.4602, 1.7047e-3, 2.2678e-7),
    "sd35-large": TokenCost(1.8105, 5.6499e-3, 3.6719e-7),
    "flux": TokenCost(6.8168, 1.36248e-2, 7.0074e-7),
    "wan": TokenCost(0.14994, 2.59638e-3, 1.843025e-7),
    "sdxl": TokenCost(0.0531, 1.4532e-3, 4.4903e-8),
}


def relative_cost(schedule: ScaleSchedule, cost: Cost) -> float:
    """Return the cost of all steps over that of as many at full scale."""
    return sum(map(cost, schedule.sizes)) / (len(schedule.sizes) * cost(schedule.sizes[-1]))
