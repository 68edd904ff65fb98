"""One iteration of scale-wise distillation: fake updates, then the student's (section 4, appendix A)."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from swd_distill.batches import Batch, Draw
from swd_distill.cache import Cache
from swd_distill.config import Config, Training
from swd_losses import (
    DenoisingObjective,
    DiscriminatorHead,
    DMDObjective,
    FakeObjective,
    GANObjective,
    LossTerms,
    MMDObjective,
)
from swd_models import Roles
from swd_models.roles import adapter_parameters

Metrics = dict[str, float]


class Network:
    """Trainable parameters with their optimiser: one descent is backward, clip, step."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, training: Training) -> None:
        self.parameters = list(parameters)
        self.lr, self.training = lr, training
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)

    def descend(self, loss: Tensor, step: int) -> float:
        """Update by the gradient of `loss`, which reaches no other network; return the norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * lr_ratio(step, self.training)
        torch.autograd.backward(loss, inputs=self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.training.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)


def lr_ratio(step: int, training: Training) -> float:
    """Return the share of the learning rate at a step: warm-up, then constant or cosine."""
    rise = min(1.0, (step + 1) / training.warmup) if training.warmup else 1.0
    return rise * (0.5 * (1 + math.cos(math.pi * step / training.iterations)) if training.decay else 1.0)


class Trainer:
    """Roles, objectives and optimisers of a run; `iterate(step)` depends on the step and the weights alone."""

    def __init__(self, config: Config, cache: Cache, roles: Roles, head: DiscriminatorHead | None) -> None:
        self.config, self.cache, self.roles, self.head = config, cache, roles, head
        self.schedule, self.recipe = config.scales, config.recipe
        self.device = next(roles.teacher.parameters()).device
        recipe, process, block = config.recipe, roles.teacher.process, config.training.block
        if roles.teacher.guidance is not None:  # told, not composed of two passes; student and fake keep the default
            roles.teacher.guidance = recipe.guidance
        self.student = Network(adapter_parameters(roles.student), config.training.lr, config.training)
        source = roles.fake if recipe.mmd_features == "fake" else roles.teacher
        assert source is not None
        self.mmd = MMDObjective(source, process, block, recipe.kernel(), recipe.mmd_noised)
        if roles.fake is None:
            return
        trainable = [*adapter_parameters(roles.fake), *(head.parameters() if head else ())]
        self.fake = Network(trainable, config.training.fake_lr, config.training)
        self.dmd = DMDObjective(roles.teacher, roles.fake, process, recipe.guidance)
        self.fake_loss: FakeObjective | DenoisingObjective
        if head is None:
            self.fake_loss = DenoisingObjective(roles.fake, process, recipe.denoising_weighting)
        else:
            self.gan = GANObjective(roles.fake, head, process, block, recipe.gradient_penalty)
            self.fake_loss = FakeObjective(self.gan, recipe.discriminator_weight, recipe.denoising_weighting)

    def iterate(self, step: int) -> Metrics:
        """Run the fake updates and one update of the student."""
        metrics: Metrics = {}
        if self.roles.fake is not None:
            for update in range(self.recipe.fake_updates):
                metrics |= self.update_fake(step, update)
        return metrics | self.update_student(step)

    def update_fake(self, step: int, update: int) -> Metrics:
        """Let the fake model denoise, and the head tell apart, what the student generates now."""
        draw, batch = self._draw(step, f"fake-{update}")
        with torch.no_grad():
            x0 = self.generate(batch, draw)
        sigma, noise = self._level(draw, "fake", self.recipe.fake_interval), draw.noise("fake", x0)
        if isinstance(self.fake_loss, FakeObjective):
            terms = self.fake_loss(x0, batch.real, batch.cond, sigma, noise)
        else:
            terms = self.fake_loss(x0, batch.cond, sigma, noise)
        norm = self.fake.descend(terms.total, step)
        return _numbers(terms, "fake/") | {"fake/norm": norm}

    def update_student(self, step: int) -> Metrics:
        """Move the student by MMD + a DMD + b GAN (section 4.2)."""
        draw, batch = self._draw(step, "student")
        terms = self.student_terms(batch, draw, self.generate(batch, draw))
        norm = self.student.descend(terms.total, step)
        return _numbers(terms, "") | {"norm": norm, "stage": batch.stage.index}

    def generate(self, batch: Batch, draw: Draw) -> Tensor:
        """Return the student's x0 for the stage: from pure noise, or from the real previous scale, renoised."""
        noise = draw.noise("input", batch.real)
        student, sigma = self.roles.student, torch.full((len(noise),), batch.stage.sigma, device=self.device)
        # As the sampler: the first step starts from noise alone, whatever signal the process would leave at its sigma.
        x_t = noise if batch.upscaled is None else student.process.add_noise(batch.upscaled, noise, sigma)
        return student.denoise(x_t, sigma, batch.cond)

    def student_terms(self, batch: Batch, draw: Draw, x0: Tensor) -> LossTerms:
        """Add up the student's losses; each draws noise of its own."""
        recipe, total = self.recipe, x0.new_zeros(())
        parts: dict[str, Tensor] = {}
        if recipe.mmd_weight:
            sigma, noise = self._level(draw, "mmd", recipe.mmd_interval), draw.noise("mmd", x0)
            terms = self.mmd(x0, batch.real, batch.cond, sigma, noise)
            total, parts = total + recipe.mmd_weight * terms.total, parts | terms.parts
        if recipe.dmd_weight:
            sigma, noise = self._level(draw, "dmd", recipe.dmd_interval), draw.noise("dmd", x0)
            uncond = batch.uncond if self.roles.teacher.guidance is None else None
            terms = self.dmd(x0, batch.cond, uncond, sigma, noise)
            total, parts = total + recipe.dmd_weight * terms.total, parts | terms.parts
        if recipe.gan_weight:
            sigma, noise = self._level(draw, "gan", recipe.gan_interval), draw.noise("gan", x0)
            terms = self.gan.generator(x0, batch.cond, sigma, noise)
            total, parts = total + recipe.gan_weight * terms.total, parts | terms.parts
        return LossTerms(total, parts)

    def _draw(self, step: int, update: str) -> tuple[Draw, Batch]:
        draw = Draw(self.config.seed, step, update, self.config.training.batch)
        return draw, draw.batch(self.cache, self.schedule, self.device)

    def _level(self, draw: Draw, name: str, interval: tuple[float, float]) -> Tensor:
        return draw.sigma(name, interval, self.recipe.levels, self.device)


def _numbers(terms: LossTerms, prefix: str) -> Metrics:
    return {f"{prefix}{name}": float(value) for name, value in terms.parts.items()}
