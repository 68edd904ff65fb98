"""`swd-distill publish`: a run's LoRA as a folder with its card and samples, and that on the Hugging Face hub."""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from swd_data import Kind, is_hub_id, read_object, read_pairs, read_prompts, whole_folder, write_text

if TYPE_CHECKING:
    from swd_sample import SwDPipeline

MARK = ".swd-published"
CARD = "README.md"
SEED = 1000
"""Sample i is made from SEED + i, as in the run's comparison."""


@dataclass(frozen=True)
class Publish:
    """Write a run's LoRA for others, with a model card and samples, and upload it to the Hugging Face hub."""

    run: tyro.conf.Positional[Path]
    """A run folder of swd-distill."""
    repo: tyro.conf.Positional[str] = ""
    """OWNER/NAME on the hub. Default: none, the folder alone is written."""
    to: Path | None = None
    """The folder to write. Default: RUN/export/hub."""
    base_model: str | None = None
    """OWNER/NAME of the base on the hub. Default: the run's model, if it was given so."""
    licence: str | None = None
    """The hub's name of the licence, for example apache-2.0. Default: the base's, of those that have presets."""
    samples: int = 4
    """Samples to make for the card's gallery."""
    images: Path | None = None
    """Samples that are there: a folder of `swd-sample --prompts-file`, of which the first are taken."""
    prompts: Path | None = None
    """Prompts of the samples. Default: unseen ones where the model brings some, else the first of the run's images."""
    private: bool = False
    """Make the repository private."""
    update: bool = False
    """Write into a repository that is there."""
    dry_run: bool = False
    """Write the folder and print the card; upload nothing."""


def publish(options: Publish) -> str:
    """Write the folder, upload it if that was asked for, and return the line for the user."""
    if not (options.run / "config.json").is_file():
        raise ValueError(
            f"expected a run folder of swd-distill, got {options.run} without config.json: give one such as runs/tiny"
        )
    config = read_object(options.run / "config.json", "the config of a run")
    lora = options.run / "lora"
    if not lora.is_dir():
        raise ValueError(f"expected a run that is done, got {options.run} without lora: run `swd-distill train` first")
    if options.samples < 0:
        raise ValueError(f"expected --samples of at least 0, got {options.samples}")
    base, licence = _base_of(options, str(config["model"])), _licence_of(options, str(config["model"]))
    uploads = bool(options.repo) and not options.dry_run
    if options.repo and not re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", options.repo):
        raise ValueError(f"expected OWNER/NAME as the repository, got {options.repo!r}")
    if uploads:
        _check_hub(options)  # before minutes of sampling
    out = options.to or options.run / "export" / "hub"
    with whole_folder(out, MARK) as folder:
        _write(options, config, base, licence, folder)
    text = (out / CARD).read_text(encoding="utf-8")
    if not uploads:
        shown = f"{text}\n" if options.dry_run else ""
        return f"{shown}LoRA, card and samples in {out}: nothing was uploaded"
    return f"https://huggingface.co/{_upload(options, out)}"


def _base_of(options: Publish, model: str) -> str | None:
    from swd_models.loading import resolve_model

    if options.base_model:
        return options.base_model
    if resolve_model(model) != model:  # it ships with swd-models
        return None
    if not is_hub_id(model):
        raise ValueError(
            f"expected --base-model OWNER/NAME, for the run's model is a folder of this machine, got {Path(model).name}"
        )
    return model


def _licence_of(options: Publish, model: str) -> tuple[str, str]:
    from swd_distill.card import LICENCES
    from swd_models.loading import resolve_model

    if options.licence:
        return options.licence, ""
    if resolve_model(model) != model:
        return "apache-2.0", ""
    found = LICENCES.get(options.base_model or model)
    if found is None:
        raise ValueError(f"expected --licence for {options.base_model or model}, whose licence is not known here")
    return found


def _write(
    options: Publish, config: Mapping[str, Any], base: str | None, licence: tuple[str, str], folder: Path
) -> None:
    """Fill the folder."""
    from swd_distill import scalewise
    from swd_distill.card import Facts, card
    from swd_models.loading import empty_denoiser, experts_of, family_of, resolve_model
    from swd_models.lora.files import lora_of, read_lora, write_lora
    from swd_sample.pipeline import SwDPipeline

    model = str(config["model"])
    empty, experts = empty_denoiser(model), experts_of(model)
    for expert in experts:
        lora = read_lora(lora_of(options.run / "lora", expert.name), empty)
        for form in ("diffusers", "comfyui"):
            write_lora(lora, empty, folder / expert.name, form)
    pipe = SwDPipeline.from_run(options.run)
    index = Path(resolve_model(model)) / "model_index.json"
    parts = read_object(index, "a pipeline's index") if index.is_file() else {}
    facts = Facts(
        name=options.repo or f"OWNER/{options.run.resolve().name}",
        base=base,
        model=model,
        pipeline=family_of(model).pipeline.__name__,
        licence=licence,
        schedule=pipe.schedule,
        experts=[expert.name for expert in experts if expert.name],
        pixels=tuple(pipe.latents.pixels(pipe.schedule.sizes[-1])),
        options=pipe.text.options | pipe.text.guiding(1, empty.guidance or 1.0),
        left_out=[name for name, value in parts.items() if value == [None, None] and "image" not in name],
        samples=_samples(options, config, pipe, folder),
        metrics=metrics_of(options.run),
        config=config,
    )
    text = card(facts)
    write_text(folder / CARD, text)
    if f"from {scalewise.__name__.rpartition('.')[2]} import" in text:
        shutil.copyfile(scalewise.__file__, folder / Path(scalewise.__file__).name)
    _check_card(folder / CARD, options.run)


