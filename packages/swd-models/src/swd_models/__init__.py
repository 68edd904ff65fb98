"""Diffusion model families behind one denoiser, and three roles over one frozen base."""

from swd_models.denoiser import Denoiser, Expert
from swd_models.loading import load_denoiser, load_latents, load_text
from swd_models.lora.loading import load_lora, save_lora
from swd_models.prediction import Prediction
from swd_models.roles import Roles, share_base

__all__ = [
    "Denoiser",
    "Expert",
    "Prediction",
    "Roles",
    "load_denoiser",
    "load_latents",
    "load_lora",
    "load_text",
    "save_lora",
    "share_base",
]
