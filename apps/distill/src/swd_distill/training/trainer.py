"""One iteration of scale-wise distillation: fake updates, then the student's (section 4, appendix A)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from swd_distill.config import Config
from swd_distill.data.cache import Cache
from swd_distill.devices import processes, sum_over_processes
from swd_distill.training.batches import STUDENT, Batch, Draw, recipe_within
from swd_distill.training.loader import Loader
from swd_distill.training.meter import FlopMeter
from swd_distill.training.network import Metrics, Network
from swd_losses import (
    DenoisingObjective,
    DiscriminatorHead,
    DMDObjective,
    FakeObjective,
    GANObjective,
    LossTerms,
    MMDObjective,
    RunningBalance,
    balance,
    sample_norms,
)
from swd_models import Roles
from swd_models.adapters import adapter_parameters
from swd_models.parts import expand, trim
from swd_schedules import Stage

FIRST_FAKE = "fake-0"


class Trainer:
    """Roles, objectives and optimisers of a run.

    `iterate(step)` depends on the step, the weights and the means that balance over a run keeps.
    """

    def __init__(self, config: Config, cache: Cache, roles: Roles, head: DiscriminatorHead | None) -> None:
        self.config, self.cache, self.roles, self.head = config, cache, roles, head
        self.levels = roles.teacher.expert.levels
        self.schedule, self.recipe = config.scales, recipe_within(config.recipe, self.levels)
        self.device = next(roles.teacher.parameters()).device
        recipe, process, block = self.recipe, roles.teacher.process, config.training.block
        told = roles.teacher.guidance is not None  # not composed of two passes; student and fake keep the default
        if told:
            roles.teacher.guidance = recipe.guidance
        # The empty prompt is the same for all samples and updates: it stays on the device.
        self.uncond = None if told else {key: value.to(self.device) for key, value in trim(cache.uncond).items()}
        training = config.training
        self.places = share_places(config)
        self._flops: dict[tuple[str, Stage, int], int] = {}
        self._spent = 0
        self._rollouts: dict[range, tuple[Batch, Tensor]] = {}
        schedule = self.schedule  # the loader knows no trainer: it would keep its memory
        self.loader = Loader(lambda draw: draw.batch(cache, schedule, recipe), self.device)
        # Eq. 2 is a sum over the batch, other losses are means: its shares add up.
        self._shares = training.batch // len(self.places[0])
        self._mmd_scale = float(self._shares) if recipe.mmd_sums else 1.0
        self.weights = {"mmd": recipe.mmd_weight * self._mmd_scale, "dmd": 1.0, "gan": 1.0}
        over_run = roles.fake is not None and recipe.balance and recipe.balance_over == "run"
        self.balance = RunningBalance() if over_run else balance
        if not recipe.balance:
            self.weights |= {"dmd": recipe.dmd_weight, "gan": recipe.gan_weight}
        scaled = any(parameter.dtype == torch.float16 for parameter in roles.teacher.parameters())
        self.student = Network(adapter_parameters(roles.student), training.lr, training, training.ema, scaled=scaled)
        # Where no loss trains a fake model, its features would be the teacher's.
        source = roles.fake if recipe.mmd_features == "fake" and roles.fake is not None else roles.teacher
        self.mmd = MMDObjective(source, process, block, recipe.kernel(), recipe.mmd_noised)
        if roles.fake is None:
            return
        trainable = [*adapter_parameters(roles.fake), *(head.parameters() if head else ())]
        self.fake = Network(trainable, training.fake_lr, training, scaled=scaled)
        guidance = 1.0 if told else recipe.guidance
        self.dmd = DMDObjective(roles.teacher, roles.fake, process, guidance, roles.teacher.guide)
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

    def updates(self) -> list[str]:
        """Return the names of an iteration's updates in order."""
        fakes = 0 if self.roles.fake is None else self.recipe.fake_updates
        return [*(f"fake-{update}" for update in range(fakes)), STUDENT]

    def iterate(self, step: int) -> Metrics:
        """Run the fake updates and one update of the student; what they found leaves the device once, at the end."""
        before = self._spent
        metrics = self._read({update: self._update(update, step) for update in self.updates()}, step)
        return metrics if self.config.training.compile else metrics | {"tflop": (self._spent - before) / 1e12}

    def update_fake(self, step: int, update: str) -> Metrics:
        """Let the fake model denoise, and the head tell apart, what the student generates now."""
        return self._read({update: self._update(update, step)}, step)

    def update_student(self, step: int) -> Metrics:
        """Move the student by MMD + a DMD + b GAN (section 4.2)."""
        return self._read({STUDENT: self._update(STUDENT, step)}, step)

    def _update(self, update: str, step: int) -> dict[str, Tensor]:
        if update == STUDENT:
            found = self._descend(self.student, self._draw_student_terms, step, update)
            if isinstance(self.balance, RunningBalance):
                self.balance.step(len(self.places) * processes().num_processes, sum_over_processes)
            return found
        return self._descend(self.fake, self._draw_fake_terms, step, update)

    def _read(self, found: dict[str, dict[str, Tensor]], step: int) -> Metrics:
        """Read the numbers of updates from the device, all at once, and count what was skipped; the last one stays."""
        every = torch.stack([number for parts in found.values() for number in parts.values()])
        numbers = iter(every.cpu().tolist())
        metrics = Metrics()
        for update, parts in found.items():
            network, prefix = (self.student, "") if update == STUDENT else (self.fake, "fake/")
            read = {name: next(numbers) for name in parts}
            read["skips"] = network.note(read["norm"], step)
            metrics |= {f"{prefix}{name}": value for name, value in read.items()}
        if STUDENT in found:
            metrics["stage"] = self._draws(step, STUDENT)[0].stage(self.schedule, self.recipe).index
        return metrics

    def _descend(
        self, network: Network, terms: Callable[[Draw], LossTerms], step: int, update: str
    ) -> dict[str, Tensor]:
        """Update a network; count its FLOPs where none like it was counted before (compiled blocks do not tell).

        Where captions differ in length, those of the first batch stand for its stage.
        """
        draws, reuse = self._draws(step, update), self.config.training.reuse_rollout and update != STUDENT
        shares = [partial(terms, draw) for draw in draws]
        taken = self._draws(step, FIRST_FAKE) if reuse else draws
        like = update, taken[0].stage(self.schedule, self.recipe), taken[0].bucket(self.cache)
        if like in self._flops or self.config.training.compile:
            found = network.descend(shares, step)
        else:
            meter = FlopMeter()
            found = network.descend(shares, step, meter)
            self._flops[like] = meter.flops
        self._spent += self._flops.get(like, 0)
        return found

    def _draw_fake_terms(self, draw: Draw) -> LossTerms:
        if draw in self._order(draw.step):
            batch = self._take(draw)
            with torch.no_grad():
                x0 = self.generate(batch)
            if self.config.training.reuse_rollout:
                self._rollouts[draw.places] = batch, x0
        else:
            batch, x0 = self._rollouts[draw.places]
            batch = self.loader.send(draw.noised(batch, self.recipe))
        return self.fake_terms(batch, x0)

    def _draw_student_terms(self, draw: Draw) -> LossTerms:
        return self.student_terms(self._take(draw), draw.step)

    def generate(self, batch: Batch) -> Tensor:
        """Return the student's x0 for the stage: from pure noise, or from the real previous scale, renoised."""
        noise = batch.noise["input"]
        student, sigma = self.roles.student, noise.new_full((len(noise),), batch.stage.sigma)
        # As the sampler: the first step starts from noise alone, whatever signal the process would leave at its sigma.
        x_t = noise if batch.upscaled is None else student.process.add_noise(batch.upscaled, noise, sigma)
        return student.denoise(x_t, sigma, batch.cond)

    def fake_terms(self, batch: Batch, x0: Tensor) -> LossTerms:
        """Return the loss of fake model and head on samples of the student."""
        sigma, noise = batch.sigma["fake"], batch.noise["fake"]
        if isinstance(self.fake_loss, FakeObjective):
            return self.fake_loss(x0, batch.real, batch.cond, sigma, noise)
        return self.fake_loss(x0, batch.cond, sigma, noise)

    def student_terms(self, batch: Batch, step: int) -> LossTerms:
        """Return the student's loss; its graph is the student's alone.

        Each of the losses is differentiated to x0 at once, so that their graphs, through teacher and fake model, are
        never held together. What is returned has the gradient of their weighted sum, not its value.
        """
        x0 = self.generate(batch)
        slopes, parts = dict[str, Tensor](), drift(x0.detach(), batch.real)
        for name in batch.sigma:
            slopes[name], found = self.slope(name, x0, batch)
            # Means over shares of these are the whole batch's: of the slopes, but for how much shares differ.
            scales = {"mmd": self._mmd_scale}
            parts |= {part: scales.get(part, 1.0) * value for part, value in found.items()}
            parts[f"slope_{name}"] = slopes[name].norm() / self._shares**0.5
        balanced = self._balanced(slopes, step)
        norms = {name: sample_norms(slope) for name, slope in balanced.items()}
        if "mmd" in norms:
            mmd = norms.pop("mmd")
            parts |= {f"share_{name}": (norm / mmd).mean() for name, norm in norms.items()}
        if isinstance(self.balance, RunningBalance):
            for name, norm in norms.items():  # DMD's vanishes while the fake model is the teacher
                own = sample_norms(slopes[name]).norm()
                parts[f"weight_{name}"] = norm.norm() / own.clamp(torch.finfo(own.dtype).tiny)
        return LossTerms((x0 * torch.stack(list(balanced.values())).sum(0)).sum(), parts)

    def _balanced(self, slopes: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Let the gradients stand as the recipe says, the GAN's less at first."""
        recipe, rise = self.recipe, min(1.0, (step + 1) / self.recipe.gan_rise) if self.recipe.gan_rise else 1.0
        if recipe.balance:
            shares = {"dmd": recipe.dmd_weight, "gan": recipe.gan_weight * rise}
            return self.balance(slopes, {name: share for name, share in shares.items() if name in slopes})
        return {name: slope * rise if name == "gan" else slope for name, slope in slopes.items()}

    def slope(self, name: str, x0: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the gradient to x0 of one of the student's losses with its weight, and its parts."""
        leaf, scaler = x0.detach().requires_grad_(), self.student.scaler
        terms = self._loss(name, leaf, batch)
        (slope,) = torch.autograd.grad(scaler.scale(self.weights[name] * terms.total), leaf)
        return slope / scaler.scale(torch.ones((), device=slope.device)), terms.parts

    def _loss(self, name: str, x0: Tensor, batch: Batch) -> LossTerms:
        sigma, noise = batch.sigma[name], batch.noise[name]
        if name == "mmd":
            return self.mmd(x0, batch.real, batch.cond, sigma, noise)
        if name == "dmd":
            uncond = None if self.uncond is None else expand(self.uncond, len(x0))
            return self.dmd(x0, batch.cond, uncond, sigma, noise)
        return self.gan.generator(x0, batch.cond, sigma, noise)

    def _draws(self, step: int, update: str) -> list[Draw]:
        return [Draw(self.config.seed, step, update, places, self.levels) for places in self.places]

    def _order(self, step: int) -> list[Draw]:
        """Return the draws of an iteration whose batches are read: of reused samples, only the first update's."""
        reuse = self.config.training.reuse_rollout
        updates = [name for name in self.updates() if not reuse or name in (FIRST_FAKE, STUDENT)]
        return [draw for update in updates for draw in self._draws(step, update)]

    def _take(self, draw: Draw) -> Batch:
        """Take a batch, and let the two after it be read meanwhile."""
        order = [*self._order(draw.step), *self._order(draw.step + 1)]
        place = order.index(draw) + 1
        return self.loader.take(draw, order[place : place + 2])


def drift(x0: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Return `contrast`, the spread of latents within channels, and `saturation`, the size of channels' means.

    Both are ratios to those of real latents.
    """
    axes = tuple(range(2, x0.ndim))

    def ratio(measure: Callable[[Tensor], Tensor]) -> Tensor:
        return measure(x0).mean() / measure(real).mean()

    return {"contrast": ratio(lambda x: x.std(axes)), "saturation": ratio(lambda x: x.mean(axes).abs())}


def share_places(config: Config) -> list[range]:
    """Return the places in the batch of this process's shares, one after the other.

    Raises:
        ValueError: a batch that cannot be split evenly, or a loss that cannot be split at all.
    """
    training, state = config.training, processes()
    count = state.num_processes * training.accumulate
    if training.batch % count:
        raise ValueError(
            f"expected --training.batch divisible by {state.num_processes} process(es) x --training.accumulate "
            f"{training.accumulate}, got {training.batch}: change either"
        )
    if count > 1 and config.recipe.mmd_weight and config.recipe.mmd_pooling == "batch":
        raise ValueError(
            "expected --recipe.mmd-pooling image with several processes or --training.accumulate, got batch: its one "
            "mean is over the whole batch, which no process sees"
        )
    size = training.batch // count
    first = state.process_index * training.accumulate
    return [range(size * share, size * (share + 1)) for share in range(first, first + training.accumulate)]
