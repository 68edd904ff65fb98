"""Which prompts a run has, and so how many images of each."""

from dataclasses import replace

from swd_data import read_prompts
from swd_distill.config import Config
from swd_models.loading import shipped_prompts


def prompts_of(config: Config) -> list[str]:
    """Return the prompts of the config, or those that come with the model."""
    if config.data.prompts is not None:
        return read_prompts(config.data.prompts)
    shipped = shipped_prompts(config.model)
    if not shipped:
        raise ValueError(
            f"expected --data.prompts FILE, for {config.model} brings no prompts of its own, got no such flag: pass "
            "a .txt of one prompt a line, or your own images by --data.images"
        )
    return shipped


def limited(config: Config) -> Config:
    """Return the config with as many images as its prompts allow (`images_per_prompt`): of few prompts, fewer.

    Raises:
        ValueError: no prompts.
    """
    limit = config.data.images_per_prompt * len(prompts_of(config))
    if not limit or config.data.num_images <= limit:
        return config
    return replace(config, data=replace(config.data, num_images=limit))


def has_prompts(config: Config) -> bool:
    """Tell whether there are prompts: a file that is there, or those that come with the model."""
    prompts = config.data.prompts
    return bool(shipped_prompts(config.model)) if prompts is None else prompts.is_file()
