"""What a run tells while it trains: metrics.jsonl, and trackers for those who would rather look."""

import json
import math
import os
import secrets
import sys
from pathlib import Path
from typing import Self

import numpy as np
import torch
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker
from PIL import Image
from tqdm import tqdm

from swd_data import flush, make_folder, save_image, write_text
from swd_distill.config import Config
from swd_distill.devices import processes
from swd_distill.training.network import Metrics
from swd_models.known.facts import EXPERTS
from swd_schedules.devices import peak_bytes

TIMES = ("seconds", "wait", "gib")
"""Metrics of the machine; all others are those of an unbroken run, bit for bit, however often a run is resumed.

But for `tflop` where captions differ in length: there the first batch of a stage since the start counts for all.
"""


class Log:
    """What the main process writes and shows of a run from a step on; in the others it does nothing.

    Lines of iterations that will be run again are dropped.
    """

    def __init__(self, config: Config, step: int) -> None:
        self._on, self._folder, total = processes().is_main_process, config.out, config.training.iterations
        trackers = config.training.trackers if self._on and step < total else ()
        self._trackers = [_start(name, config, step) for name in trackers]
        self._bar = tqdm(total=total, initial=step, desc="train", unit="it", disable=not self._on)
        if not self._on:
            return
        path = config.out / "metrics.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()[:step]
            write_text(path, "".join(f"{line}\n" for line in lines))
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._on:
            self._file.close()
            for tracker in self._trackers:
                tracker.finish()

    def write(self, step: int, found: Metrics) -> None:
        """Note the metrics of a step; those of the student for the stage by itself too, which tells levels apart."""
        self._bar.update()
        self._bar.set_postfix({name: f"{found[name]:.3g}" for name in ("mmd", "dmd", "gan") if name in found})
        if not self._on:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in found.items()}  # JSON knows no NaN
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        stage = f"stage-{found['stage']:.0f}"
        by_stage = {f"{stage}/{name}": value for name, value in found.items() if "/" not in name and name not in TIMES}
        for tracker in self._trackers:
            tracker.log(found | by_stage, step=step)

    def picture_of(self, step: int) -> Path:
        """Return where the samples of a step are."""
        return self._folder / "samples" / f"step-{step:06d}.png"

    def picture(self, step: int, image: Image.Image) -> None:
        """Write samples/step-N.png, and show it."""
        if not self._on:
            return
        path = self.picture_of(step)
        make_folder(path.parent)
        save_image(image, path)
        pixels = np.asarray(image.convert("RGB"))[None]
        for tracker in self._trackers:
            form = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"samples": pixels}, step=step, **form)

    def evaluation(self, step: int, found: Metrics) -> None:
        """Show what was measured of the student; it is on disk already."""
        for tracker in self._trackers:
            tracker.log(found, step=step)

    def flush(self) -> None:
        """Bring the file to the disk."""
        if self._on:
            self._file.flush()
            os.fsync(self._file.fileno())
            flush(self._folder)


def peak_gib(device: torch.device) -> float | None:
    """Return the most memory that the process has held: on an accelerator that of tensors, else all of it.

    Of a process Windows tells it to other libraries alone: None.
    """
    if device.type != "cpu":
        return peak_bytes(device) / 2**30
    if sys.platform == "win32":
        return None
    import resource  # of no other system

    kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kept / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, else KiB


def _start(name: str, config: Config, step: int) -> GeneralTracker:
    run = "/".join(config.out.parts[-2:]) if config.out.name in EXPERTS else config.out.name
    kinds = {
        "tensorboard": lambda: TensorBoardTracker("tensorboard", config.out, purge_step=step + 1),
        "wandb": lambda: WandBTracker("swd", name=run, config=config.to_json(), id=_wandb_id(config), resume="allow"),
    }
    tracker = kinds[name]()
    try:
        tracker.start()
    except ImportError as error:
        raise ValueError(f"expected {name} for --training.trackers, got none: pip install {name}") from error
    return tracker


def _wandb_id(config: Config) -> str:
    """Return what W&B knows a run by: with another, a resumed one would be a new one there."""
    path = config.out / ".wandb"
    if not path.is_file():
        write_text(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8")
