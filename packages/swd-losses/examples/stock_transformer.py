"""Distil a transformer of diffusers, as it comes, with MMD, DMD and GAN: swd-losses in a loop of one's own.

`python examples/stock_transformer.py` takes a tiny random SD3, diffusers, peft and half a minute of a CPU. For your own
model load its `SD3Transformer2DModel`, and let `data` draw latents and embeddings of yours.
"""

import copy
from collections import defaultdict
from typing import NamedTuple

import torch
from diffusers import SD3Transformer2DModel
from peft import LoraConfig
from torch import Tensor

from swd_losses import PAPER, DiscriminatorHead, DMDObjective, FakeObjective, GANObjective, MMDObjective, RunningBalance
from swd_losses.hooks import tapped

Cond, Draws = dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]
BATCH, BLOCK, LEVEL = 8, 1, (0.9, 0.9)  # the student's step: one is enough here
TINY = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "pooled_projection_dim": 32, "joint_attention_dim": 32,
    "caption_projection_dim": 32, "num_layers": 3, "num_attention_heads": 4, "attention_head_dim": 8,
}  # fmt: skip


class Seen(NamedTuple):
    """What `swd_losses.Prediction` asks for."""

    x0: Tensor | None
    features: Tensor | None


class FlowMatching:
    """What `swd_losses.NoiseProcess` asks for."""

    def add_noise(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return x_t = (1 - sigma) x0 + sigma noise."""
        return torch.lerp(x0, noise, sigma[:, None, None, None])


class StockSD3:
    """A `swd_losses.Denoiser` around diffusers' transformer, which predicts velocity."""

    def __init__(self, model: SD3Transformer2DModel) -> None:
        self.model = model

    def __call__(self, x_t: Tensor, sigma: Tensor, cond: Cond, *, block: int | None = None, stop: bool = False) -> Seen:
        """Predict x0, with the image tokens behind a block; `stop` runs no block after it."""
        with tapped(self.model.transformer_blocks[block or 0], stop=stop) as seen:
            velocity = self.model(x_t, timestep=1000 * sigma, **cond).sample
        x0 = None if seen.ended else x_t - sigma[:, None, None, None] * velocity
        return Seen(x0, None if block is None else seen.features)


class Losses:
    """All losses of a student and its fake model. `draws`: noise level and noise of each loss, by name."""

    def __init__(self, real: StockSD3, score: StockSD3, head: DiscriminatorHead, process: FlowMatching) -> None:
        self.mmd = MMDObjective(real, process, BLOCK, PAPER.kernel())
        self.dmd = DMDObjective(real, score, process, guidance=1.0)
        self.gan = GANObjective(score, head, process, BLOCK)
        self.fake = FakeObjective(self.gan, weight=PAPER.discriminator_weight)
        self.balance = RunningBalance()

    def slope(self, x0: Tensor, real: Tensor, cond: Cond, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the gradient to the student's x0, and each loss: the student is differentiated once, after it."""
        leaf = x0.detach().requires_grad_()
        losses = {
            "mmd": self.mmd(leaf, real, cond, *draws["mmd"]),
            "dmd": self.dmd(leaf, cond, None, *draws["dmd"]),
            "gan": self.gan.generator(leaf, cond, *draws["gan"]),
        }
        slopes = {name: torch.autograd.grad(each.total, leaf)[0] for name, each in losses.items()}
        balanced = self.balance(slopes, {"dmd": PAPER.dmd_weight, "gan": PAPER.gan_weight})
        return torch.stack(list(balanced.values())).sum(0), {name: each.parts[name] for name, each in losses.items()}


def main(steps: int = 40) -> dict[str, list[float]]:
    """Train a student; return each part of the losses, a number a step."""
    torch.manual_seed(0)
    torch.backends.cuda.enable_cudnn_sdp(False)  # its gradients are wrong on some cards
    teacher, process = SD3Transformer2DModel(**TINY).requires_grad_(False), FlowMatching()
    student, fake, head = copy.deepcopy(teacher), copy.deepcopy(teacher), PAPER.head(channels=32)
    for model in (student, fake):
        model.add_adapter(LoraConfig(r=8, target_modules="all-linear"))
    trained, others = ([each for each in model.parameters() if each.requires_grad] for model in (student, fake))
    optimizer, fake_optimizer = torch.optim.AdamW(trained, 1e-2), torch.optim.AdamW([*others, *head.parameters()], 3e-3)
    real, generate, score = StockSD3(teacher), StockSD3(student), StockSD3(fake)
    losses, history = Losses(real, score, head, process), defaultdict[str, list[float]](list)
    intervals = {"mmd": PAPER.mmd_interval, "dmd": PAPER.dmd_interval, "gan": PAPER.gan_interval}

    def draw(low: float, high: float) -> tuple[Tensor, Tensor]:
        return low + (high - low) * torch.rand(BATCH), torch.randn(BATCH, 4, 8, 8)

    def data() -> tuple[Tensor, Cond]:
        cond = {"encoder_hidden_states": torch.randn(BATCH, 7, 32), "pooled_projections": torch.randn(BATCH, 32)}
        return 0.5 + 0.3 * torch.randn(BATCH, 4, 8, 8), cond

    def sample() -> tuple[Tensor, Tensor, Cond]:
        (latents, cond), (sigma, noise) = data(), draw(*LEVEL)
        return generate(process.add_noise(latents, noise, sigma), sigma, cond).x0, latents, cond

    for _ in range(steps):
        for _ in range(2):  # the fake model keeps up with the student
            with torch.no_grad():
                x0, latents, cond = sample()
            terms = losses.fake(x0, latents, cond, *draw(*PAPER.fake_interval))
            fake_optimizer.zero_grad()
            terms.total.backward()
            fake_optimizer.step()
        x0, latents, cond = sample()
        draws = {name: draw(*interval) for name, interval in intervals.items()}
        slope, parts = losses.slope(x0, latents, cond, draws)
        optimizer.zero_grad()
        x0.backward(slope, inputs=trained)
        optimizer.step()
        losses.balance.step()
        for name, value in {**terms.parts, **parts}.items():
            history[name].append(float(value))
    return dict(history)


if __name__ == "__main__":
    for name, values in main().items():
        print(f"{name:14} {sum(values[:5]) / 5:8.3f} -> {sum(values[-5:]) / 5:8.3f}")
