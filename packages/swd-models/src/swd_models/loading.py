"""Load a family from a diffusers directory or hub id, part by part."""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, cast

from swd_data import is_hub_id, read_object, read_prompts, reading
from swd_models.known.configs import BOUNDARY, PROMPTS, RANDOM
from swd_models.known.facts import FACTS, Expert, Facts, check_tokens, experts_in
from swd_models.logs import without_bars

if TYPE_CHECKING:
    import torch

    from swd_models.denoiser import Denoiser
    from swd_models.families.family import Family
    from swd_models.parts import Latents, Teacher, Text
    from swd_models.quantized import Base

EMBEDDED, EMBEDDED_VIDEO, PREFIX = "embedded", "embedded-video", "random-"
_ASSETS = {EMBEDDED: "teacher", EMBEDDED_VIDEO: "video_teacher"}
_BROKEN = (ValueError, TypeError, LookupError, AttributeError, ImportError, RuntimeError, UnpicklingError)


def resolve_model(model: str) -> str:
    """Return the directory of a model that comes with this package, else the model itself.

    "embedded" is the trained teacher of images, "embedded-video" that of videos. "random-flux" and the like are tiny
    untrained pipelines of a family, for tests and dry runs: built on first use, below the user's cache.
    """
    if model in _ASSETS:
        return str(files("swd_models") / "assets" / _ASSETS[model])
    if model.startswith(PREFIX):
        from swd_models.random_pipelines import random_pipeline

        return str(random_pipeline(model.removeprefix(PREFIX)))
    return model


def shipped_prompts(model: str, *, unseen: bool = False) -> list[str]:
    """Return the prompts that come with a model, or those that no training saw; none of most."""
    if _random(model):
        return [] if unseen else list(PROMPTS)
    path = Path(resolve_model(model)) / ("prompts_test.txt" if unseen else "prompts.txt")
    return read_prompts(path) if path.is_file() else []


@cache
def facts_of(model: str) -> Facts:
    """Return what is known of a model's family, by the pipeline class that `model_index.json` names.

    Raises:
        ValueError: no such directory or hub id, or a pipeline of no supported family.
    """
    found = _index(model)
    name = str(found.get("_class_name", "no _class_name"))
    if name not in FACTS:
        raise ValueError(f"expected a pipeline of {', '.join(FACTS)}, got {name} in {model}")
    if found.get("is_distilled"):
        raise ValueError(f"expected a model that takes guidance, got a distilled one in {model}: take its base model")
    return FACTS[name]


def family_of(model: str) -> "Family":
    """Return the classes of a model's family, which are imported; raises as `facts_of`."""
    family: Family = import_module(f"swd_models.families.{facts_of(model).module}").FAMILY
    return family


def experts_of(model: str) -> tuple[Expert, ...]:
    """Return the denoisers that a model splits its noise levels between, the noisiest first; most have one.

    Raises:
        ValueError: no such directory or hub id, or a boundary between them that is none.
    """
    return experts_in(_index(model))


@cache
def _index(model: str) -> Mapping[str, Any]:
    """Return what `model_index.json` says of a pipeline."""
    if small := _random(model):
        return {"_class_name": small[0], "boundary_ratio": BOUNDARY if model.endswith("a14b") else None}
    path = resolve_model(model)
    if Path(path).is_file():
        raise ValueError(
            f"expected a diffusers directory or a hub id, got the file {path}: convert it with diffusers, by "
            "from_single_file and save_pretrained"
        )
    if not Path(path).is_dir():
        return _hub_index(path)
    index = Path(path) / "model_index.json"
    if not index.is_file():
        raise ValueError(
            f"expected a diffusers directory with model_index.json, got {path}: give the folder that has it"
        )
    return read_object(index, "a pipeline's index")


def check_fit(model: str, sizes: Iterable[Sequence[int]], block: int | None = None) -> None:
    """Raise ValueError for latent sizes or a block that the model does not have, reading its config alone."""
    facts, config = facts_of(model), load_config(model)
    for size in sizes:
        facts.check_size(config, size)
    blocks = facts.blocks(config)
    if block is not None and block not in blocks:
        these = f"from {blocks[0]} to {blocks[-1]}" if len(blocks) > 1 else str(blocks[0])
        raise ValueError(f"expected --training.block {these} for {model}, got {block}: the block whose features count")


def load_config(model: str) -> dict[str, Any]:
    """Load the denoiser's config alone; those of the presets' models ship with this package."""
    if small := _random(model):
        return copy.deepcopy(small[1])
    if known := _known(model):
        return cast(dict[str, Any], known["denoiser"])
    path = Path(resolve_model(model))
    if path.is_dir():
        return dict(read_object(path / facts_of(model).subfolder / "config.json", "the config of a denoiser"))
    with _loading(model):
        return family_of(model).load_config(model)


def empty_denoiser(model: str) -> "Denoiser":
    """Build the denoiser on the meta device, from its config alone: names and shapes without weights.

    Two experts of a model are alike: it is either.
    """
    return family_of(model).build_empty(load_config(model))


def cond_shapes(model: str, num_tokens: int | None = None) -> dict[str, tuple[int, ...]]:
    """Return the shapes of one prompt's embeddings, without the batch; the paper's models need no weights for it.

    `num_tokens` of text as of `load_text`.
    """
    if not _known(model):
        return {name: tuple(tensor.shape[1:]) for name, tensor in load_text(model, num_tokens).uncond().items()}
    denoiser = empty_denoiser(model)
    shapes = denoiser.cond_shapes
    if num_tokens is not None:
        length = denoiser.clip_tokens + num_tokens
        shapes |= {name: (length, *shape[1:]) for name, shape in shapes.items() if name.startswith("prompt_embeds")}
    return shapes


