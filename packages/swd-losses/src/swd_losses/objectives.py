"""The losses as objects over denoisers: no optimiser, no requires_grad, no state, no random numbers.

Noise and noise levels are drawn outside. Generator objectives (`MMDObjective`, `DMDObjective`,
`GANObjective.generator`) give gradients to x0 through models that may themselves be trainable: call
`total.backward(inputs=student_parameters)` and nothing accumulates in the fake model or the head. Fake-side objectives
detach x0 and never reach the student.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from swd_losses.choices import Weighting
from swd_losses.diffusion import denoising_loss
from swd_losses.dmd import dmd_loss, guided
from swd_losses.gan import discriminator_loss, generator_loss, gradient_penalty
from swd_losses.mmd import linear_mmd
from swd_losses.shapes import same_shape
from swd_losses.typing import Denoiser, LossTerms, NoiseProcess, Prediction

__all__ = ["DMDObjective", "DenoisingObjective", "FakeObjective", "GANObjective", "MMDObjective"]

Latent: TypeAlias = Float[Tensor, "b *s"]
Level: TypeAlias = Float[Tensor, " b"]
Cond: TypeAlias = Mapping[str, Tensor]
Kernel: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Guide: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class MMDObjective:
    """Match the features of one block between generated and target images (section 4.2, eq. 2).

    `denoiser` is the frozen teacher in the paper, the fake model in the authors' code. `kernel(fake, real)` is a
    function of `swd_losses.mmd` or any other. Fake and real share the noise. `noised=False` is ablation C: clean
    latents at sigma 0.
    """

    denoiser: Denoiser
    process: NoiseProcess
    block: int
    kernel: Kernel = linear_mmd
    noised: bool = True

    def __post_init__(self) -> None:
        """Check what the objective is made of.

        Raises:
            ValueError: a kernel that cannot be called, no denoiser, or no noise process.
        """
        _check_parts(self.process, self.denoiser)
        if not callable(self.kernel):
            raise ValueError(
                f"expected a kernel that can be called, such as swd_losses.linear_mmd, got {self.kernel!r}"
            )

    def __call__(self, x0: Latent, x0_real: Latent, cond: Cond, sigma: Level, noise: Latent) -> LossTerms:
        """Return the part `mmd`."""
        same_shape(x0=x0, x0_real=x0_real)
        fake = self._features(x0, cond, sigma, noise)
        with torch.no_grad():
            real = self._features(x0_real, cond, sigma, noise)
        loss = self.kernel(fake, real)
        return _terms(loss, mmd=loss)

    def _features(self, x0: Tensor, cond: Cond, sigma: Tensor, noise: Tensor) -> Tensor:
        if self.noised:
            x_t = _noised(self.process, x0, noise, sigma)
        else:
            x_t, sigma = x0, torch.zeros_like(sigma)
        return _features(_predict(self.denoiser, x_t, sigma, cond, block=self.block, stop=True))


@dataclass(frozen=True)
class DMDObjective:
    """Follow the gradient of KL(student || teacher), estimated from two scores (appendix A, DMD2).

    No gradient reaches the teacher or the fake model. The conditional and unconditional passes of the teacher run as
    one batch if `cond` and `uncond` have the same names and shapes, else one after the other. `guide(x_t, sigma, cond,
    uncond, guidance)` joins their x0 where a model has its own way; default: `swd_losses.dmd.guided`.
    """

    teacher: Denoiser
    fake: Denoiser
    process: NoiseProcess
    guidance: float
    guide: Guide | None = None

    def __post_init__(self) -> None:
        """Check what the objective is made of.

        Raises:
            ValueError: no denoiser, or no noise process.
        """
        _check_parts(self.process, self.teacher, self.fake)

    def __call__(self, x0: Latent, cond: Cond, uncond: Cond | None, sigma: Level, noise: Latent) -> LossTerms:
        """Return the parts `dmd` and `gap`, the mean distance of the two scores' x0.

        `uncond=None` takes the teacher as it is, at `guidance=1.0`: for models that are told their guidance.

        Raises:
            ValueError: guidance other than 1, and no unconditional embeddings.
        """
        if uncond is None and self.guidance != 1:
            raise ValueError(
                f"expected unconditional embeddings for a guidance of {self.guidance:g}, got None; give them, or "
                "guidance=1.0 for a teacher that takes none"
            )
        with torch.no_grad():
            x_t = _noised(self.process, x0, noise, sigma)
            x0_real = self._guided(x_t, sigma, cond, uncond)
            x0_fake = _x0(_predict(self.fake, x_t, sigma, cond))
        loss = dmd_loss(x0, x0_real, x0_fake)
        return _terms(loss, dmd=loss, gap=(x0_fake - x0_real).abs().mean())

    def _guided(self, x_t: Tensor, sigma: Tensor, cond: Cond, uncond: Cond | None) -> Tensor:
        if uncond is None:
            return _x0(_predict(self.teacher, x_t, sigma, cond))
        if not _stackable(cond, uncond):
            with_cond, without = (_x0(_predict(self.teacher, x_t, sigma, each)) for each in (cond, uncond))
        else:
            both = {name: torch.cat([cond[name], uncond[name]]) for name in cond}
            twice = _predict(self.teacher, torch.cat([x_t, x_t]), torch.cat([sigma, sigma]), both)
            with_cond, without = _x0(twice).chunk(2)
        if self.guide is None:
            return guided(with_cond, without, self.guidance)
        return self.guide(x_t, sigma, with_cond, without, self.guidance)


@dataclass(frozen=True)
class GANObjective:
    """Play a GAN on the features of one block of the fake model (appendix A).

    `gradient_penalty` is the weight of R1 on the head. Fake and real share the noise.
    """

    fake: Denoiser
    head: nn.Module
    process: NoiseProcess
    block: int
    gradient_penalty: float = 0.0

    def __post_init__(self) -> None:
        """Check what the objective is made of.

        Raises:
            ValueError: no denoiser, or no noise process.
        """
        _check_parts(self.process, self.fake)

    def generator(self, x0: Latent, cond: Cond, sigma: Level, noise: Latent) -> LossTerms:
        """Return the student's side, part `gan`."""
        loss = generator_loss(self.head(self.features(x0, cond, sigma, noise)))
        return _terms(loss, gan=loss)

    def discriminator(self, x0_fake: Latent, x0_real: Latent, cond: Cond, sigma: Level, noise: Latent) -> LossTerms:
        """Return the side of the head and the fake model, parts as of `discriminate`."""
        same_shape(x0_fake=x0_fake, x0_real=x0_real)
        fake_features = self.features(x0_fake.detach(), cond, sigma, noise)
        return self.discriminate(fake_features, self.features(x0_real, cond, sigma, noise))

    def discriminate(self, fake_features: Float[Tensor, "n l c"], real_features: Float[Tensor, "n l c"]) -> LossTerms:
        """Tell features apart: parts `discriminator`, `accuracy`, and `gradient_penalty` if it has a weight."""
        real, fake = self.head(real_features), self.head(fake_features)
        loss = discriminator_loss(real, fake)
        parts = {"discriminator": loss, "accuracy": torch.cat([real > 0, fake < 0]).float().mean()}
        if self.gradient_penalty == 0:
            return _terms(loss, **parts)
        penalty = gradient_penalty(self.head, real_features)
        return _terms(loss + self.gradient_penalty * penalty, **parts, gradient_penalty=penalty)

    def features(self, x0: Latent, cond: Cond, sigma: Level, noise: Latent) -> Float[Tensor, "b l c"]:
        """Noise a latent and run the fake model up to the block."""
        x_t = _noised(self.process, x0, noise, sigma)
        return _features(_predict(self.fake, x_t, sigma, cond, block=self.block, stop=True))


