"""Table 1 of the paper on the embedded teacher: three ways to reach a noisy latent at full scale.

A: noise the full-scale latents of real images. B: upscale low-scale latents, then noise. C: noise low-scale latents,
then upscale. Each is compared with A by its density, and by the images that the teacher makes on from it. B' is B at
the level at which its low frequencies are as noisy as C's: what of C's results is due to that alone.
`uv run --group benchmarks python -m benchmarks.studies.orders` writes benchmarks/results/orders.md,
and a record a seed.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.linalg import sqrtm
from torch import Tensor
from torch.nn.functional import unfold
from tqdm import tqdm

from benchmarks.provenance import fingerprint
from benchmarks.studies.records import Record, recorded
from benchmarks.studies.verdicts import difference, judge
from benchmarks.teacher.checker import check
from benchmarks.teacher.distances import features, spectral_distance
from benchmarks.teacher.sampling import Denoise, euler, guided
from benchmarks.teacher.scenes import draw, random_scene
from swd_eval.distances.kid import squared_mmd
from swd_models import load_denoiser, load_latents, load_text
from swd_models.loading import resolve_model
from swd_models.logs import quiet
from swd_sample.media import to_media
from swd_schedules import FlowMatching, downscale, shifted_grid, upscale
from swd_schedules.grid import shift_sigma

MODEL, LOW, FULL, GUIDANCE = "embedded", (8, 8), (16, 16), 3.0
TIMESTEPS = (200, 400, 600, 800)
FLOW = FlowMatching()
Noisy = tuple[Tensor, float]
"""A noisy latent, and the level from which the teacher goes on."""
Found = dict[str, dict[str, dict[str, float]]]
"""Numbers by timestep and order."""


@dataclass(frozen=True)
class Latents:
    """Latents of the same scenes at both scales."""

    low: Tensor
    full: Tensor


def order_a(latents: Latents, sigma: float, generator: torch.Generator) -> Noisy:
    """Noise real full-scale latents."""
    return FLOW.add_noise(latents.full, _noise(latents.full, generator), sigma), sigma


def order_b(latents: Latents, sigma: float, generator: torch.Generator) -> Noisy:
    """Upscale low-scale latents, then noise: what a scale-wise sampler does."""
    return FLOW.add_noise(upscale(latents.low, FULL), _noise(latents.full, generator), sigma), sigma


def order_c(latents: Latents, sigma: float, generator: torch.Generator) -> Noisy:
    """Noise low-scale latents, then upscale: the noise is no longer white."""
    return upscale(FLOW.add_noise(latents.low, _noise(latents.low, generator), sigma), FULL), sigma


def order_b_as_c(latents: Latents, sigma: float, generator: torch.Generator) -> Noisy:
    """Do as B at the level whose low frequencies have the signal-to-noise ratio of C's.

    Upscaling by rho keeps amplitudes, and so multiplies signal and noise of the low frequencies by rho; white noise of
    the full size has 1 there. So C at t is, there, as noisy as B at rho t / (1 + (rho - 1) t).
    """
    return order_b(latents, shift_sigma(sigma, FULL[0] / LOW[0]), generator)


ORDERS: dict[str, Callable[[Latents, float, torch.Generator], Noisy]] = {
    "A": order_a, "B": order_b, "C": order_c, "B'": order_b_as_c,
}  # fmt: skip


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
def measure(count: int, seed: int, batch: int = 64) -> Found:
    """Return distances to what is real, and the share all right, by timestep and order."""
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(count)]
    pixels = torch.from_numpy(np.stack([draw(scene, rng).transpose(2, 0, 1) for scene in scenes])) * 2 - 1
    autoencoder, denoiser, text = load_latents(MODEL), load_denoiser(MODEL), load_text(MODEL)
    small = downscale(pixels, autoencoder.pixels(LOW))
    latents = Latents(autoencoder.encode(small), autoencoder.encode(pixels))
    cond, uncond = text([scene.caption for scene in scenes]), text.uncond()
    real = features([each for each in to_media(pixels) if isinstance(each, Image.Image)])

    def make(x_t: Tensor, sigma: float, name: str) -> Tensor:
        images = []
        for start in tqdm(range(0, count, batch), desc=name):
            some = slice(start, start + batch)
            denoise = guided(denoiser, {key: value[some] for key, value in cond.items()}, uncond, GUIDANCE)
            images.append(autoencoder.decode(continue_sampling(denoise, x_t[some], sigma)))
        return torch.cat(images)

    found: Found = {}
    for t in TIMESTEPS:
        for name, order in ORDERS.items():
            x_t, sigma = order(latents, t / 1000, torch.Generator().manual_seed(seed))
            true, _ = order_a(latents, sigma, torch.Generator().manual_seed(seed))
            images = make(x_t, sigma, f"seed {seed}, t={t}, {name}")
            right = [
                check((image.permute(1, 2, 0).numpy() + 1) / 2, scene.caption).all_right
                for image, scene in zip(images, scenes, strict=True)
            ]
            made = features([each for each in to_media(images) if isinstance(each, Image.Image)])
            found.setdefault(str(t), {})[name] = {
                "spectral distance": spectral_distance(x_t, true),
                "patch distance": patch_distance(images, pixels),
                "kid x 1000": 1000 * float(squared_mmd(made, real)),
                "all right": float(np.mean(right)),
            }
    return found


# Better by the first, at every t, or as good within a margin; the smaller distance or the larger share wins.
CLAIMS = (
    ("B's latents are nearer to real ones than C's", "spectral distance", "C", "B", 0.0),
    ("B's images are nearer to real ones than C's (table 1)", "patch distance", "C", "B", 0.0),
    ("so by KID, the kin of table 1's FID", "kid x 1000", "C", "B", 0.0),
    ("B's images show what the caption says more often than C's", "all right", "B", "C", 0.0),
    ("as often within .02, where B's low frequencies are as noisy as C's (B')", "all right", "B'", "C", 0.02),
)


def page(records: Sequence[Record], count: int, seeds: Sequence[int]) -> str:
    """Return the Markdown page."""
    tables: list[Found] = [record["table"] for record in records]
    names = list(tables[0][str(TIMESTEPS[0])]["A"])
    machines = "; ".join(sorted({record["machine"] for record in records}))
    levels = ", ".join(f"{t} -> {1000 * shift_sigma(t / 1000, FULL[0] / LOW[0]):.0f}" for t in TIMESTEPS)
    lines = [
        f"""# Table 1 on the embedded teacher: how to reach a noisy latent