def load_denoiser(
    model: str,
    *,
    expert: Expert | None = None,
    loras: Sequence[str] = (),
    base: "Base" = "bf16",
    device: "torch.device | str" = "cpu",
    **options: Any,
) -> "Denoiser":
    """Load the denoiser alone onto a device; `options` go to `from_pretrained` (dtype, revision, ...).

    Of a model of two experts (`experts_of`) it is both as one, or the `expert` that is named. Two quantised ones may
    not fit the device together: the first waits on the host, and `placing.place(denoiser.experts, device)` brings it.

    `loras`, each PATH or PATH:WEIGHT, are merged into it: a fine-tune of the model. `base` int8, fp8 or nf4 holds the
    blocks' linear layers in fewer bits, quantised one by one as they are loaded; with LoRAs, which are merged before,
    all of the model is in the host's memory once.

    Raises:
        ValueError: no such model, or a base whose library is not installed.
    """
    from swd_models.experts import Experts
    from swd_models.quantized import check_base, quantise

    check_base(base)
    experts = (expert,) if expert else experts_of(model)
    if len(experts) > 1:
        options |= {"loras": loras, "base": base, "device": device}
        made: list[Denoiser] = []
        for each in experts:  # quantised ones are made where they compute; those that wait are on the host
            made = [one.to("cpu") for one in made] if base != "bf16" else made
            made.append(load_denoiser(model, expert=each, **options))
        return Experts(made)
    with _loading(model):
        straight: Base = "bf16" if loras else base
        family = family_of(model)
        denoiser = family.load_denoiser(resolve_model(model), experts[0], base=straight, device=device, **options)
    if loras:
        from swd_models.lora.loading import merge_loras

        merge_loras(denoiser, loras)
        quantise(denoiser, base)
    return denoiser.to(device)


def first_device(model: str, base: "Base", device: "torch.device") -> "torch.device | str":
    """Return where the denoiser of a pipeline is loaded: on its device, but two experts on the host: they may not fit.

    Quantised ones are made where they compute.
    """
    return device if base != "bf16" or len(experts_of(model)) == 1 else "cpu"


def load_latents(model: str, *, tiny: Path | str | None = None, **options: Any) -> "Latents":
    """Load the autoencoder alone, or instead a tiny one of its family: its file, or the folder of its two.

    Raises:
        ValueError: no such model or file, or a tiny autoencoder of other latents.
    """
    with _loading(model):
        latents = family_of(model).load_latents(resolve_model(model), **options)
    if tiny is not None:
        from swd_models.autoencoders.files import replace_autoencoder

        replace_autoencoder(latents, tiny)
    return latents


def load_text(model: str, num_tokens: int | None = None, **options: Any) -> "Text":
    """Load text encoders and tokenizers alone.

    A prompt is cut or padded to `num_tokens` of the language model (T5 or its like; at most 512), by default to as many
    as the pipeline's own: SD3 256 beside CLIP's 77, the others 512.

    Raises:
        ValueError: another number, or a model that has CLIP alone.
    """
    check_text(model, num_tokens)
    with _loading(model):
        return family_of(model).load_text(resolve_model(model), num_tokens, experts_of(model), **options)


def check_text(model: str, num_tokens: int | None) -> None:
    """Raise ValueError for a number of text tokens that the model's family does not take, reading no weights."""
    if num_tokens is not None:
        check_tokens(num_tokens, facts_of(model).takes_tokens)


def load_teacher(
    model: str,
    *,
    loras: Sequence[str] = (),
    base: "Base" = "bf16",
    num_tokens: int | None = None,
    device: "torch.device | str" = "cpu",
    **options: Any,
) -> "Teacher":
    """Load the whole pipeline with its own sampler.

    `loras`, `base` and `device` are of `load_denoiser`, `num_tokens` of `load_text`; the rest stays on the host.
    """
    check_text(model, num_tokens)
    denoiser = load_denoiser(model, loras=loras, base=base, device=device, **options)  # with norms as in training
    with _loading(model):
        return family_of(model).load_teacher(resolve_model(model), denoiser, num_tokens, **options)


@contextmanager
def _loading(model: str) -> Iterator[None]:
    """Turn what the libraries raise for a folder that is no such model into one line; how they do is up to them."""
    what = "a model that diffusers loads"
    if is_hub_id(model):
        what += " (of the hub: check the network, and `hf auth login` for one that is gated)"
    with reading(model, what, *_BROKEN), without_bars():
        yield


def _random(model: str) -> tuple[str, dict[str, Any]] | None:
    """Return the pipeline's class and the denoiser's config of a tiny random model, which need not be built."""
    return RANDOM.get(model.removeprefix(PREFIX)) if model.startswith(PREFIX) else None


def _known(model: str) -> dict[str, Any] | None:
    """Return what ships of one of the paper's models: its pipeline's class and its denoiser's config."""
    if model.count("/") != 1 or Path(model).is_dir():
        return None
    file = files("swd_models") / "assets" / "configs" / f"{model.replace('/', '--')}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def _hub_index(model: str) -> Mapping[str, Any]:
    known = _known(model)
    if known:
        return {"_class_name": known["pipeline"], "boundary_ratio": known.get("boundary_ratio")}
    from diffusers import DiffusionPipeline

    try:
        return cast(Mapping[str, Any], DiffusionPipeline.load_config(model))
    except OSError as error:
        raise ValueError(
            f"expected a diffusers directory or a hub id, got {model!r}, which is neither on disk nor reachable: log "
            "in with `hf auth login` if it is gated, or pass a downloaded directory; pipelines known here: "
            f"{', '.join(FACTS)}"
        ) from error
