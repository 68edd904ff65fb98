from .denoiser import Denoiser as Denoiser
from .known.facts import Expert as Expert
from .loading import load_denoiser as load_denoiser, load_latents as load_latents, load_text as load_text
from .lora.loading import load_lora as load_lora, save_lora as save_lora
from .prediction import Prediction as Prediction
from .roles import Roles as Roles, share_base as share_base
