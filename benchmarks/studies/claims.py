"""What is compared with what: students of the embedded teachers, and the paper's claims about them in miniature."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.studies.study import Claim, Study
from swd_distill.config import Base, Config
from swd_distill.presets import PRESETS
from swd_losses import PAPER, RELEASED

TINY, LONG = PRESETS["tiny"], PRESETS["tiny-long"]
SHORT = replace(TINY, training=replace(TINY.training, iterations=350, sample_every=350))
FULL = replace(LONG, data=TINY.data, training=SHORT.training)


def _losses(base: Config, **recipe: Any) -> Config:
    return replace(base, recipe=replace(base.recipe, **recipe))


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
        "tiny-long-mmd": _losses(LONG, dmd_weight=0.0, gan_weight=0.0),
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
        Claim(
            "At equal steps, scale-wise is as good as full scale (tables 4 and 7)",
            "scale-wise, 4 steps", "full scale, 4 steps", margin=0.02,
        ),
        Claim(
            "At about equal cost, scale-wise in 4 steps is better than full scale in 2",
            "scale-wise, 4 steps", "full scale, 2 steps",
        ),
        Claim("Growing is better than staying small (table 9)", "scale-wise, 4 steps", "constant 8, then 16"),
        Claim("Shifted timesteps are better than lower ones", "scale-wise, 4 steps", "lower timesteps"),
    ),
    seeds={"scale-wise, 4 steps": 8, "full scale, 4 steps": 8, "full scale, 2 steps": 8},
)  # fmt: skip

# Table 6, and the choices in which paper and authors' code differ. Adam does not care about the scale of a loss alone.
LOSSES = Study(
    "losses",
    "Losses (table 6)",
    {
        "MMD alone": SHORT,
        "MMD + DMD + GAN": FULL,
        "DMD + GAN": _losses(FULL, mmd_weight=0.0),
        "MMD alone, RBF kernel": _losses(SHORT, mmd_kernel="rbf"),
        "MMD alone, pseudo-Huber": _losses(SHORT, mmd_kernel="huber"),
        "MMD alone, mean over the batch (B)": _losses(SHORT, mmd_pooling="batch"),
        "MMD alone, clean (C)": _losses(SHORT, mmd_noised=False),
        # A weight that moves nothing: without a loss that asks for it, no fake model is trained.
        "MMD alone, features of the fake model": _losses(
            SHORT, balance=False, mmd_features="fake", fake_updates=1, dmd_weight=1e-12
        ),
        # Their kernel is a mean as their other losses are: with it, their weights balance these.
        "released recipe": replace(FULL, recipe=replace(RELEASED, guidance=FULL.recipe.guidance, fake_updates=2)),
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
        Claim("The paper's recipe is as good as the released one", "MMD + DMD + GAN", "released recipe", margin=0.02),
    ),
)  # fmt: skip

# What no table of the paper shows: what the cheaper, approximate ways cost in quality.
LEVERS = Study(
    "levers",
    "Cheaper iterations (in no table)",
    {
        "MMD + DMD + GAN": FULL,  # as in the study of losses: trained once
        "5 fake updates": _losses(FULL, fake_updates=5),
        "1 fake update": _losses(FULL, fake_updates=1),
        "one rollout": replace(FULL, training=replace(FULL.training, reuse_rollout=True)),
    },
    (
        Claim("Two fake updates are as good as five", "MMD + DMD + GAN", "5 fake updates", margin=0.02),
        Claim("One rollout for all fake updates is as good", "one rollout", "MMD + DMD + GAN", margin=0.02),
    ),
)

# The paper upscales by bicubic and compares nothing. Of bilinear, nearest and dct each is trained with itself.
UPSCALERS = Study(
    "upscalers",
    "Upscalers (in no table)",
    {"bicubic": SHORT} | {each: replace(SHORT, schedule=f"tiny-4,{each}") for each in ("bilinear", "nearest", "dct")},
    (
        Claim("Bicubic is better than bilinear", "bicubic", "bilinear"),
        Claim("Bicubic is better than nearest", "bicubic", "nearest"),
        Claim("Bicubic is as good as zero-padding the DCT", "bicubic", "dct", margin=0.02),
    ),
)


def _full(base: Config, dmd: float, gan: float, **recipe: Any) -> Config:
    """Return a student with all three losses, DMD and GAN by shares unless the recipe says otherwise."""
    recipe = {"guidance": 3.0, "fake_updates": 2, "dmd_weight": dmd, "gan_weight": gan} | recipe
    return replace(base, recipe=replace(PAPER, **recipe))


# Shares of MMD's gradient against weights tuned by hand for a teacher: as long as tiny-long, then 350 iterations.
BALANCE = Study(
    "balance",
    "Balance: shares against weights (in no table)",
    {
        "by hand, 30 and 1": LONG,
        "shares .1 and .03": _full(LONG, 0.1, 0.03),
        "shares .3 and .03": _full(LONG, 0.3, 0.03),
        "shares .5 and .03": _full(LONG, 0.5, 0.03),
    },
    (
        Claim("Shares are as good as weights tuned by hand", "shares .3 and .03", "by hand, 30 and 1", margin=0.02),
        Claim("A smaller share of DMD is as good", "shares .1 and .03", "shares .3 and .03", margin=0.02),
    ),
)
SHARES = Study(
    "shares",
    "Shares of DMD (in no table)",
    {f"DMD {dmd:g}, GAN 0.03": _full(FULL, dmd, 0.03) for dmd in (0.1, 0.3, 1.0)},
)


def _over(student: Config) -> dict[str, Config]:
    """Return a student over each base; `students` judges those of a quantised one over the full base too."""
    bases: tuple[Base, ...] = ("bf16", "int8", "fp8", "nf4")
    return {f"over {base}": replace(student, training=replace(student.training, base=base)) for base in bases}


VIDEO = PRESETS["tiny-video"]
SHORT_VIDEO = replace(VIDEO, training=replace(VIDEO.training, iterations=1000, sample_every=1000))


# Of weights of 10, 30 and 100, tried on one seed, 100 was the best by hand. There, shares of .1 and .03 were .02 below
# it, and .3 and .1 were as .3 and .03: the GAN's share hardly matters. Shares of .4 and .03 are between its rows
# (kid x 1000 205.3, fd 166.6).
VIDEO_BALANCE = Study(
    "video-balance",
    "Balance on the video teacher: shares against weights (in no table)",
    {
        "by hand, 100 and 1": _full(SHORT_VIDEO, 100.0, 1.0, balance=False, gan_rise=0),
        "shares .3 and .03": _full(SHORT_VIDEO, 0.3, 0.03),
        "shares .5 and .03": _full(SHORT_VIDEO, 0.5, 0.03),
    },
    (Claim("Shares are as good as weights tuned by hand", "shares .3 and .03", "by hand, 100 and 1", margin=0.02),),
    repeats=4,
)

# What no table of the paper shows: what a base in fewer bits costs.
BASES = Study(
    "bases",
    "Students over a base in fewer bits (in no table)",
    _over(SHORT),
    tuple(
        Claim(f"A student over {base} is as good", f"over {base}", "over bf16", margin=margin)
        for base, margin in (("int8", 0.02), ("fp8", 0.02), ("nf4", 0.04))
    ),
)
VIDEO_BASES = Study(
    "video-bases", "Video students over a base in fewer bits (in no table)", _over(SHORT_VIDEO), repeats=4
)


def _of(images: int, prompts: int | None = None) -> Config:
    """Return a student of fewer or more of the teacher's images: a prompt each, or the first prompts over and over."""
    file = Path("benchmarks/prompts") / f"{prompts}.txt" if prompts else None
    return replace(SHORT, data=replace(SHORT.data, num_images=images, images_per_prompt=0, prompts=file))


