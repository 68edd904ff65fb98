"""What `swd-sample` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Options:
    """Sample images or videos from a run folder, or from a preset's base model with a LoRA."""

    source: tyro.conf.Positional[str]
    """A run folder of swd-distill, or the name of a preset, whose run is in runs/NAME."""
    prompts: tyro.conf.Positional[tuple[str, ...]]
    """Prompts."""
    prompts_file: Path | None = None
    """Prompts of a file instead: .txt with one a line, .jsonl or .csv with a text column. Then --out is a folder, which
    gets a file for each prompt, by a column file_name if there is one, and metadata.jsonl; those that are there are
    kept."""
    unseen: bool = False
    """Sample the prompts that judge a student: those that no training saw, where the model brings some, else the run's
    first 512. --out is then a folder, by default RUN/student, which `swd-eval images RUN` and `study` take."""
    batch: int = 8
    """Prompts of the file at a time."""
    lora: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """A LoRA instead of the run's: a file, a folder, or OWNER/NAME[/FILE] of the Hugging Face hub."""
    base_lora: tuple[str, ...] = ()
    """LoRAs, PATH or PATH:WEIGHT, merged into the base before; a path as of --lora. Default: the run's teacher's."""
    base: Literal["bf16", "int8", "fp8", "nf4"] | None = None
    """Hold the base in fewer bits (extra `quantized` of swd-models), with the LoRA apart. Default: as the run did."""
    model: str | None = None
    """A base model instead of the run's, for example a fine-tune: a diffusers directory or hub id of the family."""
    schedule: str | None = None
    """A schedule instead of the LoRA's: a preset's name, a JSON file, or 1000:64x64,896:80x80,..."""
    text_tokens: int | None = None
    """Tokens of T5, or its like, that prompts are cut or padded to, at most 512. Default: the LoRA's, else the model's.
    """
    steps: int | None = None
    """Keep this many stages of the schedule, the first and the last among them."""
    tiny: Path | None = None
    """Weights of a tiny autoencoder of the family (TAESD, TAEW and kin: a file or a folder). It decodes in the place of
    the model's own: faster, with less detail."""
    merge: bool = True
    """Add the LoRA to the base's weights when it is loaded: faster, and equal but for rounding."""
    compile: str | None = None
    """Backend of torch.compile for the blocks ("inductor"): for many samples; the first of each size takes minutes."""
    device: str = "auto"
    """Where to compute: cuda, cuda:1, xpu, mps or cpu. auto: the accelerator that torch finds, else the CPU."""
    seed: int = 0
    """Sample i is made from seed + i."""
    num_images_per_prompt: int = 1
    """Samples of each prompt, each from a seed of its own."""
    guidance_scale: float = 1.0
    """Above 1 for undistilled models: a student needs none."""
    stages: bool = False
    """Write a picture of what each step predicts, one below the other, instead of the sample."""
    out: Path | None = None
    """The image or video, by default sample.png or the first free one of sample-1.png, ...; of several prompts a grid.
    """
    demo: bool = False
    """Serve a page in the browser instead (extra `demo`): a prompt there becomes a sample, stage by stage. Prompts that
    are given stand there to choose. Without a LoRA it shows the undistilled model."""
    host: str = "127.0.0.1"
    """Address of --demo: this machine alone. 0.0.0.0 is all that can reach it."""
    port: int | None = None
    """Port of --demo. Default: the first free one from 7860."""
