"""What a run will take, said before it begins, and a question where that is more than a day."""

import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from swd_data import Kind, is_hub_id, read_pairs
from swd_distill.config import Config, Data
from swd_distill.devices import optimizer_here
from swd_distill.folder import iterations_of
from swd_schedules.devices import total_bytes

if TYPE_CHECKING:
    from swd_distill.planning.counts import Counts

DAY = 24.0
STAND_IN = "h100"


@dataclass(frozen=True)
class Ahead:
    """Lines for the user; the hours that are left, None where the model was not counted; why it cannot be trained."""

    lines: list[str]
    hours: float | None = None
    refused: str | None = None


def ahead(config: Config, command: str = "run") -> Ahead:
    """Return what a command of a config will do and take, from counts that ship; of other models, what it will do.

    Raises:
        ValueError: prompts that cannot be read.
    """
    from swd_distill.planning.counts import Counts

    lines = _toy(config) + (_images(config) if command in {"run", "generate"} else []) + _there(config)
    counts = Counts.shipped(config)
    if counts is None:
        return Ahead(lines)
    lines += _download(config, counts)
    config, images = counted(config)
    lines += images
    from swd_distill.planning.estimate import HEADROOM, Estimate, advice, cache_gib, fewest, mmd_alone
    from swd_distill.planning.hours import stage_hours
    from swd_distill.planning.roofline import GPUS

    here, gpus = _device(), int(os.environ.get("WORLD_SIZE", "1"))
    name, memory = here or (STAND_IN, GPUS[STAND_IN].memory)
    refused = None
    if here and config.training.optimizer == "auto":
        config = replace(config, training=replace(config.training, optimizer=optimizer_here()))
    gpu, share = GPUS[name], max(1, config.training.batch // (gpus * config.training.accumulate))
    gib, found = HEADROOM * min(memory, gpu.memory), replace(Estimate.of(config, share), processes=gpus)
    if config.training.checkpointing == "auto":
        fitting = fewest(found, gib) if config.chooses_blocks else found if found.total() <= gib else None
        if not fitting and command in {"run", "train"}:
            lines.append(advice(found, gib, gpus))
            if here and found.total() > memory:  # a little less may fit yet
                refused = f"expected training that fits {memory:.1f} GiB, got {found.total():.1f}: {lines[-1]}"
        found = fitting or found
    hours = {stage: each * _missing(config, stage) for stage, each in stage_hours(found, gpu, gpus).items()}
    hours = {stage: each for stage, each in hours.items() if command in {"run", stage} and each}
    total = sum(hours.values())
    stages = ", ".join(f"{stage} {each:.1f} h" for stage, each in hours.items())
    where = f"{gpus} x {name}, reckoned from its data sheet" + ("" if here else ": no GPU whose sheet is known is here")
    lines.append(f"{stages or 'nothing is left'}: {total:.1f} h on {where}")
    if hours.get("generate", 0) > hours.get("train", 0) > 0:
        times = hours["generate"] / hours["train"]
        lines.append(f"the teacher's images take {times:.1f} times as long as training: --data.num-images is fewer")
    if "train" in hours and config.needs_fake and config.recipe.mmd_weight:
        times = found.mean_seconds(gpu) / found.mean_seconds(gpu, mmd_alone(config))
        alone = "--recipe.dmd-weight 0 --recipe.gan-weight 0"
        lines.append(f"the full loss takes {times:.1f} times as long as MMD alone, which is {alone}")
    if "encode" in hours:
        lines.append(f"{sum(cache_gib(config, counts.facts, _num_prompts(config)).values()):,.0f} GiB of cache")
    return Ahead(lines, total, refused if "train" in hours else None)


def confirm(config: Config, command: str) -> None:
    """Say what a command will take; where that is more than a day, go on only with --yes, or a yes.

    Raises:
        ValueError: no yes; training that does not fit the device, before days of images are made for it.
    """
    found = ahead(config, command)
    if found.refused:
        raise ValueError(found.refused)
    if int(os.environ.get("RANK", "0")) == 0:
        tell_words(config, command)
        for line in found.lines if found.hours is not None else _toy(config) + _repeated(config, command):
            print(line, file=sys.stderr)
    if not found.hours or found.hours <= DAY or config.yes:
        return
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if alone and sys.stdin is not None and sys.stdin.isatty():
        print(f"That is {found.hours / DAY:.1f} days. Begin? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in {"y", "yes"}:
            return
    raise ValueError(
        f"expected a yes to work of {found.hours / DAY:.1f} days, got none: nothing was begun; --yes begins it"
    )


def tell_words(config: Config, command: str) -> None:
    """Say on stderr which words of its prompts a model that ships does not know."""
    from swd_distill.data.prompts import prompts_of
    from swd_sample.words import tell_unknown

    if command in {"run", "generate"} and config.data.prompts and config.data.images is None:
        tell_unknown(config.model, prompts_of(config))


def _toy(config: Config) -> list[str]:
    """Return a word on models that know nothing."""
    from swd_models.loading import PREFIX

    if not config.model.startswith(PREFIX):
        return []
    return [f"{config.model} is tiny and random, to try what runs: its samples are noise, its losses say nothing"]


def _images(config: Config) -> list[str]:
    """Return how many images there will be, and of how many prompts."""
    from swd_distill.data.prompts import prompts_of

    if config.data.images is not None:
        return []
    count, images, most = len(prompts_of(config)), config.data.num_images, config.data.images_per_prompt
    line, usual = f"{images:,} images of {count:,} prompt(s)", Data.images_per_prompt
    if images > usual * count:
        line += f", {images / count:,.0f} of each: more than {usual} teach little, --data.images-per-prompt makes fewer"
    elif most and images == most * count:
        line += f", {most} of each (--data.images-per-prompt)"
    return [line]


def _num_prompts(config: Config) -> int | None:
    """Return how many prompts the teacher's images are of, each of which is encoded once; None where none are given."""
    from swd_distill.data.prompts import prompts_of
    from swd_models.loading import shipped_prompts

    given = config.data.prompts is not None or shipped_prompts(config.model)
    return len(prompts_of(config)) if given and config.data.images is None else None


def counted(config: Config) -> tuple[Config, list[str]]:
    """Return a config whose number of images is that of its own, and a word where that cannot be told before."""
    own = config.data.images
    kind: Kind = "videos" if len(config.scales.sizes[-1]) == 3 else "images"
    if own is None:
        return config, []
    try:
        count = len(read_pairs(own, kind)) if own.is_dir() else 0
    except ValueError:  # tables or archives: to count them is to read them
        count = 0
    if not count:
        return config, [f"how many {own} has is not known yet: hours and cache are for {config.data.num_images:,}"]
    return replace(config, data=replace(config.data, num_images=count)), []


def _repeated(config: Config, command: str) -> list[str]:
    """Return the line on images where their prompts are few: of a model that was not counted, all that is told."""
    lines = _images(config) if command in {"run", "generate"} else []
    return [line for line in lines if "of each" in line]


def _missing(config: Config, stage: str) -> float:
    """Return the share of a stage that is not done."""
    from swd_distill.data.cache import MANIFEST

    if stage == "train":
        return 1 - _iterations(config) / config.training.iterations
    if (config.cache / MANIFEST).is_file():
        return 0.0
    if stage == "generate":
        return max(0.0, 1 - _files(config.images) / config.data.num_images)
    return 1.0


def _there(config: Config) -> list[str]:
    """Return what a run has already."""
    from swd_distill.data.cache import MANIFEST

    data, total = config.data, config.training.iterations
    images = 0 if data.images else _files(config.images)
    found = [f"{images:,} of {data.num_images:,} images"] * bool(images)
    found += ["the cache"] * (config.cache / MANIFEST).is_file()
    done = round(_iterations(config))
    found += [f"{done:,} of {total:,} iterations"] * bool(done)
    return [f"there already, in {config.out}: {', '.join(found)}"] if found else []


def _iterations(config: Config) -> float:
    """Return the iterations that a run has behind it: of a LoRA, else of the newest checkpoint; the mean of experts."""
    from swd_models.loading import experts_of

    experts, total = experts_of(config.model), config.training.iterations
    return sum(min(_steps(config.out, expert.name, total), total) for expert in experts) / len(experts)


def _steps(run: Path, expert: str, total: int) -> int:
    """Return the iterations of one student: all for a LoRA that tells none, 0 in a folder that no run has noted."""
    latest = run / expert / "checkpoints" / "latest"
    if not (run / "config.json").is_file():
        return 0
    done = iterations_of(run / "lora" / expert)
    if done == 0 and latest.is_file():
        found = re.fullmatch(r"step-(\d+)", latest.read_text().strip())
        return int(found[1]) if found else 0
    return total if done is None else done


def _download(config: Config, counts: "Counts") -> list[str]:
    """Return what has to come from the hub first, if it is not here."""
    from huggingface_hub import try_to_load_from_cache

    from swd_distill.planning.roofline import GIB
    from swd_models.loading import experts_of

    if not is_hub_id(config.model) or isinstance(try_to_load_from_cache(config.model, "model_index.json"), str):
        return []
    numbers = counts.parameters
    parameters = len(experts_of(config.model)) * numbers["base"] + numbers.get("text", 0) + numbers.get("vae", 0)
    return [f"{config.model} is not in the hub's cache: {2 * parameters / GIB:.0f} GiB or more to download first"]


def _files(folder: Path) -> int:
    return sum(path.suffix in {".png", ".mp4"} for path in folder.iterdir()) if folder.is_dir() else 0


def _device() -> tuple[str, float] | None:
    """Return the data sheet of the device that torch finds, if it is known, and the GiB that the device has."""
    import torch

    from swd_distill.planning.roofline import GIB, sheet_of

    name = sheet_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return (name, total_bytes(torch.device("cuda")) / GIB) if name else None
