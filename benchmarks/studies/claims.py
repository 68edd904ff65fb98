"""What is compared with what: students of the embedded teachers, and the paper's claims about them in miniature."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.studies.study import Claim, Study
from swd_distill.config import Config
from swd_distill.presets import PRESETS
from swd_losses import PAPER, RELEASED


def losses(base: Config, **recipe: Any) -> Config:
    """Return a student with other choices of its recipe."""
    return replace(base, recipe=replace(base.recipe, **recipe))


def full(base: Config, dmd: float, gan: float, **recipe: Any) -> Config:
    """Return a student with all three losses, DMD and GAN by shares in each sample unless the recipe says otherwise."""
    recipe = {"balance_over": "sample", "guidance": 3.0, "fake_updates": 2} | recipe
    return replace(base, recipe=replace(PAPER, dmd_weight=dmd, gan_weight=gan, **recipe))


def by_hand(base: Config, dmd: float, gan: float = 1.0) -> Config:
    """Return a student with all three losses, and weights that are tuned for its teacher."""
    return full(base, dmd, gan, balance=False, gan_rise=0)


TINY, LONG = PRESETS["tiny"], PRESETS["tiny-long"]
SHORT = replace(TINY, training=replace(TINY.training, iterations=350, sample_every=350))
FULL = replace(by_hand(LONG, 30.0), data=TINY.data, training=SHORT.training)

RELEASED_LOSSES = replace(RELEASED, guidance=3.0, fake_updates=2, gan_sample="own", stages="random")
"""Those of the authors' code, over noise, levels and stages as ours are drawn."""


def claims_of_schedules(constant: str) -> tuple[Claim, ...]:
    """Return the paper's claims about schedules; `constant` is the row that stays small until its last step."""
    return (
        Claim(
            "At equal steps, scale-wise is as good as full scale (tables 4 and 7)",
            "scale-wise, 4 steps", "full scale, 4 steps", margin=0.02,
        ),
        Claim(
            "At about equal cost, scale-wise in 4 steps is better than full scale in 2",
            "scale-wise, 4 steps", "full scale, 2 steps",
        ),
        Claim("Growing is better than staying small (table 9)", "scale-wise, 4 steps", constant),
    )  # fmt: skip


# `swd-spectral design runs/tiny/cache --smallest 8x8 --sizes 8x8 10x10 12x12 16x16 --out benchmarks/designed`
DESIGNED = Path(__file__).parents[1] / "designed"
SCENES = Study(
    "students",
    "Students of the embedded teacher",
    {
        "tiny": TINY,
        # .57 of the cells of full scale, tiny's own schedule .55.
        "tiny-designed": replace(TINY, schedule=str(DESIGNED / "smallest-sizes.json")),
        # The sizes of tiny's own schedule.
        "tiny-designed-timesteps": replace(TINY, schedule=str(DESIGNED / "lowest-timesteps.json")),
        "tiny-long": LONG,
        "tiny-long-mmd": losses(LONG, dmd_weight=0.0, gan_weight=0.0),
    },
)
CLIPS = Study("video-students", "Students of the embedded video teacher", {"tiny-video": PRESETS["tiny-video"]})

# Tables 4, 7 and 9. MMD alone, half of tiny's training: what is compared is the schedule.
SCHEDULES = Study(
    "schedules",
    "Schedules (tables 4, 7 and 9)",
    {
        "scale-wise, 4 steps": SHORT,
        "full scale, 4 steps": replace(SHORT, schedule="tiny-4-full"),
        "full scale, 2 steps": replace(SHORT, schedule="1000:16x16,737:16x16"),
        "scale-wise, 2 steps": replace(SHORT, schedule="1000:8x8,602:16x16"),
        "constant 8, then 16": replace(SHORT, schedule="1000:8x8,896:8x8,737:8x8,602:16x16"),
        "constant 12, then 16": replace(SHORT, schedule="1000:12x12,896:12x12,737:12x12,602:16x16"),
        "lower timesteps": replace(SHORT, schedule="1000:8x8,750:10x10,500:12x12,250:16x16"),
    },
    (
        *claims_of_schedules("constant 8, then 16"),
        Claim("Shifted timesteps are better than lower ones", "scale-wise, 4 steps", "lower timesteps"),
    ),
    seeds={"scale-wise, 4 steps": 8, "full scale, 4 steps": 8, "full scale, 2 steps": 8},
    advice="""At this size neither of the paper's two main claims holds in captions that are all right. What is wrong is
nearly always a shape: 8x8 latents are 16 tokens, too few for the arms of a cross. At equal cost the two measures
contradict each other: two full-scale steps get more captions right, four scale-wise steps are nearer to drawings, by
kid and fd.
""",
)  # fmt: skip

# Table 6, and the choices in which paper and authors' code differ. Adam does not care about the scale of a loss alone.
LOSSES = Study(
    "losses",
    "Losses (table 6)",
    {
        "MMD alone": SHORT,
        "MMD + DMD + GAN": FULL,
        "DMD + GAN": losses(FULL, mmd_weight=0.0),
        "MMD alone, RBF kernel": losses(SHORT, mmd_kernel="rbf"),
        "MMD alone, pseudo-Huber": losses(SHORT, mmd_kernel="huber"),
        "MMD alone, mean over the batch (B)": losses(SHORT, mmd_pooling="batch"),
        "MMD alone, clean (C)": losses(SHORT, mmd_noised=False),
        # A weight that moves nothing: without a loss that asks for it, no fake model is trained.
        "MMD alone, features of the fake model": losses(
            SHORT, balance=False, mmd_features="fake", fake_updates=1, dmd_weight=1e-12
        ),
        # Their kernel is a mean as their other losses are: with it, their weights balance these.
        "released losses": replace(FULL, recipe=RELEASED_LOSSES),
    },
    (
        Claim("With MMD the full loss is better than without", "MMD + DMD + GAN", "DMD + GAN"),
        Claim("MMD alone is as good as the full loss", "MMD alone", "MMD + DMD + GAN", margin=0.02),
        Claim(
            "The linear kernel is as good as RBF", "MMD alone", "MMD alone, RBF kernel", margin=0.02,
        ),
        Claim("Means of images are better than of the batch (B)", "MMD alone", "MMD alone, mean over the batch (B)"),
        Claim("Noised features are better than clean ones (C)", "MMD alone", "MMD alone, clean (C)"),
        Claim(
            "The teacher's features are as good as the fake model's", "MMD alone",
            "MMD alone, features of the fake model", margin=0.02,
        ),
        Claim("Eq. 2 is as good as pseudo-Huber", "MMD alone", "MMD alone, pseudo-Huber", margin=0.02),
        Claim(
            "The paper's losses are as good as the released ones", "MMD + DMD + GAN", "released losses", margin=0.02,
        ),
    ),
)  # fmt: skip