def _samples(options: Publish, config: Mapping[str, Any], pipe: "SwDPipeline", folder: Path) -> list[tuple[str, str]]:
    """Put the samples into the folder; return their names there and their prompts."""
    from swd_sample.media import save_media

    if options.images is not None:
        return _copied(options.images, "images" if pipe.fps is None else "videos", options.samples, folder)
    prompts = _prompts(options, config)[: options.samples]
    found = []
    for i, prompt in enumerate(prompts):
        (media,) = pipe([prompt], seed=SEED + i)
        name = f"samples/{i}{'.mp4' if isinstance(media, list) else '.png'}"
        (folder / "samples").mkdir(exist_ok=True)
        save_media(media, folder / name, pipe.fps, playable=True)
        found.append((name, prompt))
    return found


def _copied(images: Path, kind: Kind, count: int, folder: Path) -> list[tuple[str, str]]:
    """Copy the first samples of a folder."""
    found = []
    for i, sample in enumerate(read_pairs(images, kind)[:count]):
        name = f"samples/{i}{sample.path.suffix}"
        (folder / "samples").mkdir(exist_ok=True)
        shutil.copyfile(sample.path, folder / name)
        found.append((name, sample.prompt))
    return found


def _prompts(options: Publish, config: Mapping[str, Any]) -> list[str]:
    from swd_distill.data.cache import MANIFEST
    from swd_models.loading import shipped_prompts

    if options.prompts is not None:
        return read_prompts(options.prompts)
    if unseen := shipped_prompts(str(config["model"]), unseen=True):
        return unseen
    manifest = options.run / "cache" / MANIFEST
    if options.samples and not manifest.is_file():
        raise ValueError(f"expected --prompts FILE for the samples, for {options.run} has no cache that tells any")
    return list(read_object(manifest)["captions"]) if options.samples else []


def metrics_of(run: Path) -> dict[str, float]:
    """Return the numbers of the run's LoRA by its last evaluation; none if it had none at the LoRA's iteration."""
    from swd_distill.folder import iterations_of

    steps = iterations_of(run / "lora")  # of an older version it tells none
    results = sorted((run / "evaluation").glob(f"step-{steps:06d}/results.json" if steps else "step-*/results.json"))
    if not results:
        return {}
    return {number["metric"]: float(number["value"]) for number in read_object(results[-1])["numbers"]}


def _check_card(path: Path, run: Path) -> None:
    """Raise ValueError for a card that the hub would not read, or that names a place of this machine."""
    from huggingface_hub import ModelCard

    text = path.read_text(encoding="utf-8")
    data = ModelCard(text).data
    if not data.get("license") or not data.get("pipeline_tag"):
        raise ValueError(f"expected a licence and a task in the card's data, got {data}")
    for place in {run.resolve(), Path.home()}:
        if place != Path(place.anchor) and str(place) in text:  # of a user without a home it is /
            raise ValueError(
                f"expected a card without paths of this machine, got {place} in it: rename the run's files"
            )


def _check_hub(options: Publish) -> None:
    """Raise ValueError, before anything is made, where nothing could be uploaded."""
    from huggingface_hub import HfApi

    with _hub("nothing was made"):
        api = HfApi()
        api.whoami()
        there = api.repo_exists(options.repo)
    if there and not options.update:
        raise ValueError(
            f"expected a new repository, got {options.repo}, which is there: pass --update to write into it"
        )


def _upload(options: Publish, folder: Path) -> str:
    """Upload the folder in one commit; return the repository."""
    from huggingface_hub import HfApi, ModelCard

    with _hub(f"the folder is whole in {folder}, and nothing of it is in the repository"):
        api = HfApi()
        ModelCard((folder / CARD).read_text(encoding="utf-8")).validate(repo_type="model")
        api.create_repo(options.repo, private=options.private, exist_ok=True)
        api.upload_folder(
            repo_id=options.repo, folder_path=folder, commit_message="Scale-wise LoRA", ignore_patterns=[MARK]
        )
    return options.repo


@contextmanager
def _hub(state: str) -> Iterator[None]:
    """Turn what the hub's client raises into one line, with what has happened until then."""
    try:
        yield
    except Exception as error:  # its kinds are many
        reason = " ".join(str(error).split())
        raise ValueError(
            f"expected the Hugging Face hub to take it, got {type(error).__name__} ({reason:.160}): log in with "
            f"`hf auth login` and check the network; {state}"
        ) from error
