from .density import Density as Density, DensityMeter as DensityMeter, rapsd as rapsd, temporal_psd as temporal_psd
from .design import Proposal as Proposal, propose_schedule as propose_schedule, propose_timesteps as propose_timesteps
from .masking import (
    lost_snr as lost_snr,
    smallest_safe_size as smallest_safe_size,
    smallest_safe_timestep as smallest_safe_timestep,
)
from .powerlaw import FLUX_LAW as FLUX_LAW, WAN_LAW as WAN_LAW, PowerLaw as PowerLaw, fit_power_law as fit_power_law
from .steps import check_schedule as check_schedule