# What the paper does not vary: of how many prompts and images of the teacher a student learns.
DATA = Study(
    "data",
    "How many images, of how many prompts (in no table)",
    {
        "1024 images of 1024 prompts": SHORT,
        "2000 images of 2000 prompts": _of(2000),
        "256 images of 256 prompts": _of(256),
        "64 images of 64 prompts": _of(64),
        "1024 images of 64 prompts": _of(1024, 64),
        "1024 images of 8 prompts": _of(1024, 8),
    },
    (
        Claim("Twice the images are better", "2000 images of 2000 prompts", "1024 images of 1024 prompts"),
        Claim(
            "A quarter of the images is as good",
            "256 images of 256 prompts", "1024 images of 1024 prompts", margin=0.02,
        ),
        Claim(
            "A sixteenth of the images is as good",
            "64 images of 64 prompts", "1024 images of 1024 prompts", margin=0.02,
        ),
        Claim(
            "Of 64 prompts, 16 images of each are better than one", "1024 images of 64 prompts",
            "64 images of 64 prompts",
        ),
        Claim(
            "Of as many images, 64 prompts are as good as 1024",
            "1024 images of 64 prompts", "1024 images of 1024 prompts", margin=0.02,
        ),
        Claim(
            "Of as many images, 8 prompts are as good as 1024",
            "1024 images of 8 prompts", "1024 images of 1024 prompts", margin=0.02,
        ),
    ),
    advice="""What counts is the number of prompts: 8 are too few, even with 128 images of each, and 64 leave the
student farther from drawings than 1024. More images of the same prompts showed no gain, nor did more than some hundred
prompts.
So take as many different prompts as there are, of all that the student shall draw, and one image or a few of each.
Presets of real models make as many images as the student sees (updates x batch), and at most 50 of a prompt.

It holds for this teacher, whose captions combine some dozens of words, for 350 updates of 16 samples, MMD alone and a
LoRA of rank 32. Prompts of a real model differ far more: there, thousands are the least to begin with. The paper does
not say how many images it had; its training sees 72,000 to 192,000 (3,000 updates of 24 to 64).
""",
)  # fmt: skip

