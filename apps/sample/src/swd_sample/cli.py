"""`swd-sample RUN|PRESET "prompt" ...`: images or videos from a distilled student."""

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from swd_data import check_text, checksum, is_hub_id, output_names, read_prompts, shell
from swd_sample.environment import prepare_torch
from swd_sample.presets import SOURCES

if TYPE_CHECKING:
    from swd_sample.pipeline import SwDPipeline

IMAGE_SUFFIXES, VIDEO_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp"), (".mp4",)


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
    """Prompt i is sampled from seed + i."""
    out: Path | None = None
    """The image or video, by default sample.png or sample.mp4; for several prompts a grid."""
    demo: bool = False
    """Serve a page in the browser instead (extra `demo`): a prompt there becomes a sample, stage by stage. Prompts that
    are given stand there to choose. Without a LoRA it shows the undistilled model."""
    host: str = "127.0.0.1"
    """Address of --demo: this machine alone. 0.0.0.0 is all that can reach it."""
    port: int | None = None
    """Port of --demo. Default: the first free one from 7860."""


def sample(options: Options) -> str:
    """Load, sample, write; return the line for the user."""
    if options.batch < 1:
        raise ValueError(f"expected --batch of at least 1, got {options.batch}")
    if not 0 <= options.seed < 2**62:  # torch takes 64 bits, and prompt i adds i
        raise ValueError(f"expected --seed of at least 0 and below 2^62, got {options.seed}")
    if options.device != "auto":
        from swd_schedules.devices import find_device

        find_device(options.device)
    if options.compile:
        from swd_models.compiling import check_backend

        check_backend(options.compile)
    if options.demo:
        return _serve(options)
    if options.prompts_file is not None:
        return _sample_file(options, options.prompts_file)
    if not options.prompts or not all(prompt.strip() for prompt in options.prompts):
        raise ValueError('expected at least one prompt that is not empty: swd-sample tiny "a big red circle ..."')
    for number, prompt in enumerate(options.prompts, start=1):
        check_text(prompt, f"prompt {number}")
    if options.out is not None:
        _check_writable(options.out)
    pipe = _load(options, *_where(options))
    schedule = pipe.schedule if options.steps is None else pipe.schedule.thin(options.steps)
    is_video = len(schedule.sizes[-1]) == 3
    out = _out(options.out, is_video)
    began = time.perf_counter()
    media = pipe(options.prompts, seed=options.seed, schedule=schedule)
    seconds = (time.perf_counter() - began) / len(media)
    from swd_sample.grid import grid_of
    from swd_sample.media import save_media

    save_media(media[0] if len(media) == 1 else grid_of(media, options.prompts), out, pipe.fps, playable=True)
    return f"{out}: {len(media)} {'video' if is_video else 'image'}(s), {seconds:.3f} s each, {schedule}"


def _sample_file(options: Options, prompts_file: Path) -> str:
    """Sample each prompt of a file into a folder."""
    if options.prompts or options.out is None or options.out.is_file():
        given = "prompts too" if options.prompts else f"--out {options.out}"
        raise ValueError(f"expected --prompts-file with --out FOLDER and no other prompts, got {given}")
    prompts, names = read_prompts(prompts_file), output_names(prompts_file)
    model, lora = _where(options)
    pipe = _load(options, model, lora)
    schedule = pipe.schedule if options.steps is None else pipe.schedule.thin(options.steps)
    from swd_sample.folder import sample_folder

    is_video = len(schedule.sizes[-1]) == 3
    made = sample_folder(
        pipe,
        prompts,
        options.out,
        schedule=schedule,
        seed=options.seed,
        batch=options.batch,
        names=names,
        made_with={"model": model, "lora": _lora_checksums(model, lora), "base_lora": _base_loras(options)}
        | ({} if _base(options) == "bf16" else {"base": _base(options)})
        | ({} if options.text_tokens is None else {"text_tokens": options.text_tokens})
        | ({} if options.tiny is None else {"tiny": _checksums(options.tiny)}),
    )
    return f"{options.out}: {len(prompts)} {'video' if is_video else 'image'}(s), {made} of them new, {schedule}"


def _serve(options: Options) -> str:
    """Serve the page until it is interrupted."""
    from swd_sample.demo import Beside, check_gradio, launch, page, shipped_prompts, teacher_loader
    from swd_sample.pipeline import taught_with

    check_gradio()
    if options.prompts_file or options.out or options.compile:
        raise ValueError("expected --demo without --prompts-file, --out and --compile, got one of them: leave it out")
    run, model, lora = _run_of(options), _model(options), _lora(options)
    there = options.lora is not None or Path(lora).exists()
    pipe = _load(replace(options, merge=False), model, lora if there else None)
    if options.steps is not None:
        pipe.schedule = pipe.schedule.thin(options.steps)
    load = teacher_loader(model, pipe, loras=_base_loras(options), base=_base(options))
    beside = Beside(*taught_with(run), load) if run else Beside(load=load)
    prompts = options.prompts or shipped_prompts(model)
    launch(page(pipe, options.source, prompts=prompts, beside=beside), options.host, options.port)
    return "The page is closed."


