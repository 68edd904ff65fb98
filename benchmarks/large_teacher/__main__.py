"""Train and export the large teacher: `uv run python -m benchmarks.large_teacher`. Interrupt and repeat at will.

On a GPU `--minutes 9` ends in time, whatever it computes in a second; on a CPU it takes hours.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.large_teacher.checker import check
from benchmarks.large_teacher.drawing import draw
from benchmarks.large_teacher.pipeline import LARGE, TRAINED
from benchmarks.large_teacher.scenes import Scene, random_scene
from benchmarks.teacher.export import UNSEEN, distinct_captions, export
from benchmarks.teacher.look import look_at
from benchmarks.teacher.stages import Settings
from benchmarks.teacher.train import Pictures, train
from swd_models.logs import quiet

SETTINGS = Settings(
    architecture=LARGE,
    latent_sizes=(32, 24, 20, 16, 12),
    early_shares=(0.1, 0.1, 0.2, 0.3, 0.3),
    late_shares=(0.6, 0.1, 0.1, 0.1, 0.1),
    vae_sizes=(128, 128, 128, 96, 80, 64),
    early=0.6,
    lr=6e-4,
    steps=12_000,
    vae_steps=2_500,
    vae_batch=8,
    save_every=100,
)
"""On a CPU: 145 GFLOP a step at first, 291 later."""
ON_GPU = replace(
    SETTINGS, num_scenes=100_000, batch=512, vae_batch=64, steps=40_000, early=0.3, save_every=2000, look_every=4000
)
"""2.3 TFLOP a step at first, 4.7 later; `--minutes` ends it before."""


def draw_rows(scenes: Sequence[Scene], device: torch.device) -> Pictures:
    """Return what draws scenes by their indices, each time anew, on the device."""
    rows = torch.tensor([scene.row for scene in scenes], device=device)

    def pictures(pick: Tensor, seed: int) -> Tensor:
        return 2 * draw(rows[pick.to(device)], torch.Generator(device).manual_seed(seed)) - 1

    return pictures


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
        return value

    return parse


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, then write the pipeline."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/large-teacher"), help="checkpoints and log")
    parser.add_argument("--out", type=Path, default=TRAINED, help="where the pipeline goes")
    parser.add_argument("--minutes", type=_positive(float), help="the most that this call takes, export and all")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU if there is one")
    for name in ("steps", "vae-steps", "num-scenes", "batch", "save-every", "look-every"):
        parser.add_argument(f"--{name}", type=_positive(int), help="instead of the default of the device")
    args = parser.parse_args(argv)
    quiet()
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    settings = SETTINGS if device.type == "cpu" else ON_GPU
    chosen = {
        name: getattr(args, name) for name in vars(args) if hasattr(settings, name) and getattr(args, name) is not None
    }
    settings = replace(settings, **chosen)
    rng = np.random.default_rng(settings.seed)
    scenes = [random_scene(rng) for _ in range(settings.num_scenes)]
    look = partial(look_at, captions=distinct_captions(random_scene, 64, UNSEEN, seed=77), check=check)
    captions = [scene.caption for scene in scenes]
    until = None if args.minutes is None else began + 60 * args.minutes
    pipe = train(args.work, draw_rows(scenes, device), captions, settings, look, device, until)
    export(pipe.to("cpu"), args.out, random_scene, 4000, 2048)


if __name__ == "__main__":
    main()
