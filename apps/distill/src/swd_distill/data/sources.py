"""Where a run's images come from."""

from swd_distill.config import Config
from swd_distill.data.imagefolder import ImageFolder, metadata_of
from swd_distill.data.samples import Source


def open_source(config: Config) -> Source:
    """Open the images of a run: an image folder where there is one, else what `datasets` makes of --data.images."""
    video = len(config.scales.sizes[-1]) == 3
    if config.data.images is None or metadata_of(config.images):
        return ImageFolder(config.images, video)
    if video:
        raise ValueError(f"expected clips beside metadata.jsonl or metadata.csv, got neither in {config.images}")
    from swd_distill.data.hub import open_hub

    return open_hub(config.images, config.data.streaming, config.data.num_images)