def _lora_checksums(model: str, lora: str) -> str:
    """Return the checksum of a LoRA's file, or of those of two experts."""
    from swd_models.loading import experts_of
    from swd_models.lora.files import find_lora, lora_of

    return " ".join(checksum(find_lora(lora_of(lora, expert.name))) for expert in experts_of(model))


def _checksums(path: Path) -> str:
    """Return the checksums of a file, or of those of a folder."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    return " ".join(map(checksum, files))


def _run_of(options: Options) -> Path | None:
    """Return the run folder that was given, or that of a preset; None: a preset without one."""
    given, usual = Path(options.source), Path("runs") / options.source
    if (given / "config.json").is_file():
        return given
    if options.source not in SOURCES:
        raise ValueError(
            f"expected a run folder with config.json or one of {', '.join(SOURCES)}, got {options.source!r}"
        )
    return usual if (usual / "config.json").is_file() else None


def _where(options: Options) -> tuple[str, str]:
    """Return the base model and the LoRA of a run folder or a preset, or those that were given instead."""
    lora = _lora(options)
    if not Path(lora).exists() and not (options.lora and is_hub_id(options.lora, ".safetensors")):
        raise ValueError(
            f"expected a LoRA, got no {lora}: pass --lora PATH, or make one with `swd-distill run {options.source}`"
        )
    return _model(options), lora


def _lora(options: Options) -> str:
    """Return the LoRA that was given, else where that of the run is, or would be."""
    return options.lora or str((_run_of(options) or Path("runs") / options.source) / "lora")


def _model(options: Options) -> str:
    """Return the base model that was given, else that of the run or the preset."""
    from swd_sample.pipeline import model_of

    run = _run_of(options)
    return options.model or (SOURCES[options.source].model if run is None else model_of(run))


def _base_loras(options: Options) -> tuple[str, ...]:
    """Return those that were given, else the run's, unless another model takes its place."""
    run = _run_of(options)
    if options.base_lora or options.model or run is None:
        return options.base_lora
    from swd_sample.pipeline import base_loras_of

    return base_loras_of(run)


def _base(options: Options) -> Literal["bf16", "int8", "fp8", "nf4"]:
    """Return the base that was given, else the run's, unless another model takes its place."""
    run = _run_of(options)
    if options.base or options.model or run is None:
        return options.base or "bf16"
    from swd_sample.pipeline import base_of

    return base_of(run)


def _load(options: Options, model: str, lora: str | None) -> "SwDPipeline":
    from swd_models.loading import quiet
    from swd_sample.pipeline import SwDPipeline
    from swd_schedules import presets

    quiet()
    schedule = presets.resolve(options.schedule) if options.schedule else None
    preset = SOURCES.get(options.source)
    pipe = SwDPipeline.from_pretrained(
        model,
        lora=lora,
        base_loras=_base_loras(options),
        schedule=schedule,
        fallback=presets.resolve(preset.schedule) if preset else None,
        device=options.device,
        merge=options.merge,
        text_tokens=options.text_tokens,
        tiny=options.tiny,
        base=_base(options),
    )
    if options.compile:
        from swd_models.compiling import compiling

        print(compiling(options.compile, pipe.compile(options.compile)), file=sys.stderr)
    return pipe


def _out(out: Path | None, is_video: bool) -> Path:
    """Return the file to write, of a kind that holds what the model makes."""
    kinds = VIDEO_SUFFIXES if is_video else IMAGE_SUFFIXES
    if out is None:
        out = Path(f"sample{kinds[0]}")
        _check_writable(out)
    if out.suffix.lower() not in kinds:
        raise ValueError(f"expected --out to be a {' '.join(kinds)} file for a model of its kind, got {out}")
    return out


def _check_writable(out: Path) -> None:
    """Raise ValueError, before seconds are spent on loading, for a file that cannot be written."""
    if out.suffix.lower() not in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
        raise ValueError(f"expected --out to be a {' '.join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)} file, got {out}")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise ValueError(f"expected a folder that can be written, got {out.parent}: create it or choose another --out")


def main() -> None:
    """Run `swd-sample`; a user's error is one line and exit code 2."""
    options = tyro.cli(Options, prog="swd-sample")
    prepare_torch()
    shell("swd-sample", lambda: sample(options))
