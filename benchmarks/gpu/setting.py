"""What is measured on a device: full-size models with random weights on a GPU, tiny ones of each family on the CPU."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.latency.models import Model, materialise, random_model, tiny
from benchmarks.latency.rows import SCALEWISE
from benchmarks.provenance import data_sheet, machine
from benchmarks.training.encoding import Drawn
from swd_distill.config import Config
from swd_distill.devices import device_and_dtype
from swd_distill.planning.counts import Counts
from swd_distill.planning.memory import recompute_blocks
from swd_distill.planning.roofline import Gpu
from swd_distill.presets import PRESETS
from swd_models import Denoiser, Roles, load_denoiser, share_base
from swd_models.loading import empty_denoiser
from swd_models.quantized import quantise

Rows = dict[str, dict[str, Any]]
SAMPLED = torch.float16
"""What full-size models sample in, as appendix G has it; they train in the device's dtype."""


@dataclass(frozen=True)
class Setting:
    """Models by family, and how much of them.

    Attributes:
        presets: To train.
        latency: Of `benchmarks.latency.rows`, to sample.
        samples: At a time; `clips` of a video model.
        shares: Numbers of samples to train FLUX with, as far as they fit.
        repeats: Times that each thing is timed after a first time.
        backend: Of torch.compile.
    """

    device: torch.device
    dtype: torch.dtype
    sheet: Gpu | None
    presets: Mapping[str, str]
    latency: Mapping[str, str]
    samples: int
    clips: int
    shares: tuple[int, ...]
    repeats: int
    backend: str

    def config(self, family: str, share: int) -> Config:
        """Return a family's preset for a share of a batch."""
        preset = PRESETS[self.presets[family]]
        return replace(preset, training=replace(preset.training, batch=share, trackers=()))

    def base(self, model: str) -> Denoiser:
        """Return a denoiser on the device: with its weights if they come with swd-models, else with random ones."""
        if "/" not in model:
            return load_denoiser(model, dtype=self.dtype).to(self.device)
        found: Denoiser = materialise(empty_denoiser(model), self.device, self.dtype)
        return found

    def sampler(self, family: str) -> Model:
        """Return all that a prompt runs through."""
        name = self.latency[family]
        if name in SCALEWISE:
            return random_model(empty_denoiser(PRESETS[name].model), self.device, SAMPLED)
        return tiny(name)

    def roles(self, config: Config) -> tuple[Roles, Drawn]:
        """Share a base, in as few bits as a config asks for, and draw what it is trained on."""
        base = quantise(self.base(config.model), config.training.base)
        roles = share_base(base, config.training.rank, fake=config.needs_fake, seed=config.seed)
        return roles, Drawn(base, config.scales.sizes)

    def recompute(self, config: Config, roles: Roles) -> int:
        """Let as few blocks be recomputed as fit, or all where no counts ship; return how many are."""
        if self.device.type != "cpu" and Counts.shipped(config) is None:
            config = replace(config, training=replace(config.training, checkpointing="all"))
        recompute_blocks(config, roles, config.training.batch)
        return roles.student.checkpointed

    def describe(self) -> dict[str, Any]:
        """Return what a record says of this."""
        return {
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "models": dict(self.presets),
            "samples": self.samples,
            "clips": self.clips,
            "shares": self.shares,
            "sampled in": str(SAMPLED).removeprefix("torch."),
            "repeats": self.repeats,
            "backend": self.backend,
        }


def here() -> Setting:
    """Return the setting for this machine."""
    device, dtype = device_and_dtype()
    if device.type == "cpu":
        latency = {"sd3": "embedded"} | {family: f"random-{family}" for family in ("flux", "sdxl", "wan")}
        tiny_ones = {"sd3": "tiny-long"} | {family: f"tiny-{family}" for family in ("flux", "sdxl", "wan", "qwen")}
        return Setting(device, dtype, None, tiny_ones, latency, 2, 1, (1, 2), 1, "aot_eager")
    sampled = {"sd3": "sd35-medium", "flux": "flux", "sdxl": "sdxl", "wan": "wan"}
    trained = sampled | {"qwen": "qwen-image"}
    return Setting(device, dtype, data_sheet(machine()), trained, sampled, 8, 1, (1, 2, 3), 2, "inductor")