# What students lose: by loss, by the features and noise levels that MMD sees, by moments, by steps.
TEXTURE = Study(
    "texture",
    "Texture and spread: what students lose (in no table)",
    {
        "MMD alone": SHORT,
        "MMD alone, means and covariances": _losses(SHORT, mmd_kernel="moments"),
        "MMD alone, noise up to .3": _losses(SHORT, mmd_interval=(0.0, 0.3)),
        "MMD alone, block 1": replace(SHORT, training=replace(SHORT.training, block=1)),
        "MMD alone, EMA .99": replace(SHORT, training=replace(SHORT.training, ema=0.99)),
        "MMD alone, 700 updates": TINY,
        "MMD alone, 6 steps": replace(SHORT, schedule="1000:8x8,945:8x8,896:10x10,790:12x12,737:14x14,602:16x16"),
        "shares .3 and .03": _full(FULL, 0.3, 0.03),
        "shares .3 and .3": _full(FULL, 0.3, 0.3),
    },
    (
        Claim("Covariances too are as good", "MMD alone, means and covariances", "MMD alone", margin=0.02),
        Claim("The full loss is as good", "shares .3 and .03", "MMD alone", margin=0.02),
    ),
    looks=True,
)

STUDIES = {
    "scenes": SCENES,
    "data": DATA,
    "bases": BASES,
    "video-bases": VIDEO_BASES,
    "balance": BALANCE,
    "shares": SHARES,
    "video-balance": VIDEO_BALANCE,
    "clips": CLIPS,
    "schedules": SCHEDULES,
    "losses": LOSSES,
    "levers": LEVERS,
    "upscalers": UPSCALERS,
    "texture": TEXTURE,
}
