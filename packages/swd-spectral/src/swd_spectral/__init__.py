"""Measure the spectra of latents, see which noise level hides which frequencies, and design scale schedules by it."""

from swd_spectral.density import Density, DensityMeter, rapsd, temporal_psd
from swd_spectral.design import Proposal, propose_schedule, propose_timesteps
from swd_spectral.masking import lost_snr, smallest_safe_size, smallest_safe_timestep
from swd_spectral.powerlaw import FLUX_LAW, WAN_LAW, PowerLaw, fit_power_law
from swd_spectral.steps import check_schedule

__all__ = [
    "FLUX_LAW",
    "WAN_LAW",
    "Density",
    "DensityMeter",
    "PowerLaw",
    "Proposal",
    "check_schedule",
    "fit_power_law",
    "lost_snr",
    "propose_schedule",
    "propose_timesteps",
    "rapsd",
    "smallest_safe_size",
    "smallest_safe_timestep",
    "temporal_psd",
]
