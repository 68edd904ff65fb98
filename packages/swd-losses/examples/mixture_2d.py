"""Distil a flow-matching model of 2-D points into a two-step sampler with MMD, DMD and GAN together.

An "image" here is a set of points of one class and a token is a point, so latents are (B, 2, points) and every loss
keeps the meaning that it has on images. Run: `python examples/mixture_2d.py [--recipe released|paper]`.
"""

import argparse
import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from swd_losses import (
    PAPER,
    RELEASED,
    DMDObjective,
    FakeObjective,
    GANObjective,
    MMDObjective,
    Recipe,
    RunningBalance,
)

POINTS = 32
BATCH = 8
WIDTH = 64
BLOCK = 1
SIGMAS = (1.0, 0.737)
# So small a fake model keeps up with one update a step; all else is as the recipes say.
RECIPES = {"released": replace(RELEASED, fake_updates=1), "paper": replace(PAPER, fake_updates=1)}
# The teacher's grid of 28 levels: shifted, as for SD3.5.
GRID = 3 * (u := torch.linspace(1, 0.003, 28)) / (1 + 2 * u)


@dataclass
class Output:
    """What `swd_losses.Prediction` asks for."""

    x0: Tensor | None
    features: Tensor | None


class FlowMatching:
    """What `swd_losses.NoiseProcess` asks for."""

    def add_noise(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return x_t = (1 - sigma) x0 + sigma noise."""
        s = sigma[:, None, None]
        return (1 - s) * x0 + s * noise


class PointDenoiser(nn.Module):
    """Predict each point's velocity with residual blocks: a `swd_losses.Denoiser`."""

    def __init__(self, width: int = WIDTH, num_blocks: int = 3) -> None:
        super().__init__()
        self.inputs = nn.Linear(2, width)
        self.level = nn.Linear(16, width)
        self.label = nn.Embedding(2, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(num_blocks)
        )
        self.outputs = nn.Linear(width, 2)

    def forward(
        self, x_t: Tensor, sigma: Tensor, cond: Mapping[str, Tensor], *, block: int | None = None, stop: bool = False
    ) -> Output:
        """Return x0 = x_t - sigma velocity and the hidden points after `block`."""
        waves = sigma[:, None] * torch.arange(1, 9) * math.pi
        hidden = self.inputs(x_t.mT)
        hidden = hidden + (self.level(torch.cat([waves.sin(), waves.cos()], 1)) + self.label(cond["label"]))[:, None]
        features = None
        for index, layer in enumerate(self.blocks):
            hidden = hidden + layer(hidden)
            if index == block:
                features = hidden
                if stop:
                    return Output(None, features)
        return Output(x_t - sigma[:, None, None] * self.outputs(hidden).mT, features)


def draw_data(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw points of eight Gaussians on a circle: class 0 owns the even ones, class 1 the odd ones."""
    modes = 2 * torch.randint(4, (len(labels), POINTS), generator=generator) + labels[:, None]
    angles = modes * math.pi / 4
    centres = 1.5 * torch.stack([angles.cos(), angles.sin()], 1)
    return centres + 0.1 * torch.randn(centres.shape, generator=generator)


def draw_labels(generator: torch.Generator) -> Tensor:
    """Draw one class for each set."""
    return torch.randint(2, (BATCH,), generator=generator)


def draw_sigma(interval: tuple[float, float], levels: str, generator: torch.Generator) -> Tensor:
    """Draw a noise level for each set as a recipe says."""
    low, high = interval
    if levels == "uniform":
        return low + (high - low) * torch.rand(BATCH, generator=generator)
    grid = GRID[(low <= GRID) & (high >= GRID)]
    return grid[torch.randint(len(grid), (BATCH,), generator=generator)]


def train_teacher(num_steps: int, generator: torch.Generator) -> PointDenoiser:
    """Train by flow matching, in the velocity."""
    teacher, process = PointDenoiser(), FlowMatching()
    optimizer = torch.optim.Adam(teacher.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in range(num_steps):
        labels = draw_labels(generator)
        x0 = draw_data(labels, generator)
        sigma = torch.rand(BATCH, generator=generator).clamp(min=1e-2)
        noise = torch.randn(x0.shape, generator=generator)
        prediction = teacher(process.add_noise(x0, noise, sigma), sigma, {"label": labels})
        loss = ((prediction.x0 - x0) / sigma[:, None, None]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return teacher.requires_grad_(False)


def weigh(slopes: dict[str, Tensor], recipe: Recipe, shared: RunningBalance) -> dict[str, Tensor]:
    """Weigh the gradients to x0: as shares of MMD's over the run, or each by itself."""
    shares = {"dmd": recipe.dmd_weight, "gan": recipe.gan_weight}
    if recipe.balance:
        return shared(slopes, shares)
    weights = {"mmd": recipe.mmd_weight} | shares
    return {name: weights[name] * slope for name, slope in slopes.items()}


def distil(teacher: PointDenoiser, recipe: Recipe, num_steps: int, generator: torch.Generator) -> PointDenoiser:
    """Train a student that starts as the teacher."""
    process = FlowMatching()
    student, fake = (copy.deepcopy(teacher).requires_grad_() for _ in range(2))
    shared = RunningBalance()
    gan = GANObjective(fake, recipe.head(WIDTH), process, BLOCK, recipe.gradient_penalty)
    mmd = MMDObjective(
        teacher if recipe.mmd_features == "teacher" else fake, process, BLOCK, recipe.kernel(), recipe.mmd_noised
    )
    dmd = DMDObjective(teacher, fake, process, guidance=1.0)  # points have no empty prompt to be guided from
    fake_step = FakeObjective(gan, recipe.discriminator_weight, recipe.denoising_weighting)
    weights = list(student.parameters())
    student_optimizer = torch.optim.Adam(weights, lr=5e-4, betas=(0.5, 0.99))
    fake_optimizer = torch.optim.Adam([*fake.parameters(), *gan.head.parameters()], lr=1e-3, betas=(0.5, 0.99))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(student_optimizer, num_steps)

    def draw(interval: tuple[float, float]) -> tuple[Tensor, Tensor]:
        return draw_sigma(interval, recipe.levels, generator), torch.randn(BATCH, 2, POINTS, generator=generator)

    def generate() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        labels = draw_labels(generator)
        x0_real = draw_data(labels, generator)
        sigma = torch.tensor(SIGMAS)[torch.randint(len(SIGMAS), (BATCH,), generator=generator)]
        noise = torch.randn(x0_real.shape, generator=generator)
        cond = {"label": labels}
        return student(process.add_noise(x0_real, noise, sigma), sigma, cond).x0, x0_real, cond

    for _ in range(num_steps):
        for _ in range(recipe.fake_updates):
            with torch.no_grad():
                x0, x0_real, cond = generate()
            fake_optimizer.zero_grad()
            fake_step(x0, x0_real, cond, *draw(recipe.fake_interval)).total.backward()
            fake_optimizer.step()
        x0, x0_real, cond = generate()
        leaf, noised = x0.detach().requires_grad_(), draw(recipe.dmd_interval)
        losses = {
            "mmd": mmd(leaf, x0_real, cond, *draw(recipe.mmd_interval)).total,
            "dmd": dmd(leaf, cond, None, *noised).total,
            "gan": gan.generator(
                leaf, cond, *(noised if recipe.gan_sample == "dmd" else draw(recipe.gan_interval))
            ).total,
        }
        slopes = weigh({name: torch.autograd.grad(loss, leaf)[0] for name, loss in losses.items()}, recipe, shared)
        student_optimizer.zero_grad()
        x0.backward(torch.stack(list(slopes.values())).sum(0), inputs=weights)
        student_optimizer.step()
        shared.step()
        scheduler.step()
    return student


@torch.no_grad()
def sample(model: PointDenoiser, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Sample in few steps: predict x0, noise it to the next level, repeat."""
    process = FlowMatching()
    x0 = torch.zeros(len(labels), 2, POINTS)
    for level in SIGMAS:
        sigma = torch.full((len(labels),), level)
        x_t = process.add_noise(x0, torch.randn(x0.shape, generator=generator), sigma)
        x0 = model(x_t, sigma, {"label": labels}).x0
    return x0


@torch.no_grad()
def integrate(model: PointDenoiser, labels: Tensor, num_steps: int, generator: torch.Generator) -> Tensor:
    """Sample with Euler steps of the flow, evenly spaced."""
    x = torch.randn(len(labels), 2, POINTS, generator=generator)
    levels = torch.linspace(1, 0, num_steps + 1)
    for now, after in pairwise(levels):
        x0 = model(x, now.expand(len(labels)), {"label": labels}).x0
        x = x0 + (x - x0) * after / now
    return x


def energy_distance(x: Tensor, y: Tensor) -> float:
    """Compare two sets of points: 2 E|X - Y| - E|X - X'| - E|Y - Y'|, zero in expectation for equal distributions."""
    same = [torch.cdist(a, a).sum() / (len(a) * (len(a) - 1)) for a in (x, y)]
    return float(2 * torch.cdist(x, y).mean() - same[0] - same[1])


def run(recipe: Recipe, seed: int = 0, teacher_steps: int = 700, student_steps: int = 300) -> dict[str, float]:
    """Train both models and return the energy distance to true points, averaged over the classes, by sampler."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    teacher = train_teacher(teacher_steps, generator)
    student = distil(teacher, recipe, student_steps, generator)
    labels = torch.arange(64) % 2
    samples = {
        "truth, other points": draw_data(labels, generator),
        "teacher, 50 Euler steps": integrate(teacher, labels, 50, generator),
        "teacher, 2 Euler steps": integrate(teacher, labels, 2, generator),
        "teacher, 2 steps": sample(teacher, labels, generator),
        "student, 2 steps": sample(student, labels, generator),
    }
    truth = draw_data(labels, generator)

    def distance(x: Tensor) -> float:
        per_class = [energy_distance(*(z[labels == k].mT.flatten(0, 1) for z in (x, truth))) for k in (0, 1)]
        return sum(per_class) / 2

    return {name: distance(x) for name, x in samples.items()}


def main() -> None:
    """Print the distances."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=list(RECIPES), default="released")
    # On so small tensors a second thread only waits for the first.
    torch.set_num_threads(1)
    for name, distance in run(RECIPES[parser.parse_args().recipe]).items():
        print(f"{name:24s} {distance:8.4f}")


if __name__ == "__main__":
    main()
