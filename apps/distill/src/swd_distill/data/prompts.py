"""Which prompts a run has, and so how many images of each."""

from swd_data import read_prompts
from swd_distill.config import Config
from swd_models.loading import shipped_prompts


def prompts_of(config: Config) -> list[str]:
    """Return the prompts of the config, or those that come with the model."""
    if config.data.prompts is not None:
        return read_prompts(config.data.prompts)
    shipped = shipped_prompts(config.model)
    if not shipped:
        raise ValueError(f"expected --data.prompts FILE, got none, and {config.model} brings no prompts")
    return shipped
