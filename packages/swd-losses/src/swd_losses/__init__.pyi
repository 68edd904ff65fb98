from .balance import RunningBalance as RunningBalance, balance as balance, sample_norms as sample_norms
from .diffusion import denoising_loss as denoising_loss
from .dmd import dmd_gradient as dmd_gradient, dmd_loss as dmd_loss, guided as guided
from .gan import (
    DiscriminatorHead as DiscriminatorHead,
    discriminator_loss as discriminator_loss,
    generator_loss as generator_loss,
    gradient_penalty as gradient_penalty,
)
from .mmd import huber_mmd as huber_mmd, linear_mmd as linear_mmd, moments_mmd as moments_mmd, rbf_mmd as rbf_mmd
from .objectives import (
    DenoisingObjective as DenoisingObjective,
    DMDObjective as DMDObjective,
    FakeObjective as FakeObjective,
    GANObjective as GANObjective,
    MMDObjective as MMDObjective,
)
from .recipes import PAPER as PAPER, RELEASED as RELEASED, Recipe as Recipe
from .typing import Denoiser as Denoiser, LossTerms as LossTerms, NoiseProcess as NoiseProcess, Prediction as Prediction
