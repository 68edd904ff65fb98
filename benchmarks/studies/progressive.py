"""Spectral Progressive Diffusion (arXiv 2605.18736), the peer that needs no training, beside fewer steps and students.

The undistilled teacher takes its first steps at a smaller size, where noise hides what that size cannot hold; then the
DCT of its *noisy* latent is extended by noise. `uv run --group benchmarks python -m benchmarks.studies.progressive`
writes benchmarks/results/progressive.md, its picture, and a record for each row and seed.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.latency.flops import forward_flops
from benchmarks.provenance import fingerprint
from benchmarks.studies.claims import SCHEDULES
from benchmarks.studies.records import Record, recorded, slug
from benchmarks.studies.students import measure
from benchmarks.studies.verdicts import verdict
from benchmarks.teacher.sampling import Denoise, euler, guided
from benchmarks.teacher.score import table, unseen_prompts
from benchmarks.teacher.worlds import world_of
from swd_models import load_denoiser, load_latents, load_text
from swd_models.loading import resolve_model
from swd_models.logs import quiet
from swd_models.parts import Media
from swd_sample.media import to_media
from swd_schedules import downscale, shifted_grid, upscale
from swd_spectral import Density, rapsd
from swd_spectral.masking import matched_sigma

MODEL, LOW, FULL, GUIDANCE = "embedded", (8, 8), (16, 16), 3.0
RATIO = FULL[0] / LOW[0]
STEPS = (28, 14, 8, 5, 3)
TOLERANCES = (0.01, 0.05)
STUDENT = "scale-wise, 4 steps"
Rows = dict[str, list[Record]]


def activation(power: float, tolerance: float) -> float:
    """Return the noise level from which on a frequency of this clean power (white noise: 1) shows.

    1 / (1 + sqrt(d / (P (1 + P - d)))); above it the best prediction there is noise, to within the tolerance d.
    """
    return 1 / (1 + sqrt(tolerance / (power * (1 + power - tolerance))))


def switch_level(density: Density, tolerance: float) -> float:
    """Return the level at which the small size has to be left: where the first frequency shows that it cannot hold."""
    return activation(density.beyond(LOW[0] / 2), tolerance)


def extend(x_t: Tensor, sigma: float, noise: Tensor) -> Tensor:
    """Take a noisy latent at the level `matched_sigma(sigma, ratio)` to the size of `noise`, where it is at `sigma`.

    Its DCT keeps the low frequencies, rescaled; the others get the noise that they would have.
    """
    low, full = tuple(x_t.shape[2:]), tuple(noise.shape[2:])
    ratio = sqrt(prod(full) / prod(low))
    share = sigma / (ratio * matched_sigma(sigma, ratio))  # of the signal: (1 - sigma) / (1 - matched)
    high = noise - upscale(downscale(noise, low, "dct"), full, "dct")
    return share * upscale(x_t, full, "dct") + sigma * high


def sample_progressive(
    denoise: Denoise, sigmas: Sequence[float], switch: float, generators: Sequence[torch.Generator], channels: int
) -> Tensor:
    """Sample latents by Euler steps: at the small size as long as the level is above `switch`, then at the full one.

    `sigmas` are levels at the full size; at the small one each stands for the level with its signal-to-noise ratio.
    """
    above = sum(sigma > switch for sigma in sigmas)
    if above == 0:
        return euler(denoise, _noise(generators, channels, FULL), sigmas)
    small = [matched_sigma(sigma, RATIO) for sigma in sigmas[: above + 1]]
    x_t = euler(denoise, _noise(generators, channels, LOW), small)
    return euler(denoise, extend(x_t, sigmas[above], _noise(generators, channels, FULL)), sigmas[above:])


def _noise(generators: Sequence[torch.Generator], channels: int, size: tuple[int, ...]) -> Tensor:
    return torch.stack([torch.randn(channels, *size, generator=generator) for generator in generators])


class Teacher:
    """The undistilled teacher in steps of both sizes."""

    def __init__(self) -> None:
        self.latents, self.denoiser, self.text = load_latents(MODEL), load_denoiser(MODEL), load_text(MODEL)
        self.uncond = self.text.uncond()

    @torch.no_grad()
    def sample(self, num_steps: int, switch: float, captions: Sequence[str], seed: int) -> list[Media]:
        """Sample caption i from seed + i."""
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(captions))]
        denoise = guided(self.denoiser, self.text(captions), self.uncond, GUIDANCE)
        found = sample_progressive(denoise, shifted_grid(num_steps), switch, generators, self.denoiser.num_channels)
        return to_media(self.latents.decode(found))

    @torch.no_grad()
    def density(self, captions: Sequence[str]) -> Density:
        """Measure the spectrum of full-size latents of drawings: of what the model was trained on."""
        pixels = torch.from_numpy(
            np.stack([np.asarray(image, np.float32) for image in world_of(MODEL).draw(captions, 1)])
        )
        return rapsd(self.latents.encode(pixels.movedim(-1, 1) / 127.5 - 1))


@dataclass(frozen=True)
class Cost:
    """What an image takes."""

    cells: int
    """Latent cells over all forwards: what the paper's models, of thousands of image tokens, are as costly as."""
    flops: int
    """Of this small teacher, whose text outweighs its image: it hides most of what smaller sizes save."""

    @classmethod
    def of(cls, sizes: Sequence[tuple[int, ...]], forwards: int) -> "Cost":
        """Count steps of some sizes, with one forward each or with two for guidance."""
        cells, flops = sum(map(prod, sizes)), sum(forward_flops(MODEL, size) for size in sizes)
        return cls(forwards * cells, forwards * flops)


