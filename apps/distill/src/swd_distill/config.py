"""A run as data: one frozen config, from a named preset and flags."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swd_data import is_hub_id
from swd_losses import Recipe
from swd_schedules import ScaleSchedule, Stage, presets

Base = Literal["bf16", "int8", "fp8", "nf4"]
Optimizer = Literal["auto", "adamw", "adamw-8bit"]
TextDtype = Literal["model", "float8_e4m3fn"]


@dataclass(frozen=True)
class Data:
    """The teacher's images: what is distilled."""

    prompts: Path | None = None
    """Prompts: .txt with one a line, .jsonl or .csv with a text column. Default: those of the embedded teacher."""
    images: Path | None = None
    """Images instead of generating OUT/images: a folder (metadata.jsonl or .csv with file_name and text), or what
    Hugging Face `datasets` loads: OWNER/NAME of the hub, a folder of parquet files (image; text, prompt or caption)."""
    streaming: bool = False
    """Read what `datasets` loads as it comes, up to --data.num-images, instead of downloading all of it first."""
    num_images: int = 100_000
    """Images to generate, prompt after prompt."""
    images_per_prompt: int = 50
    """Images of a prompt at most: of few prompts come fewer than --data.num-images. 0: as many as that says."""
    teacher_steps: int = 40
    """The teacher's sampling steps."""
    teacher_guidance: float = 4.5
    """The teacher's classifier-free guidance."""
    batch: int = 8
    """Images generated or encoded at a time."""
    compile: str | None = None
    """Backend of torch.compile for the teacher's blocks in `generate` ("inductor")."""
    max_bad: float = 0.01
    """Share of the samples that may be bad: they are left out and listed in skipped.jsonl of the cache. 0: none may."""
    verify: bool = True
    """Compare the cache with its checksums when training opens it: some seconds for 10 GB."""
    background: str = "white"
    """What shows through transparent images: a name or #rrggbb."""
    buckets: tuple[str, ...] = ()
    """Shapes of images as WIDTH:HEIGHT, for example 1:1 4:3 3:4, each of the schedule's areas. Default: its own."""
    text_tokens: int | None = None
    """Tokens of T5, or its like, that prompts are cut or padded to, at most 512. Default: the pipeline's own, 256 of
    SD3 and 512 of the others."""
    text_dtype: TextDtype = "model"
    """How the cache holds text: as the model's numbers, or in a byte each, with one scale a token."""
    on_the_fly: bool = False
    """Train without a cache: autoencoder and text encoders stay on the device and encode each batch from its images."""


@dataclass(frozen=True)
class Training:
    """How student and fake model are trained."""

    iterations: int = 3000
    """Updates of the student."""
    batch: int = 8
    """Samples an update, over all processes."""
    accumulate: int = 1
    """Shares into which each process splits its part of a batch, one after the other: less memory, the same numbers."""
    rank: int = 64
    """LoRA rank; alpha is the same."""
    block: int = 11
    """Transformer block, counted from 0, whose features feed MMD and GAN."""
    lr: float = 4e-6
    """Learning rate of the student."""
    fake_lr: float = 4e-6
    """Learning rate of fake model and head."""
    warmup: int = 0
    """Updates over which the learning rates rise from zero."""
    decay: bool = False
    """Let the learning rates fall to zero along a cosine."""
    clip: float = 10.0
    """Largest norm of a network's gradient."""
    ema: float = 0.0
    """Decay of an average of the student, which is then what samples and `lora/` show; 0 keeps none."""
    max_skips: int = 10
    """Updates with a gradient that is not finite are skipped; so many in a row stop the run."""
    reuse_rollout: bool = False
    """Approximate: all fake updates of an iteration see the same samples of the student; saves a forward each."""
    shard_base: bool = False
    """Split the frozen base over the processes: for one that does not fit a GPU; slower."""
    base: Base = "bf16"
    """How the frozen base is held, in all stages: bf16 is --training.dtype; int8, fp8 and nf4 hold the blocks' linear
    layers in a byte or half of one (extra `quantized`), for cards of 24 GB and less. Adapters stay as they are."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Of the frozen base; auto: bfloat16 on a GPU (float16 where it has none), float32 on the CPU. What is trained is
    float32."""
    optimizer: Optimizer = "auto"
    """adamw-8bit holds its moments in a byte each (torchao). auto: that on a CUDA device of less than 24 GB,
    where torchao and triton are there."""
    compile: str | None = None
    """Backend of torch.compile for the blocks ("inductor"): each kind at most eight times, whatever the sizes."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Where metrics and sample grids go beside metrics.jsonl."""
    checkpointing: Literal["auto", "all", "none"] | int = "auto"
    """Blocks of a pass that are recomputed in backward, or how many of them: less memory, up to a third more time.
    auto: the fewest that fit the accelerator, by what `plan` counts."""
    save_every: int = 500
    """Updates between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    sample_every: int = 500
    """Updates between sample grids."""


@dataclass(frozen=True)
class Evaluation:
    """What swd-eval (extra `eval`) measures of the student while it trains, in OUT/evaluation."""

    metrics: tuple[str, ...] = ()
    """As of `swd-eval images` or `videos`, for example fd-lite0 kid-lite0 diagnostics pickscore. Default: none."""
    prompts: Path | None = None
    """Prompts: .txt, .jsonl or .csv. Default: unseen ones where the model brings some, else the first of training."""
    num: int = 128
    """Prompts, a sample each."""
    ref: Path | None = None
    """Reference: images, results of swd-eval or an .npz. Default: the run's images."""
    every: int = 1000
    """Updates between evaluations; one comes after the last update too."""
    weights: Path = Path("weights")
    """Folder of the weights that metrics need; what is on the Hugging Face hub is put there."""


