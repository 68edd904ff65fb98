"""What checker and autoencoder reach: `uv run --group benchmarks python -m benchmarks.teacher.measure`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.teacher.checker import check
from benchmarks.teacher.scenes import Scene, draw, random_scene
from swd_models import load_latents
from swd_models.logs import quiet
from swd_spectral.measure import measure as measure_spectrum


def draw_unseen(count: int, seed: int = 12_345) -> tuple[list[Scene], Tensor]:
    """Draw scenes that training never sees, images (N, 3, 64, 64) in [0, 1]."""
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, "combinations" if i % 2 else "captions") for i in range(count)]
    return scenes, torch.from_numpy(np.stack([draw(scene, rng) for scene in scenes])).permute(0, 3, 1, 2)


def share_right(images: Tensor, captions: Sequence[str]) -> float:
    """Return the share of images that are all right."""
    pairs = zip(images.permute(0, 2, 3, 1).numpy(), captions, strict=True)
    return float(np.mean([check(image, caption).all_right for image, caption in pairs]))


@torch.no_grad()
def measure(count: int, model: str = "embedded") -> dict[str, float | str]:
    """Return all numbers by name."""
    scenes, images = draw_unseen(count)
    captions = [scene.caption for scene in scenes]
    shuffled = [captions[i] for i in np.random.default_rng(0).permutation(count)]
    autoencoder = load_latents(model)
    latents, decoded = [], []
    for few in tqdm(torch.split(images, 64), desc="round trip"):
        latents.append(autoencoder.encode(2 * few - 1))
        decoded.append((autoencoder.decode(latents[-1]) + 1) / 2)
    back, z = torch.cat(decoded), torch.cat(latents)
    error = (back - images).square().mean((1, 2, 3))
    spectrum = measure_spectrum([z])
    return {
        "scenes": count,
        "checker: all right": share_right(images, captions),
        "checker: all right, captions shuffled": share_right(images, shuffled),
        "checker: all right after a round trip": share_right(back, captions),
        "autoencoder: PSNR, mean over images (dB)": float((-10 * error.log10()).mean()),
        "autoencoder: PSNR of the mean error (dB)": float(-10 * error.mean().log10()),
        "latents: standard deviation": float(z.std()),
        "latents: standard deviation by channel": ", ".join(f"{s:.2f}" for s in z.std((0, 2, 3))),
        "latents: power law": str(spectrum.laws["space"]),
        "latents: power at 1..8 cycles": ", ".join(f"{spectrum.space.beyond(k):.2f}" for k in range(1, 9)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table; write it beside the other results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    quiet()
    rows = [
        f"| {name} | {value if isinstance(value, str) else format(value, '.4g')} |"
        for name, value in measure(args.count).items()
    ]
    head = [
        "# Checker and autoencoder of the embedded teacher",
        "",
        f"`{__doc__.split('`')[1]}`",
        "",
        "| | |",
        "|---|---|",
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "teacher.md").write_text("\n".join([*head, *rows]) + "\n")
    print((args.out / "teacher.md").read_text())


if __name__ == "__main__":
    main()