`uv run --group benchmarks python -m benchmarks.studies.orders`; {count} scenes; seeds {", ".join(map(str, seeds))};
latents {LOW[0]} -> {FULL[0]}; guidance {GUIDANCE:g}; {machines}. A: real noisy latents; B: upscale, then noise; C:
noise, then upscale; B': B at a later timestep ({levels}), where its low frequencies are as noisy as C's. Means and,
after ±, standard deviations over seeds.

Spectral distance in dB between the noisy latents and real ones of that level; patch distance (Frechet, patches of 8x8
pixels) and KID (EfficientNet-Lite0) between the images that the teacher makes on from them and the scenes. All right
can contradict them: C's upscaled noise hides more of the small image's low frequencies, so that the teacher draws more
of the scene anew, as the caption has it. B' gives B as much noise there, to tell that from the order itself.

| t | order | {" | ".join(names)} |
{"|---" * (len(names) + 2)}|"""
    ]
    for t in map(str, TIMESTEPS):
        for order in ORDERS:
            cells = (_cell([table[t][order][name] for table in tables]) for name in names)
            lines.append(f"| {t} | {order} | {' | '.join(cells)} |")
    lines += ["", f"| claim | {' | '.join(f't = {t}' for t in TIMESTEPS)} |", "|---" * (len(TIMESTEPS) + 1) + "|"]
    for text, *claim in CLAIMS:
        cells = (_verdict(tables, str(t), *claim) for t in TIMESTEPS)
        lines.append(f"| {text} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3g}" + (f" ± {np.std(values, ddof=1):.1g}" if len(values) > 1 else "")


def _verdict(tables: Sequence[Found], t: str, column: str, one: str, other: str, margin: float = 0.0) -> str:
    mean, half = difference([table[t][one][column] for table in tables], [table[t][other][column] for table in tables])
    return f"{judge(mean, half, margin)}: {mean:+.2g} ± {half:.1g}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=256, help="scenes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    quiet()
    of = {"teacher": fingerprint(Path(resolve_model(MODEL))), "scenes": args.count, "guidance": GUIDANCE}
    records = [
        recorded(
            args.out / "orders" / f"{seed}.json",
            of | {"seed": seed},
            lambda seed=seed: {"table": measure(args.count, seed)},
        )
        for seed in args.seeds
    ]
    text = page(records, args.count, args.seeds)
    (args.out / "orders.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
