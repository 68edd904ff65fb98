"""What a preset's name means to sampling: a base model and a schedule."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A diffusers directory or hub id ("embedded" ships with swd-models), and a name in `swd_schedules.presets`."""

    model: str
    schedule: str


SOURCES = {
    "tiny": Source("embedded", "tiny-4"),
    "sd35-medium": Source("stabilityai/stable-diffusion-3.5-medium", "sd35-medium-6"),
    "sd35-large": Source("stabilityai/stable-diffusion-3.5-large", "sd35-large-4"),
}
