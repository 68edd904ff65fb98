"""Table 1 of the paper on the embedded teacher: three ways to reach a noisy latent at full scale.

A: noise the full-scale latents of real images. B: upscale low-scale latents, then noise. C: noise low-scale latents,
then upscale. Each is compared with A by its density, and by the images that the teacher makes on from it.
`uv run --group benchmarks python -m benchmarks.orders` writes benchmarks/results/orders.md and .json.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch.nn.functional import unfold
from tqdm import tqdm

from benchmarks.provenance import fingerprint, machine, versions
from benchmarks.teacher.checker import check
from benchmarks.teacher.distances import spectral_distance
from benchmarks.teacher.sampling import Denoise, euler, guided
from benchmarks.teacher.scenes import draw, random_scene
from swd_models import load_denoiser, load_latents, load_text
from swd_models.loading import quiet, resolve_model
from swd_schedules import FlowMatching, downscale, shifted_grid, upscale

MODEL, LOW, FULL, GUIDANCE = "embedded", (8, 8), (16, 16), 3.0
TIMESTEPS = (200, 400, 600, 800)
FLOW = FlowMatching()


@dataclass(frozen=True)
class Latents:
    """Latents of the same scenes at both scales."""

    low: Tensor
    full: Tensor


def order_a(latents: Latents, sigma: float, generator: torch.Generator) -> Tensor:
    """Noise real full-scale latents."""
    return FLOW.add_noise(latents.full, _noise(latents.full, generator), sigma)


def order_b(latents: Latents, sigma: float, generator: torch.Generator) -> Tensor:
    """Upscale low-scale latents, then noise: what a scale-wise sampler does."""
    return FLOW.add_noise(upscale(latents.low, FULL), _noise(latents.full, generator), sigma)


def order_c(latents: Latents, sigma: float, generator: torch.Generator) -> Tensor:
    """Noise low-scale latents, then upscale: the noise is no longer white."""
    return upscale(FLOW.add_noise(latents.low, _noise(latents.low, generator), sigma), FULL)


ORDERS: dict[str, Callable[[Latents, float, torch.Generator], Tensor]] = {"A": order_a, "B": order_b, "C": order_c}


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator)


def continue_sampling(denoise: Denoise, x_t: Tensor, sigma: float) -> Tensor:
    """Go on from a noise level by Euler steps along the teacher's 28-step grid."""
    return euler(denoise, x_t, [sigma, *(s for s in shifted_grid(28) if s < sigma - 1e-3)])


def patch_distance(x: Tensor, y: Tensor, side: int = 8) -> float:
    """Return the Frechet distance of Gaussians fitted to the patches (side x side x 3) of two sets of images.

    Images are in [-1, 1]. FID without a network: it sees blur, noise and wrong texture, and needs no weights.
    """
    moments = []
    for images in (x, y):
        patches = unfold(images, side, stride=side // 2).transpose(1, 2).flatten(0, 1).double().numpy()
        moments.append((patches.mean(0), np.cov(patches, rowvar=False)))
    (mean_x, cov_x), (mean_y, cov_y) = moments
    return float(((mean_x - mean_y) ** 2).sum() + np.trace(cov_x + cov_y - 2 * sqrtm(cov_x @ cov_y).real))


@torch.no_grad()
def measure(count: int, batch: int = 64, seed: int = 0) -> dict[str, dict[str, dict[str, float]]]:
    """Return spectral distance, patch distance and share all right, by timestep and order."""
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(count)]
    pixels = torch.from_numpy(np.stack([draw(scene, rng).transpose(2, 0, 1) for scene in scenes])) * 2 - 1
    autoencoder, denoiser, text = load_latents(MODEL), load_denoiser(MODEL), load_text(MODEL)
    small = downscale(pixels, autoencoder.pixels(LOW))
    latents = Latents(autoencoder.encode(small), autoencoder.encode(pixels))
    cond, uncond = text([scene.caption for scene in scenes]), text.uncond()

    def make(x_t: Tensor, sigma: float, name: str) -> Tensor:
        images = []
        for start in tqdm(range(0, count, batch), desc=name):
            some = slice(start, start + batch)
            denoise = guided(denoiser, {key: value[some] for key, value in cond.items()}, uncond, GUIDANCE)
            images.append(autoencoder.decode(continue_sampling(denoise, x_t[some], sigma)))
        return torch.cat(images)

    found: dict[str, dict[str, dict[str, float]]] = {}
    for t in TIMESTEPS:
        noisy = {name: order(latents, t / 1000, torch.Generator().manual_seed(seed)) for name, order in ORDERS.items()}
        for name, x_t in noisy.items():
            images = make(x_t, t / 1000, f"t={t} {name}")
            right = [
                check((image.permute(1, 2, 0).numpy() + 1) / 2, scene.caption).all_right
                for image, scene in zip(images, scenes, strict=True)
            ]
            found.setdefault(str(t), {})[name] = {
                "spectral distance": spectral_distance(x_t, noisy["A"]),
                "patch distance": patch_distance(images, pixels),
                "all right": float(np.mean(right)),
            }
    return found


def page(found: Mapping[str, Mapping[str, Mapping[str, float]]], count: int) -> str:
    """Return the Markdown page."""
    names = list(next(iter(next(iter(found.values())).values())))
    head = f"""# Table 1 on the embedded teacher: how to reach a noisy latent

`uv run --group benchmarks python -m benchmarks.orders`; {count} scenes; latents {LOW[0]} -> {FULL[0]};
guidance {GUIDANCE:g}; {machine()}. A: real noisy latents; B: upscale, then noise; C: noise, then upscale.

Spectral distance in dB between the noisy latents and A's; patch distance (Frechet, patches of 8x8 pixels) between the
images that the teacher makes on from them and the scenes.

| t | order | {" | ".join(names)} |
"""
    lines = [head + "|---" * (len(names) + 2) + "|"]
    for t, orders in found.items():
        for order, values in orders.items():
            lines.append(f"| {t} | {order} | " + " | ".join(f"{values[name]:.3g}" for name in names) + " |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=512, help="scenes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    quiet()
    found = measure(args.count)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "orders.md").write_text(page(found, args.count))
    provenance = {"machine": machine(), "versions": versions(), "teacher": fingerprint(Path(resolve_model(MODEL)))}
    (args.out / "orders.json").write_text(
        json.dumps(provenance | {"count": args.count, "table": found}, indent=1) + "\n"
    )
    print((args.out / "orders.md").read_text())


if __name__ == "__main__":
    main()
