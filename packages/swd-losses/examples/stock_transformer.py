"""Distil a transformer of diffusers, as it comes, with MMD, DMD and GAN: swd-losses in a loop of one's own.

`python examples/stock_transformer.py` takes a tiny random SD3 and half a minute of a CPU. For your own model load its
`SD3Transformer2DModel`, and let `data` draw latents and embeddings of yours. It needs diffusers and peft.
"""

import copy
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import torch
from diffusers import SD3Transformer2DModel
from peft import LoraConfig
from torch import Tensor

from swd_losses import PAPER, DMDObjective, FakeObjective, GANObjective, MMDObjective, balance
from swd_losses.hooks import tapped

BATCH, BLOCK, LEVEL = 8, 1, (0.9, 0.9)  # the student's step: one is enough here
TINY = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 3,
    "pos_embed_max_size": 8,
}
TINY |= {"attention_head_dim": 8, "num_attention_heads": 4, "joint_attention_dim": 32, "pooled_projection_dim": 32}
TINY |= {"caption_projection_dim": 32}


class Output(NamedTuple):
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

    def __call__(
        self, x_t: Tensor, sigma: Tensor, cond: Mapping[str, Tensor], *, block: int | None = None, stop: bool = False
    ) -> Output:
        """Predict x0, with the image tokens behind a block; `stop` runs no block after it."""
        with tapped(self.model.transformer_blocks[block or 0], stop=stop) as seen:
            velocity = self.model(x_t, timestep=1000 * sigma, **cond).sample
        x0 = None if seen.ended else x_t - sigma[:, None, None, None] * velocity
        return Output(x0, None if block is None else seen.features)


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
    mmd, dmd = MMDObjective(real, process, BLOCK, PAPER.kernel()), DMDObjective(real, score, process, guidance=1.0)
    gan, history = GANObjective(score, head, process, BLOCK), defaultdict[str, list[float]](list)
    fake_step = FakeObjective(gan, weight=PAPER.discriminator_weight)

    def draw(low: float, high: float) -> tuple[Tensor, Tensor]:
        return low + (high - low) * torch.rand(BATCH), torch.randn(BATCH, 4, 8, 8)

    def data() -> tuple[Tensor, dict[str, Tensor]]:
        cond = {"encoder_hidden_states": torch.randn(BATCH, 7, 32), "pooled_projections": torch.randn(BATCH, 32)}
        return 0.5 + 0.3 * torch.randn(BATCH, 4, 8, 8), cond

    def sample(latents: Tensor, cond: dict[str, Tensor]) -> Tensor:
        sigma, noise = draw(*LEVEL)
        return generate(process.add_noise(latents, noise, sigma), sigma, cond).x0

    for _ in range(steps):
        for _ in range(2):  # the fake model keeps up with the student
            latents, cond = data()
            with torch.no_grad():
                x0 = sample(latents, cond)
            terms = fake_step(x0, latents, cond, *draw(*PAPER.fake_interval))
            fake_optimizer.zero_grad()
            terms.total.backward()
            fake_optimizer.step()
        latents, cond = data()
        x0 = sample(latents, cond)
        leaf = x0.detach().requires_grad_()  # each loss is differentiated to x0 alone, the student once
        losses = {
            "mmd": mmd(leaf, latents, cond, *draw(*PAPER.mmd_interval)),
            "dmd": dmd(leaf, cond, None, *draw(*PAPER.dmd_interval)),
            "gan": gan.generator(leaf, cond, *draw(*PAPER.gan_interval)),
        }
        slopes = {name: torch.autograd.grad(each.total, leaf)[0] for name, each in losses.items()}
        slope = sum(balance(slopes, {"dmd": PAPER.dmd_weight, "gan": PAPER.gan_weight}).values())
        optimizer.zero_grad()
        x0.backward(slope, inputs=trained)
        optimizer.step()
        for name, value in {**terms.parts, "mmd": losses["mmd"].parts["mmd"]}.items():
            history[name].append(float(value))
    return dict(history)


if __name__ == "__main__":
    for name, values in main().items():
        print(f"{name:14} {sum(values[:5]) / 5:8.3f} -> {sum(values[-5:]) / 5:8.3f}")
