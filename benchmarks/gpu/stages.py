"""What is measured, in order of importance, and what each is expected to take."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.gpu import adapters, gradients, memory, sampling, smoke, training
from benchmarks.gpu.setting import Rows, Setting


@dataclass(frozen=True)
class Stage:
    """A measurement with a record of its own.

    Attributes:
        expected: Seconds on an H100, and on two CPU cores.
        measure: Fills rows as it goes: what is there stays, if the rest fails.
    """

    name: str
    title: str
    expected: tuple[float, float]
    measure: Callable[[Setting, Rows], None]

    def takes(self, setting: Setting) -> float:
        """Return the seconds that it is expected to take."""
        return self.expected[setting.device.type == "cpu"]


def _table_5(family: str, setting: Setting, rows: Rows) -> None:
    training.table_5(setting, family, setting.shares if family == "flux" else (setting.samples,), rows)


def _bases(family: str, setting: Setting, rows: Rows) -> None:
    memory.bases(setting, family, rows)


def _sampled(family: str, setting: Setting, rows: Rows) -> None:
    sampling.plain(setting, family, rows)


def _compiled(family: str, setting: Setting, rows: Rows) -> None:
    sampling.compiled(setting, family, rows)


STAGES = (
    Stage("smoke-tiny", "The preset `tiny-long`, from prompts to samples", (45, 15), smoke.tiny),
    Stage("smoke-families", "A tiny member of each family, trained, sampled, merged", (30, 8), smoke.families),
    Stage("smoke-gradients", "Gradients by kernel of attention", (50, 10), gradients.gradients),
    Stage("smoke-updates", "One student and one fake update at each stage, full loss", (60, 8), training.updates),
    Stage("smoke-adapters", "Adapters: ours, PEFT's, merged; last stage", (30, 2), adapters.adapters),
    Stage("latency-sd3", "Sampling, SD3", (40, 3), partial(_sampled, "sd3")),
    Stage("latency-flux", "Sampling, FLUX", (60, 3), partial(_sampled, "flux")),
    Stage("latency-sdxl", "Sampling, SDXL", (40, 4), partial(_sampled, "sdxl")),
    Stage("latency-wan", "Sampling, Wan", (45, 5), partial(_sampled, "wan")),
    Stage("latency-sd3-compiled", "Sampling, SD3, compiled block by block", (75, 12), partial(_compiled, "sd3")),
    Stage("training-sd3", "Table 5, SD3", (80, 12), partial(_table_5, "sd3")),
    Stage("training-flux", "Table 5, FLUX", (135, 6), partial(_table_5, "flux")),
    Stage("memory-flux", "A base in fewer bits, FLUX", (165, 25), partial(_bases, "flux")),
    Stage("memory-qwen", "A base in fewer bits, Qwen-Image", (240, 25), partial(_bases, "qwen")),
    Stage("memory-wan", "A base in fewer bits, Wan", (90, 25), partial(_bases, "wan")),
    Stage("latency-flux-compiled", "Sampling, FLUX, compiled block by block", (75, 13), partial(_compiled, "flux")),
    Stage("latency-wan-compiled", "Sampling, Wan, compiled block by block", (75, 14), partial(_compiled, "wan")),
    Stage("latency-sdxl-compiled", "Sampling, SDXL, compiled block by block", (200, 30), partial(_compiled, "sdxl")),
)
