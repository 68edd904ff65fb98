"""`swd-sample RUN|PRESET "prompt" ...`: images or videos from a distilled student."""

import os
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from swd_data import check_text, output_names, read_prompts, shell, typed
from swd_data.errors import out_of_memory
from swd_data.layout import STUDENT, teachers_of
from swd_data.prompts import SUFFIXES
from swd_models.logs import hush_imports
from swd_sample import source
from swd_sample.environment import prepare_torch
from swd_sample.options import Options
from swd_sample.words import tell_unknown

if TYPE_CHECKING:
    from swd_sample.pipeline import SwDPipeline
    from swd_schedules import ScaleSchedule

IMAGE_SUFFIXES, VIDEO_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp"), (".mp4",)


def sample(options: Options) -> str:
    """Load, sample, write; return the line for the user."""
    _check(options)
    if options.demo:
        return _serve(options)
    if options.unseen:
        return _sample_unseen(options)
    if options.prompts_file is not None:
        return _sample_file(options, options.prompts_file)
    return _sample_prompts(options)


def _check(options: Options) -> None:
    """Raise ValueError for numbers and names that cannot be."""
    if options.batch < 1:
        raise ValueError(f"expected --batch of at least 1, got {options.batch}")
    if options.num_images_per_prompt < 1:
        raise ValueError(f"expected --num-images-per-prompt of at least 1, got {options.num_images_per_prompt}")
    if not 0 <= options.seed < 2**62:  # torch takes 64 bits, and prompt i adds i
        raise ValueError(f"expected --seed of at least 0 and below 2^62, got {options.seed}")
    if options.device != "auto":
        from swd_schedules.devices import find_device

        find_device(options.device)
    if options.compile:
        from swd_models.compiling import check_backend

        check_backend(options.compile)


def _sample_prompts(options: Options) -> str:
    """Sample the prompts of the command line into one file."""
    if not options.prompts or not all(prompt.strip() for prompt in options.prompts):
        raise ValueError('expected at least one prompt that is not empty: swd-sample tiny "a big red circle ..."')
    for number, prompt in enumerate(options.prompts, start=1):
        if Path(prompt).suffix.lower() in SUFFIXES and Path(prompt).is_file():
            raise ValueError(f"expected a prompt, got the file {prompt}: pass --prompts-file {prompt} --out FOLDER")
        check_text(prompt, f"prompt {number}")
    if options.out is not None:
        _check_writable(options.out)
    model, lora = source.where(options)
    pipe = source.load(options, model, lora)
    tell_unknown(model, options.prompts)
    schedule = _schedule(pipe, options.steps)
    is_video = len(schedule.sizes[-1]) == 3
    out = _out(options.out, is_video and not options.stages)
    began = time.perf_counter()
    prompts = [prompt for prompt in options.prompts for _ in range(options.num_images_per_prompt)]
    how: dict[str, Any] = {"seed": options.seed, "guidance_scale": options.guidance_scale, "schedule": schedule}
    rows = {}
    for stage, x0 in pipe.stages(prompts, **how):
        if options.stages or stage == schedule.stages[-1]:
            rows[f"{stage.index + 1}: {'x'.join(map(str, stage.target))}"] = media = pipe.decode(x0)
    seconds = (time.perf_counter() - began) / len(media)
    from swd_sample.grid import grid, grid_of
    from swd_sample.media import save_media

    _compare(pipe, schedule)
    picture = grid(rows, prompts) if options.stages else media[0] if len(media) == 1 else grid_of(media, prompts)
    save_media(picture, out, pipe.fps, playable=True)
    return f"{out}: {len(media)} {'video' if is_video else 'image'}(s), {seconds:.3f} s each, {schedule}"


def _sample_unseen(options: Options) -> str:
    """Sample the prompts by which a student is judged."""
    if options.prompts or options.prompts_file:
        raise ValueError("expected --unseen without prompts, got some: leave them out, or pass --prompts-file alone")
    run = source.run_of(options)
    others = options.lora, options.model, options.schedule, options.base_lora, options.base, options.tiny
    as_trained = not any(others) and options.steps is None and options.text_tokens is None
    own = run / STUDENT if run and as_trained else None
    out = options.out or own
    if out is None:
        raise ValueError(
            "expected --out FOLDER with --unseen where no run samples as it was trained, with all that is its own, "
            "got none: name a folder"
        )
    text = _sample_folder(replace(options, out=out), source.unseen_prompts(options), None)
    kind = "videos" if any(out.glob("*.mp4")) else "images"
    try:
        against = ["--ref", str(run)] if run and teachers_of(run) else []
    except ValueError:  # its images are not in a folder
        against = []
    against = against or ["--metrics", "diagnostics"]
    given = run if run and out == own else out
    return f"{text}\nnext: {typed('swd-eval', kind, str(given), *against, '--out', f'{out}-measured')}"


