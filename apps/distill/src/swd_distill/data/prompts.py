"""Which prompts a run has, and so how many images of each."""

from dataclasses import replace

from swd_data import read_object, read_prompts
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

    A run that has already as many as are asked for keeps them.

    Raises:
        ValueError: no prompts.
    """
    limit, asked = config.data.images_per_prompt * len(prompts_of(config)), config.data.num_images
    if not limit or asked <= limit or asked == _noted(config):
        return config
    return replace(config, data=replace(config.data, num_images=limit))


def as_made(config: Config) -> Config:
    """Return the config with the number of images that `generate` has made, where it has, and they are fewer."""
    metadata = config.images / "metadata.jsonl"
    if config.data.images is not None or not metadata.is_file():
        return config
    with metadata.open(encoding="utf-8") as lines:
        count = sum(1 for _ in lines)
    return replace(config, data=replace(config.data, num_images=min(count, config.data.num_images)))


def _noted(config: Config) -> object:
    """Return how many images the run of a folder says it has."""
    noted = config.out / "config.json"
    data = read_object(noted, "the config of a run").get("data") if noted.is_file() else None
    return data.get("num_images") if isinstance(data, dict) else None
