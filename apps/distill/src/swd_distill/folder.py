"""A run's folder: what it was made with, and who works in it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock, Timeout

from swd_data import check_claim, checksum, claim, read_object, write_json
from swd_distill.config import Config, Evaluation, Optimizer
from swd_distill.devices import from_main, optimizer_here, processes
from swd_losses import Recipe
from swd_models.known.facts import EXPERTS

SOURCE = "trained-on.json"
WRITES = (SOURCE, "checkpoints", "evaluation", "lora", "metrics.jsonl", "samples", *EXPERTS)

# What runs of earlier versions were made with where their config.json does not say.
BEFORE: dict[str, Any] = {
    "recipe": {each.name: each.default for each in fields(Recipe) if each.default is not MISSING},
    "teacher_lora": [],
    "init_lora": None,
    "data": {"text_tokens": None},
    "training": {"base": "bf16"},
}


def settled(config: Config) -> Config:
    """Return a config with what its device decides, unless its run folder notes it already."""
    path, chosen = config.out / "config.json", config.training.optimizer
    if chosen == "auto":
        before = read_object(path, "the config of a run").get("training", {}) if path.is_file() else {}
        noted: Optimizer = next((each for each in get_args(Optimizer) if each == before.get("optimizer")), "auto")
        chosen = from_main(optimizer_here() if noted == "auto" else noted)  # one may see what another has just written
    return replace(config, training=replace(config.training, optimizer=chosen))


def check_folder(config: Config) -> None:
    """Raise ValueError where a run folder is there that belongs to a run of other numbers; write nothing."""
    path = config.out / "config.json"
    if path.is_file():
        check_claim(path, _made_with(config), "a run", _no_matter(config), before=BEFORE)


@contextmanager
def claimed(config: Config) -> Iterator[None]:
    """Write config.json, or check that the run folder belongs to a run of the same numbers; keep other runs out.

    More iterations than before go on with it, unless the learning rate has fallen over those that were planned.
    """
    state = processes()
    with state.main_process_first():
        claim(config.out / "config.json", _made_with(config), "a run", _no_matter(config), before=BEFORE, writes=WRITES)
    with only_one(config.out) if state.is_main_process else nullcontext():
        if state.is_main_process and _is_longer(config):
            comparison_of(config).unlink(missing_ok=True)  # first: with it a run counts as done
            before = read_object(config.out / "config.json")
            before["training"]["iterations"] = config.training.iterations
            write_json(config.out / "config.json", before)
        state.wait_for_everyone()  # none takes the picture of before for the end
        yield


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep other processes of this kind out of a run folder; however this one ends, the lock goes with it.

    Raises:
        ValueError: another is at work there.
    """
    try:
        with FileLock(folder / ".lock", timeout=0, is_singleton=True):
            yield
    except Timeout as error:
        raise ValueError(
            f"expected no other run at work in {folder}, got one: wait, or choose another --out"
        ) from error


def comparison_of(config: Config) -> Path:
    """Return the picture that ends a run."""
    return config.out / "samples" / "comparison.png"


def iterations_of(lora: Path) -> int | None:
    """Return the iterations of the LoRA that a run has written in a folder; None where it tells none, as long ago.

    0 where there is none, or a damaged one, which is written again.
    """
    if not any(lora.glob("*.safetensors")):
        return 0
    from swd_models.lora.files import steps_of  # which imports diffusers

    try:
        return steps_of(lora)
    except ValueError:
        return 0


def _is_longer(config: Config) -> bool:
    """Tell whether a run folder is there, of fewer iterations than are asked for, that can be gone on with.

    Raises:
        ValueError: it cannot, for its learning rate has fallen over those that were planned.
    """
    path = config.out / "config.json"
    if not path.is_file():
        return False
    planned = read_object(path, "the config of a run").get("training", {})
    before, asked = planned.get("iterations"), config.training.iterations
    if not isinstance(before, int) or before >= asked:
        return False
    if planned.get("decay") is True:
        raise ValueError(
            f"expected --training.iterations {before} for the run in {config.out}, whose learning rate falls to zero "
            f"over them (--training.decay), got {asked}: start another from its LoRA, with --init-lora "
            f"{config.out / 'lora'} and another --out"
        )
    return True


def _made_with(config: Config) -> dict[str, Any]:
    """Return what a run folder notes."""
    sums = checksums(config)
    return config.to_json() | ({"checksums": sums} if sums else {})


def _no_matter(config: Config) -> set[str]:
    """Return the settings that may differ in the same folder, for they change no number."""
    no_matter = {
        "out",
        "dry_run",
        "yes",
        "device",
        "data.batch",
        "data.compile",
        "data.images_per_prompt",
        "data.max_bad",
        "data.verify",
        *(f"evaluation.{each.name}" for each in fields(Evaluation)),
    } | {
        f"training.{name}"
        for name in (
            "save_every",
            "sample_every",
            "keep",
            "accumulate",
            "max_skips",
            "trackers",
            "shard_base",
            "checkpointing",
        )
    }
    if not config.needs_fake:  # then nothing is balanced
        no_matter |= {"recipe.balance", "recipe.gan_rise", "recipe.gan_sample"}
    if not (config.needs_fake and config.recipe.balance):
        no_matter.add("recipe.balance_over")
    if _is_longer(config):
        no_matter.add("training.iterations")
    return no_matter


def checksums(config: Config) -> dict[str, str]:
    """Return the checksums of the LoRAs here that a run is made of, by setting; a hub id is taken for what it names."""
    loras = {"init_lora": [config.init_lora]} if config.init_lora else {}
    if config.teacher_lora:
        from swd_models.lora.loading import split_weight  # which imports diffusers

        loras["teacher_lora"] = [split_weight(each)[0] for each in config.teacher_lora]
    sums = {name: " ".join(filter(None, map(_checksum, map(Path, each)))) for name, each in loras.items()}
    return {name: each for name, each in sums.items() if each}


def _checksum(lora: Path) -> str:
    """Return the checksum of a LoRA's file, or of each in its folder; nothing of what is not here."""
    files = [lora] if lora.is_file() else sorted(lora.rglob("*.safetensors"))
    return " ".join(checksum(file) for file in files)