def _sample_file(options: Options, prompts_file: Path) -> str:
    """Sample each prompt of a file into a folder."""
    if options.prompts or options.out is None:
        given = "prompts too" if options.prompts else "no --out"
        raise ValueError(f"expected --prompts-file with --out FOLDER and no other prompts, got {given}")
    return _sample_folder(options, read_prompts(prompts_file), output_names(prompts_file))


def _sample_folder(options: Options, prompts: list[str], names: list[str] | None) -> str:
    """Sample each prompt into a file of its own."""
    assert options.out is not None
    if options.out.is_file():
        raise ValueError(f"expected a folder as --out, got the file {options.out}: choose another")
    if options.stages or options.num_images_per_prompt > 1 or options.guidance_scale != 1.0:
        raise ValueError(
            "expected a folder of samples without --stages, --num-images-per-prompt and --guidance-scale, got one of "
            "them: leave it out"
        )
    model, lora = source.where(options)
    pipe = source.load(options, model, lora)
    tell_unknown(model, prompts)
    schedule = _schedule(pipe, options.steps)
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
        made_with={"model": model, "lora": source.lora_checksums(model, lora), "base_lora": source.base_loras(options)}
        | source.base_checksums(options)
        | ({} if source.base(options) == "bf16" else {"base": source.base(options)})
        | ({} if options.text_tokens is None else {"text_tokens": options.text_tokens})
        | ({} if options.tiny is None else {"tiny": source.checksums(options.tiny)}),
    )
    _compare(pipe, schedule)
    return f"{options.out}: {len(prompts)} {'video' if is_video else 'image'}(s), {made} of them new, {schedule}"


def _serve(options: Options) -> str:
    """Serve the page until it is interrupted."""
    from swd_sample.demo import Beside, check_gradio, launch, page, shipped_prompts, teacher_loader
    from swd_sample.pipeline import taught_with

    check_gradio()
    if options.prompts_file or options.out or options.compile or options.unseen:
        raise ValueError(
            "expected --demo without --prompts-file, --unseen, --out and --compile, got one of them: leave it out"
        )
    if options.stages or options.num_images_per_prompt > 1 or options.guidance_scale != 1.0 or options.seed:
        raise ValueError(
            "expected --demo without --stages, --num-images-per-prompt, --guidance-scale and --seed, got one of them: "
            "leave it out, the page has what there is to choose"
        )
    run, model, lora = source.run_of(options), source.model(options), source.lora(options)
    there = options.lora is not None or Path(lora).exists()
    pipe = source.load(replace(options, merge=False), model, lora if there else None)
    pipe.schedule = _schedule(pipe, options.steps)
    load = teacher_loader(model, pipe, loras=source.base_loras(options), base=source.base(options))
    beside = Beside(*taught_with(run), load) if run else Beside(load=load)
    prompts = options.prompts or shipped_prompts(model)
    launch(page(pipe, options.source, prompts=prompts, beside=beside), options.host, options.port)
    return "The page is closed."


def _schedule(pipe: "SwDPipeline", steps: int | None) -> "ScaleSchedule":
    """Return the schedule to sample with."""
    return pipe.schedule if steps is None else pipe.schedule.thin(steps)


def _compare(pipe: "SwDPipeline", schedule: "ScaleSchedule") -> None:
    """Say where a schedule is not that of training."""
    if pipe.learnt is not None and schedule != pipe.learnt:
        print(f"this LoRA was trained with {pipe.learnt}: other steps draw worse", file=sys.stderr)


def _out(out: Path | None, is_video: bool) -> Path:
    """Return the file to write, of a kind that holds what the model makes."""
    kinds = VIDEO_SUFFIXES if is_video else IMAGE_SUFFIXES
    if out is None:
        names = (f"sample{(number and -number) or ''}{kinds[0]}" for number in count())
        out = next(path for path in map(Path, names) if not path.exists())
        _check_writable(out)
    if out.suffix.lower() not in kinds:
        what = "this model makes videos" if is_video else "it is a picture"
        raise ValueError(f"expected --out to end in {' or '.join(kinds)}, for {what}, got {out}: name it so")
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
    hush_imports()
    advice = "give it less, by --base int8 or a smaller --batch, or take --device cpu"
    shell("swd-sample", lambda: sample(options), out_of_memory(advice))
