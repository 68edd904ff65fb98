"""Forward processes: how noise is added to clean latents, and how a prediction gives them back.

Both processes take `sigma = timestep / 1000`, one per sample or one for all, so that samplers and training need not
know which one they run. Coefficients are at least float32, whatever the dtype of the latents.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from swd_schedules.devices import has_float64


@dataclass(frozen=True)
class FlowMatching:
    """Straight path from data to noise: `x_t = (1 - sigma) x0 + sigma noise`, `velocity = noise - x0`."""

    def add_noise(
        self,
        x0: Float[Tensor, "batch *dims"],
        noise: Float[Tensor, "batch *dims"],
        sigma: float | Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch *dims"]:
        """Return `x_t = (1 - sigma) x0 + sigma noise` in the dtype of `x0`."""
        sigma = _broadcast(sigma, x0)
        return ((1 - sigma) * x0 + sigma * noise).to(x0.dtype)

    def to_x0(
        self,
        x_t: Float[Tensor, "batch *dims"],
        prediction: Float[Tensor, "batch *dims"],
        sigma: float | Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch *dims"]:
        """Return `x0 = x_t - sigma velocity` in the dtype of `x_t`; `prediction` is the velocity."""
        return (x_t - _broadcast(sigma, x_t) * prediction).to(x_t.dtype)

    def noise_to_signal(self, sigma: float | Float[Tensor, "*dims"]) -> Float[Tensor, "*dims"]:
        """Return `(sigma / (1 - sigma))^2` in float64: noise power over signal gain, infinite at sigma = 1.

        A frequency whose clean power lies below this threshold is weaker than the noise on it.
        """
        sigma = torch.as_tensor(sigma, dtype=torch.float64)
        return (sigma / (1 - sigma)) ** 2

    def snr(self, sigma: float | Float[Tensor, "*dims"]) -> Float[Tensor, "*dims"]:
        """Return `((1 - sigma) / sigma)^2` in float64, infinite at sigma = 0."""
        return 1 / self.noise_to_signal(sigma)


@dataclass(frozen=True)
class VariancePreserving:
    """Rotation from data to noise: `x_t = sqrt(abar) x0 + sqrt(1 - abar) noise`, predicting the noise (Ho et al. 2020).

    The betas are SDXL's: the squares of an even ramp between square roots ("scaled linear"), 1000 steps. Timesteps are
    whole numbers in 0..999: sigma is rounded to one, and sigma = 1 means timestep 999, where some signal is left.
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012

    def add_noise(
        self,
        x0: Float[Tensor, "batch *dims"],
        noise: Float[Tensor, "batch *dims"],
        sigma: float | Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch *dims"]:
        """Return `x_t = sqrt(abar) x0 + sqrt(1 - abar) noise` in the dtype of `x0`."""
        signal, spread = self._coefficients(sigma, x0)
        return (signal * x0 + spread * noise).to(x0.dtype)

    def to_x0(
        self,
        x_t: Float[Tensor, "batch *dims"],
        prediction: Float[Tensor, "batch *dims"],
        sigma: float | Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch *dims"]:
        """Return `x0 = (x_t - sqrt(1 - abar) epsilon) / sqrt(abar)` in the dtype of `x_t`; `prediction` is epsilon."""
        signal, spread = self._coefficients(sigma, x_t)
        return ((x_t - spread * prediction) / signal).to(x_t.dtype)

    def noise_to_signal(self, sigma: float | Float[Tensor, "*dims"]) -> Float[Tensor, "*dims"]:
        """Return `(1 - abar) / abar` in float64: noise power over signal gain, finite at every sigma."""
        abar = self.alpha_bar(sigma)
        return (1 - abar) / abar

    def snr(self, sigma: float | Float[Tensor, "*dims"]) -> Float[Tensor, "*dims"]:
        """Return `abar / (1 - abar)` in float64, finite at every sigma."""
        return 1 / self.noise_to_signal(sigma)

    def alpha_bar(self, sigma: float | Float[Tensor, "*dims"]) -> Float[Tensor, "*dims"]:
        """Return `abar_t = prod_{s <= t} (1 - beta_s)` at `t = min(round(1000 sigma), 999)`.

        In float64, but on devices that have none.
        """
        timestep = (torch.as_tensor(sigma) * 1000).round().long().clamp(0, 999)
        return _alphas_cumprod(self.beta_start, self.beta_end, timestep.device)[timestep]

    def flow_sigma(self, sigma: float | Float[Tensor, "*dims"]) -> Float[Tensor, "*dims"]:
        """Return the flow-matching noise level of equal SNR, `1 / (1 + sqrt(abar / (1 - abar)))`, in float64."""
        return 1 / (1 + self.snr(sigma).sqrt())

    def _coefficients(self, sigma: float | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        abar = self.alpha_bar(_on(sigma, like.device))
        return _broadcast(abar.sqrt(), like), _broadcast((1 - abar).sqrt(), like)


Process = FlowMatching | VariancePreserving


def _broadcast(value: float | Tensor, like: Tensor) -> Tensor:
    dtype = torch.promote_types(like.dtype, torch.float32)
    return _on(value, like.device, dtype).reshape(-1, *[1] * (like.ndim - 1))


def _on(value: float | Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor on a device; a number is filled in there, since a copy of it would wait for the device."""
    if isinstance(value, Tensor):
        return value.to(device, dtype)
    return torch.full((), value, device=device, dtype=dtype)


def _alphas_cumprod(beta_start: float, beta_end: float, device: torch.device) -> Tensor:
    """Return the table, made where it is read: a copy to an accelerator would make it wait."""
    dtype = torch.float64 if has_float64(device) else torch.float32
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, 1000, dtype=dtype, device=device) ** 2
    return (1 - betas).cumprod(0)