def sizes_of(num_steps: int, switch: float) -> list[tuple[int, ...]]:
    """Return the size of each step."""
    return [LOW if sigma > switch else FULL for sigma in shifted_grid(num_steps)[:-1]]


def measure_all(args: argparse.Namespace) -> tuple[Rows, dict[str, Cost], dict[str, float]]:
    """Score what is missing; return the records of each row, its cost, and the level of each tolerance's switch."""
    teacher, captions = Teacher(), unseen_prompts(MODEL, args.count)
    weights = fingerprint(Path(resolve_model(MODEL)))
    density = teacher.density(captions)
    levels = {f"d = {tolerance:g}": switch_level(density, tolerance) for tolerance in TOLERANCES}
    plans = {"full scale": 1.0} | {f"progressive, {name}": level for name, level in levels.items()}
    rows: Rows = {}
    costs: dict[str, Cost] = {}
    for kind, switch in plans.items():
        for num_steps in args.steps:
            name = f"{kind}, {num_steps} steps"
            costs[name] = Cost.of(sizes_of(num_steps, switch), forwards=2)
            for seed in args.seeds:
                path = args.out / "progressive" / f"{slug(name)}-{seed}.json"
                of = {
                    "teacher": weights, "prompts": len(captions), "steps": num_steps, "guidance": GUIDANCE,
                    "sizes": [LOW, FULL], "switch": round(switch, 6), "seed": seed,
                }  # fmt: skip
                sample = partial(teacher.sample, num_steps, switch)
                make = partial(measure, SCHEDULES, name, sample, captions, seed, path.with_suffix(".png"))
                rows.setdefault(name, []).append(recorded(path, of, make))
    return rows, costs, levels


def add_student(rows: Rows, costs: dict[str, Cost], args: argparse.Namespace) -> None:
    """Add the scale-wise student of the study of schedules, if it has been trained for these seeds."""
    paths = [args.out / SCHEDULES.page / f"{slug(STUDENT)}-{seed}.json" for seed in args.seeds]
    if all(path.is_file() for path in paths):
        rows[f"student, {STUDENT}"] = [json.loads(path.read_text()) for path in paths]
        costs[f"student, {STUDENT}"] = Cost.of(SCHEDULES.base.scales.sizes, forwards=1)


