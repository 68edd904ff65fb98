"""Named runs: the paper's settings where it states them, the authors' where it does not."""

from dataclasses import replace
from pathlib import Path

from swd_distill.config import Config, Data, Training
from swd_losses import PAPER
from swd_sample.presets import SOURCES

_TINY = Config(
    name="tiny",
    model=SOURCES["tiny"].model,
    schedule=SOURCES["tiny"].schedule,
    recipe=replace(PAPER, dmd_weight=0.0, gan_weight=0.0),
    data=Data(num_images=768, teacher_steps=20, teacher_guidance=2.0, batch=32),
    training=Training(
        iterations=700, batch=16, rank=32, block=3, lr=1e-3, fake_lr=1e-3, warmup=20, decay=True, clip=1.0,
        save_every=250, sample_every=250,
    ),
)  # fmt: skip

_SD35_MEDIUM = Config(
    name="sd35-medium",
    model=SOURCES["sd35-medium"].model,
    schedule=SOURCES["sd35-medium"].schedule,
    recipe=PAPER,
    data=Data(num_images=200_000, teacher_steps=40, teacher_guidance=4.5),
    training=Training(iterations=3000, batch=64, rank=64, block=11, gradient_checkpointing=True),
)

_SD35_LARGE = Config(
    name="sd35-large",
    model=SOURCES["sd35-large"].model,
    schedule=SOURCES["sd35-large"].schedule,
    recipe=PAPER,
    data=Data(num_images=200_000, teacher_steps=28, teacher_guidance=4.5),
    training=Training(iterations=3000, batch=24, rank=64, block=20, gradient_checkpointing=True),
)

PRESETS = {
    preset.name: replace(preset, out=Path("runs") / preset.name) for preset in (_TINY, _SD35_MEDIUM, _SD35_LARGE)
}
