"""Evaluation while a run trains: samples of the same prompts again and again, measured by swd-eval (extra `eval`)."""

import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from swd_data import list_files, make_folder, read_object, read_prompts, write_text
from swd_data.folders import files_of
from swd_distill.config import Config
from swd_distill.data.encoder import Encoder
from swd_distill.data.sources import open_source
from swd_distill.devices import device_and_dtype, processes
from swd_distill.training.network import Metrics
from swd_distill.training.trainer import Trainer
from swd_models import load_latents
from swd_models.loading import shipped_prompts
from swd_models.parts import Text
from swd_sample import SwDPipeline
from swd_sample.folder import file_names, unfinished, write_metadata
from swd_sample.media import save_media

SEED = 1000
"""Prompt i is sampled from SEED + i: at each evaluation, and in the comparison at the end, from the same noise."""


def check_evaluation(config: Config) -> None:
    """Raise ValueError for metrics that cannot be had: before any work."""
    if find_spec("swd_eval") is None:
        raise ValueError(
            "expected swd-eval for --evaluation.metrics, got none: install swd-eval[lite0,video] beside swd-distill"
        )
    from swd_eval.runs.metrics import check_names

    check_names(config.evaluation.metrics, kind_of(config))
    distances = [name for name in config.evaluation.metrics if name.startswith(("fd-", "fid-", "kid-"))]
    if distances and config.evaluation.num < 2:
        raise ValueError(f"expected --evaluation.num of 2 or more for {distances[0]}, got {config.evaluation.num}")
    for name in ("prompts", "ref"):
        path = getattr(config.evaluation, name)
        if path is not None and not path.exists():
            raise ValueError(f"expected a file or folder as --evaluation.{name}, got {path}, which does not exist")
    if config.evaluation.prompts is not None:
        read_prompts(config.evaluation.prompts)
    ref, kernels = config.evaluation.ref, [name for name in distances if name.startswith("kid")]
    if ref is not None and ref.is_file() and kernels:
        raise ValueError(f"expected a folder as --evaluation.ref for {kernels[0]}, got {ref}: give that of its images")
    if ref is not None and ref.is_dir() and not list_files(ref, files_of(kind_of(config))):
        raise ValueError(f"expected {kind_of(config)} in --evaluation.ref, got none in {ref}")
    own = config.data.images if ref is None else None
    if own is not None and not (own.is_dir() and list_files(own, files_of(kind_of(config)))):
        raise ValueError(f"expected --evaluation.ref, as {own} is no folder of {kind_of(config)}: give one")


def kind_of(config: Config) -> Literal["images", "videos"]:
    """Return what swd-eval calls the samples."""
    return "videos" if len(config.scales.sizes[-1]) == 3 else "images"


def _prompts_of(config: Config) -> list[str]:
    """Return the prompts of --evaluation.prompts, else unseen ones, else the first of training."""
    chosen = config.evaluation
    found = read_prompts(chosen.prompts) if chosen.prompts else shipped_prompts(config.model, unseen=True)
    if not found:
        every = (sample.text for sample in open_source(config).read(0, sys.maxsize))
        found = list(islice((text for text in every if text.strip()), chosen.num))  # captions may be empty
    if not found:
        raise ValueError("expected --evaluation.prompts, as all captions are empty, got none: give a file")
    return found[: chosen.num]