def verdicts(rows: Rows, costs: Mapping[str, Cost], steps: Sequence[int]) -> str:
    """Compare each progressive row with as many steps at full scale, and with full scale at equal cost."""
    lines = ["| claim | all right: difference | verdict | kid x 1000: difference |", "|---|---|---|---|"]
    for name in (name for name in rows if name.startswith("progressive")):
        full = f"full scale, {name.rsplit(', ', 1)[1]}"
        text = (
            f"{name}: as good as full scale with as many, at {costs[name].cells / costs[full].cells:.2f} of its cells"
        )
        lines.append(verdict(text, rows[name], rows[full], margin=0.02))
        others = {costs[other].cells: rows[other] for other in (f"full scale, {num} steps" for num in steps)}
        if min(others) <= costs[name].cells:
            text = f"{name}: better than full scale with as many cells (between its rows)"
            lines.append(verdict(text, rows[name], at_cost(others, costs[name].cells)))
    student, most = f"student, {STUDENT}", f"progressive, d = {TOLERANCES[0]:g}, {max(steps)} steps"
    if student in rows:
        text = f"{student}: as good as {most}, at {costs[student].cells / costs[most].cells:.3f} of its cells"
        lines.append(verdict(text, rows[student], rows[most], margin=0.02))
    return "\n".join(lines)


def at_cost(others: Mapping[float, Sequence[Record]], cost: float) -> list[dict[str, Any]]:
    """Interpolate scores, seed by seed, linearly in the logarithm of the cost."""
    known = sorted(others)
    columns = ("all_right", "kid x 1000")
    return [
        {
            "scores": {
                column: float(np.interp(np.log(cost), np.log(known), [others[c][i]["scores"][column] for c in known]))
                for column in columns
            }
        }
        for i in range(len(others[known[0]]))
    ]


def plot(rows: Rows, costs: Mapping[str, Cost]) -> Figure:
    """Draw quality over cost, a line for each way; bars are the standard deviation over seeds."""
    figure = Figure(figsize=(10, 4), layout="constrained", dpi=110)
    labels = {"all_right": "all right", "kid x 1000": "KID x 1000 to drawings"}
    for axes, (column, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        for kind in dict.fromkeys(name.rsplit(", ", 1)[0] for name in rows):
            names = [name for name in rows if name.rsplit(", ", 1)[0] == kind]
            values = np.array([[record["scores"][column] for record in rows[name]] for name in names])
            spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
            axes.errorbar(
                [costs[name].cells for name in names], values.mean(axis=1), spread, marker="o", capsize=3, label=kind
            )
        axes.set(xscale="log", xlabel="latent cells over all forwards of an image, guidance included", ylabel=label)
        axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure


def write(rows: Rows, costs: Mapping[str, Cost], levels: Mapping[str, float], args: argparse.Namespace) -> None:
    """Write the page and the picture."""
    machines = sorted({record["machine"] for records in rows.values() for record in records})
    count = len(unseen_prompts(MODEL, args.count))
    switches = "; ".join(f"{name}: {1000 * level:.0f}" for name, level in levels.items())
    priced = {
        f"{name} ({costs[name].cells} cells, {costs[name].flops / 1e9:.1f} GFLOP)": [r["scores"] for r in records]
        for name, records in rows.items()
    }
    (args.out / "progressive.md").write_text(f"""# The peer without training: Spectral Progressive Diffusion

`uv run --group benchmarks python -m benchmarks.studies.progressive`; seeds {", ".join(map(str, args.seeds))}; {count}
prompts; guidance {GUIDANCE:g}, for students none. Euler steps on the teacher's grid, {LOW[0]}x{LOW[1]} above the
timestep at which the first frequency shows that this size cannot hold ({switches}), then {FULL[0]}x{FULL[1]}.
Implemented from the paper (arXiv 2605.18736) with our own code. Costs are counted: cells over all forwards,
and FLOPs, of which this small teacher spends most on text, other than the paper's models. {"; ".join(machines)}.

{table(priced)}

{verdicts(rows, costs, args.steps)}

![quality over cost](progressive.png)
""")
    plot(rows, costs).savefig(args.out / "progressive.png")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--count", type=int, help="prompts (default: all)")
    args = parser.parse_args(argv)
    quiet()
    args.out.mkdir(parents=True, exist_ok=True)
    rows, costs, levels = measure_all(args)
    add_student(rows, costs, args)
    write(rows, costs, levels, args)
    print((args.out / "progressive.md").read_text())


if __name__ == "__main__":
    main()
