"""`swd-distill COMMAND PRESET [flags]`: a run is a named preset, flags are tweaks."""

import json
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from swd_data import shell
from swd_data.errors import out_of_memory
from swd_distill.stopped import Stopped
from swd_models.logs import hush_imports
from swd_sample.environment import prepare_torch
from swd_sample.presets import SOURCES

if TYPE_CHECKING:
    from swd_distill.config import Config

COMMANDS = {
    "run": "everything that is missing: generate, encode, train, sample",
    "generate": "the teacher's images from prompts",
    "encode": "images and captions into the cache that training reads",
    "train": "the student, from the newest checkpoint on",
    "plan": "what a run costs: FLOPs, memory, disk, time; swd-distill plan PRESET --gpus N --memory GIB",
    "export": "a run's LoRA for another tool: swd-distill export RUN --to diffusers|comfyui|peft|kohya|merged",
    "publish": "a run's LoRA with card and samples, to the hub: swd-distill publish RUN OWNER/NAME",
    "zoo": "a table of LoRAs, from run folders and cards: swd-distill zoo RUN ... OWNER/NAME ... --out zoo.md",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; a user's error is one line on stderr and exit code 2."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in {"-h", "--help"}:
        print(_usage())
        return
    prepare_torch()
    hush_imports()
    less = "by --training.accumulate or --training.checkpointing all while it trains, by --data.batch before"
    works = args[0] in {"run", "generate", "encode", "train"}
    advice = f"give it less at a time, {less}" if works else "take another device"
    shell("swd-distill", lambda: _run(args), out_of_memory(advice))


def _run(args: list[str]) -> str:
    try:
        return _dispatch(args)
    except Stopped as stopped:
        print(f"swd-distill: {stopped}", file=sys.stderr)
        raise SystemExit(stopped.code) from None


def _usage() -> str:
    commands = "\n".join(f"  {name:10} {text}" for name, text in COMMANDS.items())
    return (
        f"usage: swd-distill COMMAND PRESET [flags]\n\ncommands:\n{commands}\n\n"
        f"presets: {', '.join(SOURCES)} (tiny: the embedded teacher, minutes on a CPU)\n"
        "swd-distill COMMAND PRESET --help lists the flags, --dry-run says what would be done and what it takes"
    )


def _dispatch(args: list[str]) -> str:
    command, rest = args[0], args[1:]
    if command not in COMMANDS:
        raise ValueError(f"expected a command of {', '.join(COMMANDS)}, got {command!r}")
    if command == "export":
        return _export(rest)
    if command == "publish":
        return _publish(rest)
    if command == "zoo":
        return _zoo(rest)
    config = _parse(command, rest)
    if config.dry_run:
        return _dry_run(config, command)
    if command == "plan":
        from swd_distill.planning.plan import Plan, plan

        assert isinstance(config, Plan)
        return plan(config)
    from swd_distill.checks import check_loras
    from swd_distill.devices import choose_device, in_all
    from swd_distill.planning.ahead import confirm
    from swd_models.logs import quiet

    quiet()
    choose_device(config.device, config.training.dtype)
    in_all(lambda: check_loras(config))
    confirm(config, command)
    if command == "run":
        from swd_distill.run import run

        return run(config)
    if command == "generate":
        from swd_distill.data.generate import generate

        return f"images in {generate(config)}"
    if command == "encode":
        from swd_distill.data.encode import encode

        return f"cache in {encode(config)}"
    from swd_distill.train import train

    return f"LoRA in {train(config)}"


def _dry_run(config: "Config", command: str) -> str:
    """Return what a command would do and take; refuse what it would refuse."""
    from swd_distill.folder import check_folder, settled
    from swd_distill.planning.ahead import ahead, tell_words

    if command in {"run", "train"}:
        check_folder(settled(config))
    tell_words(config, command)
    found, stages = ahead(config, command), [f"  {stage}" for stage in config.scales.stages]
    if found.refused:
        raise ValueError(found.refused)
    lines = [*found.lines, f"stages: {config.scales}", *stages]
    return "\n".join([*lines, json.dumps(config.to_json(), indent=1)])


def _export(args: list[str]) -> str:
    import tyro

    from swd_distill.export import Export, export

    options = tyro.cli(Export, args=args, prog="swd-distill export")
    from swd_models.logs import quiet

    quiet()
    return export(options)


def _publish(args: list[str]) -> str:
    import tyro

    from swd_distill.publish import Publish, publish

    options = tyro.cli(Publish, args=args, prog="swd-distill publish")
    from swd_models.logs import quiet

    quiet()
    return publish(options)


def _zoo(args: list[str]) -> str:
    import tyro

    from swd_distill.zoo import Zoo, zoo

    return zoo(tyro.cli(Zoo, args=args, prog="swd-distill zoo"))


def _parse(command: str, args: list[str]) -> "Config":
    import tyro

    from swd_distill.planning.plan import Plan

    preset, asks = _preset(args), args[:1] in (["-h"], ["--help"])
    default = Plan(**vars(preset)) if command == "plan" else preset
    prog = f"swd-distill {command} {'PRESET' if asks else preset.name}"
    if asks:
        print(
            f"{_usage()}\n\nThe defaults below are those of {preset.name}; {command} PRESET --help shows a preset's.\n"
        )
    config = tyro.cli(type(default), default=default, args=args if asks else args[1:], prog=prog)
    from swd_distill.checks import check, check_extras, check_model
    from swd_distill.data.prompts import as_made, limited
    from swd_distill.planning.counts import Counts
    from swd_models.loading import shipped_prompts

    check(config)
    if command in {"run", "train"}:
        check_extras(config)
    if command != "plan" or Counts.shipped(config) is None:  # else the model's classes need not be imported
        check_model(config)
    if config.data.images is not None:
        return config
    if command in {"encode", "train"}:
        return as_made(config)
    if command == "plan" and config.data.prompts is None and not shipped_prompts(config.model):
        return config  # which plans as many as are asked for
    return limited(config)


def _preset(args: list[str]) -> "Config":
    from swd_distill.presets import PRESETS

    if args and args[0] in {"-h", "--help"}:
        return PRESETS["tiny"]
    if args and args[0] in PRESETS:
        return PRESETS[args[0]]
    if not args:
        raise ValueError("expected a preset, got nothing: for example swd-distill run tiny")
    if args[0].startswith("-"):
        raise ValueError(f"expected a preset before the flags, got {args[0]!r}: for example swd-distill run tiny")
    near = get_close_matches(args[0], PRESETS, cutoff=0.5)
    hint = f"perhaps {' or '.join(near)}; " if near else ""
    raise ValueError(f"expected a preset, got {args[0]!r}: {hint}`swd-distill --help` lists all")