class Evaluator:
    """Samples the student and measures it, by the functions behind `swd-eval images` and `swd-eval videos`.

    All processes make and call it. Text is encoded here, before training's networks take the memory.
    """

    def __init__(self, config: Config) -> None:
        from swd_eval.fetch import fetch
        from swd_eval.runs.metrics import weights_of

        self._config, self._folder = config, config.out / "evaluation"
        self._prompts = _prompts_of(config)
        fetch(weights_of(config.evaluation.metrics), config.evaluation.weights, offline=False)
        self._text = _Encoded(Encoder(config).text, self._prompts)

    def has(self, step: int) -> bool:
        """Tell whether the student was measured after a step."""
        return (self._of(step) / "results.json").is_file()

    def forget_beyond(self, step: int) -> None:
        """Remove what was measured after a step that is made again, and what was begun at the step itself."""
        if processes().is_main_process:
            for folder in self._folder.glob("step-*"):
                beyond = int(folder.name.removeprefix("step-")) - step
                if beyond > 0 or (beyond == 0 and not self.has(step)):
                    shutil.rmtree(folder)
        processes().wait_for_everyone()

    def _of(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}"

    def measure(self, step: int, trainer: Trainer) -> Metrics:
        """Return the metrics of the student after a step, each `eval/NAME`; write them to evaluation/step-N."""
        from swd_eval.runs.evaluate import evaluate

        folder, config, chosen = self._of(step), self._config, self._config.evaluation
        self._sample(folder / "samples", trainer)
        evaluate(
            folder / "samples",
            folder,
            chosen.metrics,
            kind=kind_of(config),
            ref=chosen.ref or config.images,
            ref_rows=self._folder / "reference",
            weights=chosen.weights,
            device=str(trainer.device),
            max_bad=config.data.max_bad,
        )
        processes().wait_for_everyone()
        found = read_object(folder / "results.json")["numbers"]
        numbers = {number["metric"]: float(number["value"]) for number in found}
        if processes().is_main_process:
            write_text(self._folder / "table.md", _table(self._folder))
            tqdm.write(f"step {step}: {', '.join(f'{name} {value:.4g}' for name, value in numbers.items())}")
        return {f"eval/{name}": value for name, value in numbers.items()}

    def _sample(self, folder: Path, trainer: Trainer) -> None:
        """Sample what the folder lacks, each process its share of the batches."""
        state, batch, prompts = processes(), len(trainer.places[0]), self._prompts
        names = file_names(len(prompts), trainer.schedule)
        files = [folder / name for name in names]
        if state.is_main_process:
            make_folder(folder)
            write_metadata(folder, names, prompts)
        state.wait_for_everyone()
        starts = unfinished(files, batch)
        state.wait_for_everyone()  # none writes before all have looked
        if not starts:
            return
        latents = load_latents(self._config.model, dtype=device_and_dtype()[1])  # it comes for this and goes
        latents.vae.to(trainer.device)
        pipe = SwDPipeline(trainer.roles.student, self._text, latents, trainer.schedule)
        with trainer.student.averaged():
            for turn in tqdm(
                range(0, len(starts), state.num_processes), "evaluate", leave=False, disable=not state.is_main_process
            ):
                # As many forwards in each process: where the base is split, none can alone.
                place = turn + state.process_index
                start = starts[min(place, len(starts) - 1)]
                media = pipe(prompts[start : start + batch], seed=SEED + start)
                for item, file in zip(media, files[start:], strict=False):
                    if place < len(starts):
                        save_media(item, file, pipe.fps)
        state.wait_for_everyone()


class _Encoded(Text):
    """Prompts encoded in advance: the encoders are gone."""

    def __init__(self, text: Text, prompts: Sequence[str]) -> None:
        self._rows = {
            prompt: {key: value.cpu() for key, value in text([prompt]).items()} for prompt in dict.fromkeys(prompts)
        }
        self._device = text.device

    def encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Look prompts up."""
        rows = [self._rows[prompt] for prompt in prompts]
        return {key: torch.cat([row[key] for row in rows]).to(self._device) for key in rows[0]}


def _table(folder: Path) -> str:
    """Return all evaluations of a run, a row each."""
    rows = {
        int(path.parent.name.removeprefix("step-")): {
            number["metric"]: number["value"] for number in read_object(path)["numbers"]
        }
        for path in sorted(folder.glob("step-*/results.json"))
    }
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [f"| step | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for step, row in rows.items():
        cells = (f"{row[name]:.4g}" if name in row else "" for name in names)
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