@dataclass(frozen=True)
class DenoisingObjective:
    """Train the fake model to denoise what the student generates (appendix A); without a GAN this is the fake step."""

    fake: Denoiser
    process: NoiseProcess
    weighting: Weighting = "x0"

    def __post_init__(self) -> None:
        """Check what the objective is made of.

        Raises:
            ValueError: no denoiser, or no noise process.
        """
        _check_parts(self.process, self.fake)

    def __call__(self, x0: Latent, cond: Cond, sigma: Level, noise: Latent) -> LossTerms:
        """Return the part `denoising`."""
        x0 = x0.detach()
        prediction = _predict(self.fake, _noised(self.process, x0, noise, sigma), sigma, cond)
        loss = denoising_loss(_x0(prediction), x0, sigma, weighting=self.weighting)
        return _terms(loss, denoising=loss)


@dataclass(frozen=True)
class FakeObjective:
    """Train the fake model and the head in one step: denoising + `weight` x discriminator.

    One full forward of the generated images serves both; that of the real ones stops at the block. The numbers equal
    `DenoisingObjective` + `weight` x `GANObjective.discriminator` at the same sigma and noise.
    """

    gan: GANObjective
    weight: float = 1e-2
    weighting: Weighting = "x0"

    def __call__(self, x0_fake: Latent, x0_real: Latent, cond: Cond, sigma: Level, noise: Latent) -> LossTerms:
        """Return the part `denoising`, and those of `GANObjective.discriminate`."""
        same_shape(x0_fake=x0_fake, x0_real=x0_real)
        gan, x0_fake = self.gan, x0_fake.detach()
        x_t = _noised(gan.process, x0_fake, noise, sigma)
        prediction = _predict(gan.fake, x_t, sigma, cond, block=gan.block)
        denoising = denoising_loss(_x0(prediction), x0_fake, sigma, weighting=self.weighting)
        adversarial = gan.discriminate(_features(prediction), gan.features(x0_real, cond, sigma, noise))
        return _terms(denoising + self.weight * adversarial.total, denoising=denoising, **adversarial.parts)


