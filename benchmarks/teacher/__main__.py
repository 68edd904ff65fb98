"""Train and export the embedded teacher: `uv run python -m benchmarks.teacher`. Interrupt and repeat at will."""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.teacher.checker import check
from benchmarks.teacher.export import UNSEEN, distinct_captions, export
from benchmarks.teacher.look import look_at
from benchmarks.teacher.scenes import PIXELS, draw, random_scene
from benchmarks.teacher.stages import Settings
from benchmarks.teacher.train import train

ASSET = Path("packages/swd-models/src/swd_models/assets/teacher")


def draw_scenes(settings: Settings) -> tuple[Tensor, list[str]]:
    """Draw the training scenes: uint8 images (N, 3, 64, 64) and their captions."""
    rng = np.random.default_rng(settings.seed)
    scenes = [random_scene(rng) for _ in range(settings.num_scenes)]
    images = np.empty((settings.num_scenes, 3, PIXELS, PIXELS), np.uint8)
    for i, scene in enumerate(tqdm(scenes, desc="draw")):
        images[i] = (draw(scene, rng).transpose(2, 0, 1) * 255).round()
    return torch.from_numpy(images), [scene.caption for scene in scenes]


def main() -> None:
    """Train what is missing, then write the pipeline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/teacher"), help="checkpoints and log")
    parser.add_argument("--out", type=Path, default=ASSET, help="where the pipeline goes")
    args = parser.parse_args()
    settings = Settings()
    images, captions = draw_scenes(settings)

    def pictures(pick: Tensor, seed: int) -> Tensor:
        return images[pick].float() / 127.5 - 1

    look = partial(look_at, captions=distinct_captions(random_scene, 64, UNSEEN, seed=77), check=check)
    pipe = train(args.work, pictures, captions, settings, look, torch.device("cpu"))
    export(pipe, args.out, random_scene, 2000, 512)


if __name__ == "__main__":
    main()
