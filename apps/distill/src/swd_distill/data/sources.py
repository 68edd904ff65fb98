"""Where a run's images come from."""

from pathlib import Path

from PIL import ImageColor

from swd_data import Skipped, claim, has_captions
from swd_data.images import Colour
from swd_data.skipped import FILE
from swd_distill.config import Config
from swd_distill.data.imagefolder import ImageFolder
from swd_distill.data.samples import Source
from swd_distill.devices import processes
from swd_distill.folder import SOURCE


def open_source(config: Config) -> Source:
    """Open the images of a run: a folder with captions where there is one, else what `datasets` makes of --data.images.

    Raises:
        ValueError: neither, or captions that are broken.
    """
    fps = fps_of(config)
    found = has_captions(config.images, "videos" if fps else "images")
    if config.data.images is None and not found:
        raise ValueError(f"expected metadata.jsonl in {config.images}, got none: run `swd-distill generate` first")
    if found:
        return ImageFolder(config.images, fps, background_of(config))
    if fps:
        raise ValueError(f"expected clips in {config.images} with metadata.jsonl, or a .txt beside each, got neither")
    from swd_distill.data.hub import open_hub

    return open_hub(config.images, config.data.streaming, config.data.num_images, background_of(config))


def skipped_in(folder: Path, config: Config, total: int) -> Skipped:
    """Return the list of bad samples that this process keeps in a folder: the main one's has the plain name."""
    state = processes()
    name = FILE if state.is_main_process else f"{state.process_index}-{FILE}"
    return Skipped(folder / name, total, config.data.max_bad)


def fps_of(config: Config) -> int | None:
    """Return the frames a second of a model's videos; None for one of images."""
    from swd_models.loading import family_of, load_config

    return family_of(config.model).denoiser.fps_of(load_config(config.model))


def background_of(config: Config) -> Colour:
    """Return the colour that shows through transparent images.

    Raises:
        ValueError: no colour that Pillow knows.
    """
    try:
        red, green, blue = ImageColor.getrgb(config.data.background)[:3]
    except ValueError as error:
        raise ValueError(
            f"expected --data.background as white, #808080 or the like, got {config.data.background!r}"
        ) from error
    return red, green, blue


def claim_source(config: Config, source: Source) -> None:
    """Note what a run without a cache is made of, or check that it is that still.

    Raises:
        ValueError: images or captions have changed: the places of its samples would be others'.
    """
    with processes().main_process_first():
        made_of = {"images": source.digest, "files": source.files(0, len(source))}
        claim(config.out / SOURCE, made_of, "a run", writes=())