@dataclass(frozen=True)
class Config:
    """A distillation run."""

    name: str
    """The preset's name."""
    model: str
    """A diffusers directory or hub id of the teacher; "embedded" ships with swd-models."""
    schedule: str
    """A preset of swd-schedules, a JSON file, or 1000:64x64,896:80x80,..."""
    recipe: Recipe
    """Losses and their weights."""
    data: Data = field(default_factory=Data)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    out: Path = Path("runs")
    """The run folder; everything of the run is inside."""
    teacher_lora: tuple[str, ...] = ()
    """LoRAs, PATH or PATH:WEIGHT, merged into the model: a teacher of one's own. A file, a folder or a hub id each; for
    a model of two experts a folder with high-noise and low-noise."""
    init_lora: str | None = None
    """A LoRA that the student begins as: a file, a folder or a hub id, as of --teacher-lora. Default: it begins as the
    teacher."""
    seed: int = 0
    """Source of all randomness."""
    device: str = "auto"
    """Where to compute: cuda, cuda:1, xpu, mps or cpu. auto: the accelerator that torch finds, else the CPU."""
    dry_run: bool = False
    """Print what would be done and what it takes, the stages and the resolved config, and stop."""
    yes: bool = False
    """Begin work of days without asking."""

    @property
    def scales(self) -> ScaleSchedule:
        """Resolve the schedule."""
        return presets.resolve(self.schedule)

    def halves(self, boundary: float) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
        """Return the stages of the two experts of a model, whose noise levels have this boundary, the noisier first.

        Raises:
            ValueError: an expert without a stage.
        """
        both = self.scales.within(boundary, 1.0), self.scales.within(0.0, boundary)
        if not all(both):
            raise ValueError(
                f"expected stages for both experts of {self.model}, whose boundary is at timestep "
                f"{1000 * boundary:g}, got {self.scales}: choose another --schedule"
            )
        return both

    @property
    def images(self) -> Path:
        """Return the image folder."""
        return self.data.images or self.out / "images"

    @property
    def cache(self) -> Path:
        """Return the folder of cached latents and text."""
        return self.out / "cache"

    @property
    def needs_fake(self) -> bool:
        """Tell whether any loss trains a fake model; MMD alone does not, and takes the teacher's features."""
        recipe = self.recipe
        return bool(recipe.dmd_weight or recipe.gan_weight)

    @property
    def chooses_blocks(self) -> bool:
        """Tell whether the fewest blocks that fit are recomputed: of a split base, or with encoders beside it, all."""
        training = self.training
        return training.checkpointing == "auto" and not (training.shard_base or self.data.on_the_fly)

    def to_json(self) -> dict[str, Any]:
        """Return the config as JSON data, the schedule resolved."""
        data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return data | {"schedule": json.loads(self.scales.to_json())}

    def _check_floats(self) -> None:
        """Raise ValueError for what is no number, or below zero where that means nothing."""
        for group, values in {"data": self.data, "training": self.training, "recipe": self.recipe}.items():
            for name, value in vars(values).items():
                flag = f"--{group}.{name.replace('_', '-')}"
                if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                    raise ValueError(f"expected {flag} of at least 0, got {value:g}")
                if name in ("lr", "clip", "rbf_bandwidth") and value == 0:
                    raise ValueError(f"expected {flag} above 0, got 0: nothing would be learnt")
        counts = {
            "training.warmup": self.training.warmup,
            "recipe.fake-updates": self.recipe.fake_updates,
            "data.images-per-prompt": self.data.images_per_prompt,
        }
        for flag, count in counts.items():
            if count < 0:
                raise ValueError(f"expected --{flag} of at least 0, got {count}")
        if self.data.max_bad >= 1:
            raise ValueError(f"expected --data.max-bad below 1, a share, got {self.data.max_bad:g}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"expected --seed of at least 0 and below 2^63, got {self.seed}")

    def _check_losses(self) -> None:
        """Raise ValueError for losses that cannot be together."""
        recipe = self.recipe
        if not (recipe.mmd_weight or recipe.dmd_weight or recipe.gan_weight):
            raise ValueError("expected a loss with a weight, got none: pass --recipe.mmd-weight 1")
        if recipe.gan_weight and not recipe.fake_updates:
            raise ValueError(
                "expected --recipe.fake-updates of at least 1 with a GAN, got 0: or pass --recipe.gan-weight 0"
            )
        if recipe.balance and not recipe.mmd_weight:
            raise ValueError(
                "expected --recipe.mmd-weight above 0, got 0: the other weights are shares of its gradient, unless "
                "--recipe.no-balance is given"
            )
        if recipe.gan_sample == "dmd" and recipe.gan_weight and not recipe.dmd_weight:
            raise ValueError(
                "expected --recipe.dmd-weight above 0 where the GAN takes DMD's sample (--recipe.gan-sample dmd), "
                "got 0: pass --recipe.gan-sample own, or --recipe.gan-weight 0"
            )
        if recipe.gan_rise < 0:
            raise ValueError(f"expected --recipe.gan-rise of at least 0, got {recipe.gan_rise}")

    def check(self) -> None:
        """Raise ValueError for numbers and flags that cannot be, whatever the model."""
        positive = {
            "data.num-images": self.data.num_images,
            "data.teacher-steps": self.data.teacher_steps,
            "data.batch": self.data.batch,
            "training.iterations": self.training.iterations,
            "training.batch": self.training.batch,
            "training.accumulate": self.training.accumulate,
            "training.checkpointing": self.training.checkpointing
            if isinstance(self.training.checkpointing, int)
            else 1,
            "training.max-skips": self.training.max_skips,
            "training.keep": self.training.keep,
            "training.rank": self.training.rank,
            "training.save-every": self.training.save_every,
            "training.sample-every": self.training.sample_every,
            "evaluation.num": self.evaluation.num,
            "evaluation.every": self.evaluation.every,
        }
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"expected --{name} of at least 1, got {value}")
        self._check_floats()
        self._check_losses()
        if self.training.base != "bf16" and self.training.shard_base:
            raise ValueError(
                f"expected --training.base bf16 with --training.shard-base, got {self.training.base}: a quantised base "
                "is held whole by each process"
            )
        if self.training.shard_base and self.training.compile:
            raise ValueError("expected --training.compile or --training.shard-base, got both: leave one out")
        if not 0 <= self.training.ema < 1:
            raise ValueError(f"expected --training.ema of at least 0 and below 1, got {self.training.ema:g}")
        if self.data.on_the_fly and self.data.streaming:
            raise ValueError(
                "expected samples in any order with --data.on-the-fly, got --data.streaming: leave one out"
            )
        if self.data.images and not self.data.images.is_dir() and not is_hub_id(self.data.images):
            raise ValueError(
                f"expected a folder of images, got {self.data.images}: check --data.images, where OWNER/NAME is a data "
                "set of the hub"
            )
