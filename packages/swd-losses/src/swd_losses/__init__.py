"""Distribution matching losses for diffusion distillation: MMD on features, DMD2, GAN."""

from swd_losses.balance import balance, sample_norms
from swd_losses.diffusion import denoising_loss
from swd_losses.dmd import dmd_gradient, dmd_loss, guided
from swd_losses.gan import DiscriminatorHead, discriminator_loss, generator_loss, gradient_penalty
from swd_losses.mmd import huber_mmd, linear_mmd, rbf_mmd
from swd_losses.objectives import DenoisingObjective, DMDObjective, FakeObjective, GANObjective, MMDObjective
from swd_losses.recipes import PAPER, RELEASED, Recipe
from swd_losses.typing import Denoiser, LossTerms, NoiseProcess, Prediction

__all__ = [
    "PAPER",
    "RELEASED",
    "DMDObjective",
    "Denoiser",
    "DenoisingObjective",
    "DiscriminatorHead",
    "FakeObjective",
    "GANObjective",
    "LossTerms",
    "MMDObjective",
    "NoiseProcess",
    "Prediction",
    "Recipe",
    "balance",
    "denoising_loss",
    "discriminator_loss",
    "dmd_gradient",
    "dmd_loss",
    "generator_loss",
    "gradient_penalty",
    "guided",
    "huber_mmd",
    "linear_mmd",
    "rbf_mmd",
    "sample_norms",
]