def _terms(total: Tensor, **parts: Tensor) -> LossTerms:
    return LossTerms(total, {name: part.detach() for name, part in parts.items()})


def _noised(process: NoiseProcess, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Carry latents to their noise levels; no number is read, for a device would be waited for."""
    if not isinstance(sigma, Tensor):
        raise ValueError(f"expected sigma as a tensor, a level for each sample, got {sigma!r:.80}")
    if noise.shape != x0.shape or sigma.shape != x0.shape[:1]:
        shapes = f"noise {tuple(noise.shape)} and sigma {tuple(sigma.shape)}"
        raise ValueError(f"expected noise of x0's shape {tuple(x0.shape)} and a level for each sample, got {shapes}")
    if not sigma.is_floating_point():
        raise ValueError(
            f"expected noise levels from 0 to 1, got {sigma.dtype}; a timestep of a thousand is 1000 sigma"
        )
    return process.add_noise(x0, noise, sigma)


def _predict(
    denoiser: Denoiser, x_t: Tensor, sigma: Tensor, cond: Cond, *, block: int | None = None, stop: bool = False
) -> Prediction:
    """Ask a denoiser, and hold it to what it has to give back."""
    found = denoiser(x_t, sigma, cond) if block is None else denoiser(x_t, sigma, cond, block=block, stop=stop)
    if not (hasattr(found, "x0") and hasattr(found, "features")):
        raise ValueError(
            f"expected x0 and features, as attributes, from the denoiser, got a {type(found).__name__}; see "
            "swd_losses.Denoiser"
        )
    return found


def _check_parts(process: NoiseProcess, *denoisers: Denoiser) -> None:
    """Refuse a model or a scheduler of diffusers as it is: their calls are others."""
    for part in denoisers:
        if type(part).__module__.startswith("diffusers."):
            raise ValueError(
                f"expected a denoiser, got {type(part).__name__} of diffusers: wrap it in a call of (x_t, sigma, cond) "
                "that returns x0 and features, see swd_losses.Denoiser"
            )
    if not hasattr(process, "add_noise") or type(process).__module__.startswith("diffusers."):
        raise ValueError(
            f"expected a process with add_noise(x0, noise, sigma), got {type(process).__name__}: see "
            "swd_losses.NoiseProcess"
        )


def _stackable(cond: Cond, uncond: Cond) -> bool:
    return cond.keys() == uncond.keys() and all(cond[name].shape == uncond[name].shape for name in cond)


def _x0(prediction: Prediction) -> Tensor:
    if prediction.x0 is None:
        raise ValueError("expected x0 from the denoiser, got None; return it whenever stop=False")
    return prediction.x0


def _features(prediction: Prediction) -> Tensor:
    if prediction.features is None:
        raise ValueError(
            "expected features from the denoiser, got None; return (N, L, C) tokens whenever block is given"
        )
    if prediction.features.ndim != 3:
        raise ValueError(
            f"expected features (N, L, C), tokens of channels, from the denoiser, got {(*prediction.features.shape,)}"
        )
    return prediction.features
