"""Named runs: the paper's settings where it states them, the authors' where it does not."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from swd_distill.config import Config, Data, Training
from swd_losses import PAPER, RELEASED
from swd_sample.presets import SOURCES


def _preset(name: str, **settings: Any) -> Config:
    """Return settings with the model and the schedule of `name`."""
    return Config(name=name, **asdict(SOURCES[name]), **settings)


_TINY = _preset(
    "tiny",
    recipe=replace(PAPER, dmd_weight=0.0, gan_weight=0.0),
    data=Data(num_images=1024, teacher_steps=28, teacher_guidance=3.0, batch=32),
    training=Training(
        iterations=700, batch=16, rank=32, block=3, lr=1e-3, fake_lr=1e-3, warmup=20, decay=True, clip=1.0,
        save_every=250, sample_every=250,
    ),
)  # fmt: skip

# The full loss, for those who have half an hour.
_TINY_LONG = replace(
    _TINY,
    name="tiny-long",
    recipe=replace(PAPER, guidance=_TINY.data.teacher_guidance, fake_updates=2),
    data=replace(_TINY.data, num_images=2000),
    training=replace(_TINY.training, iterations=1200),
)

# The paper's space-time schedule in small, on the embedded video teacher: two clips of each of its 375 prompts.
_TINY_VIDEO = replace(
    _TINY,
    name="tiny-video",
    **asdict(SOURCES["tiny-video"]),
    data=replace(_TINY.data, num_images=750),
    training=replace(_TINY.training, iterations=2000),
)

# All of a family's code on a random model: minutes to try a machine, an installation or a change.
_TRIAL = _preset(
    "tiny-flux",
    recipe=replace(PAPER, fake_updates=2),
    data=Data(num_images=16, teacher_steps=4, batch=4),
    training=Training(iterations=10, batch=2, rank=4, block=1, lr=1e-4, fake_lr=1e-4, save_every=5, sample_every=5),
)

# Appendix A: "3-4K iterations", the lower end. Batches are global, as the paper gives them.
_PAPER_TRAINING = Training(iterations=3000, batch=24, rank=64)
# The paper says not how many images it had. As many as the student sees: iterations x batch.
_IMAGES, _MORE_IMAGES = 72_000, 192_000

_SD35_MEDIUM = _preset(
    "sd35-medium",
    recipe=PAPER,
    data=Data(num_images=_MORE_IMAGES, teacher_steps=40, teacher_guidance=4.5),
    training=replace(_PAPER_TRAINING, batch=64, block=11),
)
_SD35_LARGE = _preset(
    "sd35-large",
    recipe=PAPER,
    data=Data(num_images=_IMAGES, teacher_steps=28, teacher_guidance=4.5),
    training=replace(_PAPER_TRAINING, block=20),
)
_FLUX = _preset(
    "flux",
    recipe=PAPER,
    data=Data(num_images=_IMAGES, teacher_steps=30, teacher_guidance=5.0),
    training=replace(_PAPER_TRAINING, rank=128, block=15),
)
_WAN = _preset(
    "wan",
    recipe=PAPER,
    # The paper says "standard configuration": that of diffusers' WanPipeline.
    data=Data(num_images=_IMAGES, teacher_steps=50, teacher_guidance=5.0, batch=1),
    training=replace(_PAPER_TRAINING, rank=128, block=15),
)
_SDXL = _preset(
    "sdxl",
    # The authors' SDXL adapters were trained with MMD alone. The rest of its settings is published nowhere: those of
    # SD3.5 Medium, and the middle of the U-Net.
    recipe=replace(PAPER, dmd_weight=0.0, gan_weight=0.0),
    data=Data(num_images=_MORE_IMAGES, teacher_steps=50, teacher_guidance=5.0),
    training=replace(_PAPER_TRAINING, batch=64, block=3),
)


# Outside the paper, nobody has published a scale-wise recipe for these: all settings are ours. Rank and batch as of the
# paper's models of their size, steps and guidance as their cards recommend, features from about the middle. Z-Image
# calls a guidance of 5 4.
_QWEN = _preset(
    "qwen-image",
    recipe=replace(PAPER, guidance=4.0),
    data=Data(num_images=_IMAGES, teacher_steps=50, teacher_guidance=4.0),
    training=replace(_PAPER_TRAINING, rank=128, block=30),
)
_Z_IMAGE = _preset(
    "z-image",
    recipe=replace(PAPER, guidance=5.0),
    data=Data(num_images=_IMAGES, teacher_steps=40, teacher_guidance=5.0),
    training=replace(_PAPER_TRAINING, block=18),
)
_KLEIN = _preset(
    "flux2-klein-4b",
    recipe=replace(PAPER, guidance=4.0),
    data=Data(num_images=_IMAGES, teacher_steps=50, teacher_guidance=4.0),
    training=replace(_PAPER_TRAINING, block=10),
)
_WAN22_A14B = _preset(
    "wan22-a14b",
    # Its card guides the high-noise expert by 4 and the low-noise one by 3: here one number is for both.
    recipe=replace(PAPER, guidance=3.5),
    data=Data(num_images=_IMAGES, teacher_steps=40, teacher_guidance=3.5, batch=1),
    training=replace(_PAPER_TRAINING, rank=128, block=20),
)
_WAN22 = _preset(
    "wan22-5b",
    recipe=replace(PAPER, guidance=5.0),
    data=Data(num_images=_IMAGES, teacher_steps=50, teacher_guidance=5.0, batch=1),
    training=replace(_PAPER_TRAINING, rank=128, block=15),
)


def _like(preset: Config, name: str, **changes: Any) -> Config:
    """Return another preset's settings with the model and the schedule of `name`."""
    return replace(preset, name=name, **asdict(SOURCES[name]), **changes)


PRESETS = {
    preset.name: replace(preset, out=Path("runs") / preset.name)
    for preset in (
        _TINY,
        _TINY_LONG,
        _TINY_VIDEO,
        _TRIAL,
        _like(_TRIAL, "tiny-wan"),
        _like(_TRIAL, "tiny-wan22"),
        _like(_TRIAL, "tiny-wan22-a14b"),
        _like(_TRIAL, "tiny-sdxl", training=replace(_TRIAL.training, block=3)),
        _like(_TRIAL, "tiny-flux2"),
        _like(_TRIAL, "tiny-qwen"),
        _like(_TRIAL, "tiny-zimage", training=replace(_TRIAL.training, block=3)),
        _SD35_MEDIUM,
        _like(
            _SD35_MEDIUM,
            "sd35-medium-released",
            recipe=RELEASED,
            data=replace(_SD35_MEDIUM.data, text_tokens=512),
            training=replace(_SD35_MEDIUM.training, lr=5e-6, fake_lr=5e-6),
        ),
        _SD35_LARGE,
        _like(
            _SD35_LARGE,
            "sd35-large-released",
            recipe=replace(RELEASED, guidance=4.5),
            data=replace(_SD35_LARGE.data, num_images=128_000, text_tokens=512),
            training=replace(_SD35_LARGE.training, iterations=4000, batch=32, lr=5e-6, fake_lr=5e-6),
        ),
        _FLUX,
        _like(_FLUX, "flux-released"),
        _WAN,
        _like(_WAN, "wan-spatial"),
        _SDXL,
        _KLEIN,
        _like(_KLEIN, "flux2-klein-9b", training=replace(_KLEIN.training, rank=128, block=12)),
        _QWEN,
        _Z_IMAGE,
        _WAN22,
        _WAN22_A14B,
    )
}
