"""One iteration of scale-wise distillation: fake updates, then the student's (section 4, appendix A)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from swd_distill.batches import Batch, Draw
from swd_distill.cache import Cache
from swd_distill.config import Config
from swd_distill.devices import processes
from swd_distill.network import Metrics, Network
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


class Trainer:
    """Roles, objectives and optimisers of a run; `iterate(step)` depends on the step and the weights alone."""

    def __init__(self, config: Config, cache: Cache, roles: Roles, head: DiscriminatorHead | None) -> None:
        self.config, self.cache, self.roles, self.head = config, cache, roles, head
        self.schedule, self.recipe = config.scales, config.recipe
        self.device = next(roles.teacher.parameters()).device
        recipe, process, block = config.recipe, roles.teacher.process, config.training.block
        if roles.teacher.guidance is not None:  # told, not composed of two passes; student and fake keep the default
            roles.teacher.guidance = recipe.guidance
        training = config.training
        self.places = share_places(config)
        # Eq. 2 is a sum over the batch, every other loss a mean: its shares add up.
        self.mmd_scale = training.batch / len(self.places[0]) if recipe.mmd_kernel == "linear" else 1.0
        self.student = Network(adapter_parameters(roles.student), training.lr, training, training.ema)
        source = roles.fake if recipe.mmd_features == "fake" else roles.teacher
        assert source is not None
        self.mmd = MMDObjective(source, process, block, recipe.kernel(), recipe.mmd_noised)
        if roles.fake is None:
            return
        trainable = [*adapter_parameters(roles.fake), *(head.parameters() if head else ())]
        self.fake = Network(trainable, training.fake_lr, training)
        self.dmd = DMDObjective(roles.teacher, roles.fake, process, recipe.guidance)
        self.fake_loss: FakeObjective | DenoisingObjective
        if head is None:
            self.fake_loss = DenoisingObjective(roles.fake, process, recipe.denoising_weighting)
        else:
            self.gan = GANObjective(roles.fake, head, process, block, recipe.gradient_penalty)
            self.fake_loss = FakeObjective(self.gan, recipe.discriminator_weight, recipe.denoising_weighting)

    @property
    def networks(self) -> dict[str, Network]:
        """Return what has an optimiser, by name."""
        return {"student": self.student} | ({} if self.roles.fake is None else {"fake": self.fake})

    def iterate(self, step: int) -> Metrics:
        """Run the fake updates and one update of the student."""
        metrics: Metrics = {}
        if self.roles.fake is not None:
            for update in range(self.recipe.fake_updates):
                metrics |= self.update_fake(step, update)
        return metrics | self.update_student(step)

    def update_fake(self, step: int, update: int) -> Metrics:
        """Let the fake model denoise, and the head tell apart, what the student generates now."""
        found = self.fake.descend(self._shares(self._fake_terms, step, f"fake-{update}"), step)
        return {f"fake/{name}": value for name, value in found.items()}

    def update_student(self, step: int) -> Metrics:
        """Move the student by MMD + a DMD + b GAN (section 4.2)."""
        found = self.student.descend(self._shares(self._generator_terms, step, "student"), step)
        return found | {"stage": self._draw(step, "student", self.places[0]).stage(self.schedule).index}

    def _fake_terms(self, draw: Draw) -> LossTerms:
        batch = draw.batch(self.cache, self.schedule, self.device)
        with torch.no_grad():
            x0 = self.generate(batch, draw)
        sigma, noise = self._level(draw, "fake", self.recipe.fake_interval), draw.noise("fake", x0)
        if isinstance(self.fake_loss, FakeObjective):
            return self.fake_loss(x0, batch.real, batch.cond, sigma, noise)
        return self.fake_loss(x0, batch.cond, sigma, noise)

    def _generator_terms(self, draw: Draw) -> LossTerms:
        batch = draw.batch(self.cache, self.schedule, self.device)
        return self.student_terms(batch, draw, self.generate(batch, draw))

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
            loss = self.mmd_scale * self.mmd(x0, batch.real, batch.cond, sigma, noise).total
            total, parts = total + recipe.mmd_weight * loss, parts | {"mmd": loss.detach()}
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

    def _shares(self, terms: Callable[[Draw], LossTerms], step: int, update: str) -> list[Callable[[], LossTerms]]:
        return [partial(terms, self._draw(step, update, places)) for places in self.places]

    def _draw(self, step: int, update: str, places: range) -> Draw:
        return Draw(self.config.seed, step, update, places)

    def _level(self, draw: Draw, name: str, interval: tuple[float, float]) -> Tensor:
        return draw.sigma(name, interval, self.recipe.levels, self.device)


def share_places(config: Config) -> list[range]:
    """Return the places in the batch of this process's shares, one after the other.

    Raises:
        ValueError: a batch that cannot be split evenly, or a loss that cannot be split at all.
    """
    training, state = config.training, processes()
    count = state.num_processes * training.accumulate
    if training.batch % count:
        raise ValueError(
            f"expected --training.batch divisible by {state.num_processes} process(es) x {training.accumulate} "
            f"share(s), got {training.batch}"
        )
    if count > 1 and config.recipe.mmd_weight and config.recipe.mmd_pooling == "batch":
        raise ValueError(
            "expected --recipe.mmd-pooling image with several processes or --training.accumulate, got batch: its one "
            "mean is over the whole batch, which no process sees"
        )
    size = training.batch // count
    first = state.process_index * training.accumulate
    return [range(size * share, size * (share + 1)) for share in range(first, first + training.accumulate)]
