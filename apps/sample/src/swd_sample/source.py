"""What a command line names: a run or a preset, its model, its LoRA, its base; and the pipeline of them."""

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from swd_data import checksum, is_hub_id, read_prompts
from swd_data.layout import IMAGES, is_run
from swd_sample.options import Options
from swd_sample.presets import SOURCES

if TYPE_CHECKING:
    from swd_sample.pipeline import SwDPipeline


MOST = 512
"""Of a run's own prompts."""


def run_of(options: Options) -> Path | None:
    """Return the run folder that was given, or that of a preset; None: a preset without one."""
    given, usual = Path(options.source), Path("runs") / options.source
    if (given / "config.json").is_file():
        return given
    if options.source not in SOURCES:
        run = next((each for each in given.resolve().parents if is_run(each)), None) if given.exists() else None
        inside = f", which is in the run {run}: give that" if run else ""
        near = get_close_matches(options.source, SOURCES, cutoff=0.5) or SOURCES
        absent = f", which is not here: swd-distill run {given.name} would make it" if given.name in SOURCES else ""
        hint = absent or f": presets are {', '.join(near)}"
        raise ValueError(f"expected a run folder with config.json or a preset, got {options.source!r}{inside or hint}")
    return usual if (usual / "config.json").is_file() else None


def where(options: Options) -> tuple[str, str]:
    """Return the base model and the LoRA of a run folder or a preset, or those that were given instead."""
    found = lora(options)
    if options.lora and not (Path(found).exists() or is_hub_id(options.lora, ".safetensors")):
        raise ValueError(f"expected a LoRA as --lora, got {found}, which does not exist: check the path")
    if options.source not in SOURCES and not Path(found).exists() and not options.lora:
        raise ValueError(
            f"expected a run that is done, got {options.source} without lora: go on with its swd-distill run, or "
            "pass --lora"
        )
    if not Path(found).exists() and not options.lora:
        raise ValueError(
            f"expected a LoRA, got no {found}: pass --lora PATH, or make one with `swd-distill run {options.source}`"
        )
    return model(options), found


def unseen_prompts(options: Options) -> list[str]:
    """Return the prompts that a model brings for judging, which no training saw, else the first of the run.

    Raises:
        ValueError: neither: the run has none either.
    """
    from swd_models.loading import shipped_prompts

    run, found = run_of(options), shipped_prompts(model(options), unseen=True)
    trained = run and run / IMAGES / "metadata.jsonl"
    if not found and trained and trained.is_file():
        found = list(dict.fromkeys(read_prompts(trained)))[:MOST]
    if not found:
        raise ValueError(f"expected prompts for --unseen, got none with {options.source}: pass --prompts-file FILE")
    return found


def lora(options: Options) -> str:
    """Return the LoRA that was given, else where that of the run is, or would be."""
    return options.lora or str((run_of(options) or Path("runs") / options.source) / "lora")


def model(options: Options) -> str:
    """Return the base model that was given, else that of the run or the preset."""
    from swd_sample.pipeline import model_of

    run = run_of(options)
    return options.model or (SOURCES[options.source].model if run is None else model_of(run))


def base_loras(options: Options) -> tuple[str, ...]:
    """Return those that were given, else the run's, unless another model takes its place."""
    run = run_of(options)
    if options.base_lora or options.model or run is None:
        return options.base_lora
    from swd_sample.pipeline import base_loras_of

    return base_loras_of(run)


def base(options: Options) -> Literal["bf16", "int8", "fp8", "nf4"]:
    """Return the base that was given, else the run's, unless another model takes its place."""
    run = run_of(options)
    if options.base or options.model or run is None:
        return options.base or "bf16"
    from swd_sample.pipeline import base_of

    return base_of(run)


def load(options: Options, of: str, adapters: str | None) -> "SwDPipeline":
    """Load a model with a LoRA as the options say."""
    from swd_models.logs import quiet
    from swd_sample.pipeline import SwDPipeline, planned_for
    from swd_schedules import presets

    quiet()
    schedule = presets.resolve(options.schedule) if options.schedule else None
    run, preset = run_of(options), SOURCES.get(options.source)
    fallback = presets.resolve(preset.schedule) if preset else planned_for(run) if run else None
    pipe = SwDPipeline.from_pretrained(
        of,
        lora=adapters,
        base_loras=base_loras(options),
        schedule=schedule,
        fallback=fallback,
        device=options.device,
        merge=options.merge,
        text_tokens=options.text_tokens,
        tiny=options.tiny,
        base=base(options),
    )
    if options.compile:
        from swd_models.compiling import compiling

        print(compiling(options.compile, pipe.compile(options.compile)), file=sys.stderr)
    return pipe


def lora_checksums(of: str, adapters: str) -> str:
    """Return the checksum of a LoRA's file, or of those of two experts."""
    from swd_models.loading import experts_of
    from swd_models.lora.files import find_lora, lora_of

    return " ".join(checksum(find_lora(lora_of(adapters, expert.name))) for expert in experts_of(of))


def base_checksums(options: Options) -> dict[str, str]:
    """Return the checksums of the LoRAs here that are merged into the base; a hub id is taken for what it names."""
    from swd_models.lora.loading import split_weight

    paths = [Path(split_weight(each)[0]) for each in base_loras(options)]
    files = [each for path in paths for each in ([path] if path.is_file() else sorted(path.rglob("*.safetensors")))]
    return {"base_lora_files": " ".join(map(checksum, files))} if files else {}


def checksums(path: Path) -> str:
    """Return the checksums of a file, or of those of a folder."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    return " ".join(map(checksum, files))
