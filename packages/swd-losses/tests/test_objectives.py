from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from swd_losses import (
    PAPER,
    RELEASED,
    Denoiser,
    DenoisingObjective,
    DiscriminatorHead,
    DMDObjective,
    FakeObjective,
    GANObjective,
    MMDObjective,
    NoiseProcess,
    Prediction,
    denoising_loss,
    discriminator_loss,
    dmd_loss,
    generator_loss,
    gradient_penalty,
    guided,
    huber_mmd,
    linear_mmd,
)

B, C, WIDTH = 3, 2, 8
SHAPES = [(B, C, 4, 4), (B, C, 2, 2, 3)]


@dataclass
class Output:
    x0: Tensor | None
    features: Tensor | None


@dataclass
class Call:
    batch: int
    sigma: list[float]
    stop: bool
    grad: bool


class FlowMatching:
    def add_noise(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.view(-1, *[1] * (x0.ndim - 1))
        return (1 - s) * x0 + s * noise


class Toy(nn.Module):
    """Two layers over the tokens of a latent of any rank, with a record of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.first, self.second = nn.Linear(C, WIDTH), nn.Linear(WIDTH, C)
        self.text = nn.Linear(5, WIDTH)

    def forward(
        self, x_t: Tensor, sigma: Tensor, cond: Mapping[str, Tensor], *, block: int | None = None, stop: bool = False
    ) -> Output:
        self.calls.append(Call(len(x_t), sigma.tolist(), stop, torch.is_grad_enabled()))
        tokens = self.first(x_t.flatten(2).mT) + sigma[:, None, None]
        tokens = torch.tanh(tokens + self.text(cond["text"]).mean(1, keepdim=True))
        if stop:
            return Output(None, tokens)
        return Output(self.second(tokens).mT.reshape(x_t.shape), None if block is None else tokens)


@dataclass
class Setting:
    x0: Tensor
    x0_real: Tensor
    noise: Tensor
    sigma: Tensor
    cond: dict[str, Tensor]
    uncond: dict[str, Tensor]
    teacher: Toy
    fake: Toy
    head: DiscriminatorHead
    process: FlowMatching = field(default_factory=FlowMatching)

    @property
    def x_t(self) -> Tensor:
        return self.process.add_noise(self.x0.detach(), self.noise, self.sigma)

    @property
    def x_t_real(self) -> Tensor:
        return self.process.add_noise(self.x0_real, self.noise, self.sigma)

    def gan(self, penalty: float = 0.0) -> GANObjective:
        return GANObjective(self.fake, self.head, self.process, 0, penalty)


@pytest.fixture(params=SHAPES, ids=["image", "video"])
def s(request) -> Setting:
    torch.manual_seed(0)
    x0, x0_real, noise = torch.randn(3, *request.param, dtype=torch.float64)
    cond, uncond = ({"text": torch.randn(B, 4, 5, dtype=torch.float64)} for _ in range(2))
    sigma = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    models = [Toy().double().requires_grad_(trains) for trains in (False, True)]
    return Setting(x0.requires_grad_(), x0_real, noise, sigma, cond, uncond, *models, DiscriminatorHead(WIDTH).double())


def untouched(*modules: nn.Module) -> bool:
    return all(weight.grad is None for module in modules for weight in module.parameters())


def test_toys_satisfy_the_protocols(s):
    assert isinstance(s.fake, Denoiser)
    assert isinstance(s.process, NoiseProcess)
    assert isinstance(s.fake(s.x0, s.sigma, s.cond), Prediction)


@pytest.mark.parametrize("recipe", [PAPER, RELEASED], ids=["paper", "released"])
def test_mmd(s, recipe):
    model = {"teacher": s.teacher, "fake": s.fake}[recipe.mmd_features]
    terms = MMDObjective(model, s.process, 0, recipe.kernel())(s.x0, s.x0_real, s.cond, s.sigma, s.noise)
    assert [(call.stop, call.grad) for call in model.calls] == [(True, True), (True, False)]
    fake, real = (model(x_t, s.sigma, s.cond, stop=True).features for x_t in (s.x_t, s.x_t_real))
    expected = {"linear": linear_mmd, "huber": huber_mmd}[recipe.mmd_kernel](fake, real)
    torch.testing.assert_close(terms.total, expected)
    assert terms.parts.keys() == {"mmd"}
    assert not terms.parts["mmd"].requires_grad
    terms.total.backward(inputs=[s.x0])
    assert s.x0.grad.count_nonzero() > 0
    assert untouched(s.teacher, s.fake)


def test_mmd_without_noise_feeds_clean_latents_at_sigma_zero(s):
    terms = MMDObjective(s.teacher, s.process, 0, noised=False)(s.x0, s.x0_real, s.cond, s.sigma, s.noise)
    assert [call.sigma for call in s.teacher.calls] == [[0.0] * B] * 2
    zero = torch.zeros_like(s.sigma)
    fake, real = (s.teacher(x, zero, s.cond, stop=True).features for x in (s.x0, s.x0_real))
    torch.testing.assert_close(terms.total, linear_mmd(fake, real))


def test_mmd_gradient_through_the_model(s):
    objective = MMDObjective(s.teacher, s.process, 0, huber_mmd)
    assert torch.autograd.gradcheck(
        lambda x0: objective(x0, s.x0_real, s.cond, s.sigma, s.noise).total, (s.x0,), fast_mode=True
    )


def test_dmd_in_one_batch(s):
    terms = DMDObjective(s.teacher, s.fake, s.process, 4.5)(s.x0, s.cond, s.uncond, s.sigma, s.noise)
    assert [(call.batch, call.grad) for call in s.teacher.calls] == [(2 * B, False)]
    assert [(call.batch, call.grad) for call in s.fake.calls] == [(B, False)]
    with_cond, without = (s.teacher(s.x_t, s.sigma, cond).x0 for cond in (s.cond, s.uncond))
    x0_real, x0_fake = guided(with_cond, without, 4.5), s.fake(s.x_t, s.sigma, s.cond).x0
    torch.testing.assert_close(terms.total, dmd_loss(s.x0, x0_real, x0_fake), rtol=1e-12, atol=0)
    terms.total.backward()
    assert s.x0.grad.count_nonzero() > 0
    assert untouched(s.fake)


def test_dmd_in_two_passes_gives_the_same_numbers(s):
    objective = DMDObjective(s.teacher, s.fake, s.process, 7.0)
    batched = objective(s.x0, s.cond, s.uncond, s.sigma, s.noise)
    # The toy averages over text, so each token twice is the same condition in another shape.
    longer = {"text": s.uncond["text"].repeat(1, 2, 1)}
    separate = objective(s.x0, s.cond, longer, s.sigma, s.noise)
    assert [call.batch for call in s.teacher.calls] == [2 * B, B, B]
    torch.testing.assert_close(separate.total, batched.total, rtol=1e-12, atol=0)


def test_dmd_guides_as_it_is_told(s):
    seen = []

    def guide(x_t, sigma, with_cond, without, weight):
        seen.append((x_t, sigma, weight))
        return guided(with_cond, without, 2 * weight)

    own = DMDObjective(s.teacher, s.fake, s.process, 2.0, guide)(s.x0, s.cond, s.uncond, s.sigma, s.noise)
    plain = DMDObjective(s.teacher, s.fake, s.process, 4.0)(s.x0, s.cond, s.uncond, s.sigma, s.noise)
    ((x_t, sigma, weight),) = seen
    torch.testing.assert_close(x_t, s.x_t)
    assert (sigma is s.sigma, weight) == (True, 2.0)
    assert torch.equal(own.total, plain.total)


def test_dmd_of_a_guidance_distilled_teacher(s):
    terms = DMDObjective(s.teacher, s.fake, s.process, 1.0)(s.x0, s.cond, None, s.sigma, s.noise)
    assert [call.batch for call in s.teacher.calls] == [B]
    x0_real, x0_fake = (model(s.x_t, s.sigma, s.cond).x0 for model in (s.teacher, s.fake))
    torch.testing.assert_close(terms.parts["dmd"], dmd_loss(s.x0, x0_real, x0_fake).detach())


def test_gan_generator(s):
    terms = s.gan().generator(s.x0, s.cond, s.sigma, s.noise)
    features = s.fake(s.x_t, s.sigma, s.cond, stop=True).features
    torch.testing.assert_close(terms.total, generator_loss(s.head(features)))
    terms.total.backward(inputs=[s.x0])
    assert s.x0.grad.count_nonzero() > 0
    assert untouched(s.fake, s.head)


@pytest.mark.parametrize("penalty", [0.0, 3.0])
def test_gan_discriminator(s, penalty):
    terms = s.gan(penalty).discriminator(s.x0, s.x0_real, s.cond, s.sigma, s.noise)
    assert all(call.stop for call in s.fake.calls)
    fake, real = (s.fake(x_t, s.sigma, s.cond, stop=True).features for x_t in (s.x_t, s.x_t_real))
    expected = discriminator_loss(s.head(real), s.head(fake))
    torch.testing.assert_close(terms.parts["discriminator"], expected.detach())
    torch.testing.assert_close(terms.total, expected + penalty * gradient_penalty(s.head, real))
    assert ("gradient_penalty" in terms.parts) == (penalty > 0)
    terms.total.backward()
    assert s.x0.grad is None
    assert not untouched(s.fake)
    assert not untouched(s.head)


def test_gan_on_frozen_features(s):
    gan = GANObjective(s.teacher, s.head, s.process, 0, 1.0)
    gan.discriminator(s.x0, s.x0_real, s.cond, s.sigma, s.noise).total.backward()
    assert not untouched(s.head)
    assert untouched(s.teacher)


@pytest.mark.parametrize("weighting", ["x0", "velocity"])
def test_denoising(s, weighting):
    terms = DenoisingObjective(s.fake, s.process, weighting)(s.x0, s.cond, s.sigma, s.noise)
    x0_pred = s.fake(s.x_t, s.sigma, s.cond).x0
    expected = denoising_loss(x0_pred, s.x0.detach(), s.sigma, weighting=weighting)
    torch.testing.assert_close(terms.total, expected)
    terms.total.backward()
    assert s.x0.grad is None
    assert not untouched(s.fake)


@pytest.mark.parametrize("penalty", [0.0, 3.0])
def test_the_fake_step_is_denoising_plus_gan_in_one_forward_less(s, penalty):
    arguments = (s.cond, s.sigma, s.noise)
    gan = s.gan(penalty)
    terms = FakeObjective(gan, 0.1, "velocity")(s.x0, s.x0_real, *arguments)
    assert [call.stop for call in s.fake.calls] == [False, True]
    denoising = DenoisingObjective(s.fake, s.process, "velocity")(s.x0, *arguments)
    adversarial = gan.discriminator(s.x0, s.x0_real, *arguments)
    torch.testing.assert_close(terms.total, denoising.total + 0.1 * adversarial.total)
    assert terms.parts == {**denoising.parts, **adversarial.parts}
    terms.total.backward()
    assert s.x0.grad is None
    assert not untouched(s.fake)
    assert not untouched(s.head)


def test_half_precision_models(s):
    s.teacher.bfloat16()
    half = [t.detach().bfloat16() for t in (s.x0, s.noise, s.sigma)]
    cond = {"text": s.cond["text"].bfloat16()}
    x0, noise, sigma = half
    mmd = MMDObjective(s.teacher, s.process, 0)(x0, s.x0_real.bfloat16(), cond, sigma, noise)
    dmd = DMDObjective(s.teacher, s.teacher, s.process, 4.5)(x0, cond, cond, sigma, noise)
    assert mmd.total.dtype == dmd.total.dtype == torch.float32


def test_a_denoiser_that_breaks_the_contract(s):
    def silent(x_t, sigma, cond, *, block=None, stop=False):
        return Output(None, None)

    with pytest.raises(ValueError, match="expected x0 from the denoiser, got None"):
        DenoisingObjective(silent, s.process)(s.x0, s.cond, s.sigma, s.noise)
    with pytest.raises(ValueError, match="expected features from the denoiser, got None"):
        MMDObjective(silent, s.process, 0)(s.x0, s.x0_real, s.cond, s.sigma, s.noise)


def test_a_denoiser_that_returns_a_tuple(s):
    def stock(x_t, sigma, cond, *, block=None, stop=False):
        return (x_t,)

    gan = GANObjective(stock, s.head, s.process, 0)
    calls = (
        lambda: MMDObjective(stock, s.process, 0)(s.x0, s.x0_real, s.cond, s.sigma, s.noise),
        lambda: DMDObjective(stock, s.fake, s.process, 1.0)(s.x0, s.cond, None, s.sigma, s.noise),
        lambda: DMDObjective(s.teacher, stock, s.process, 1.0)(s.x0, s.cond, None, s.sigma, s.noise),
        lambda: gan.generator(s.x0, s.cond, s.sigma, s.noise),
        lambda: DenoisingObjective(stock, s.process)(s.x0, s.cond, s.sigma, s.noise),
        lambda: FakeObjective(gan)(s.x0, s.x0_real, s.cond, s.sigma, s.noise),
    )
    for call in calls:
        with pytest.raises(ValueError, match="expected x0 and features, as attributes, from the denoiser, got a tuple"):
            call()


def test_guidance_needs_unconditional_embeddings(s):
    line = "expected unconditional embeddings for a guidance of 4.5, got None; give them, or guidance=1.0"
    with pytest.raises(ValueError, match=line):
        DMDObjective(s.teacher, s.fake, s.process, 4.5)(s.x0, s.cond, None, s.sigma, s.noise)


def test_real_latents_of_another_size_are_named(s):
    small = s.x0_real[..., :1]
    gan = GANObjective(s.fake, s.head, s.process, 0)
    calls = (
        lambda: MMDObjective(s.teacher, s.process, 0)(s.x0, small, s.cond, s.sigma, s.noise),
        lambda: gan.discriminator(s.x0, small, s.cond, s.sigma, s.noise),
        lambda: FakeObjective(gan)(s.x0, small, s.cond, s.sigma, s.noise),
    )
    for call in calls:
        with pytest.raises((ValueError, TypeCheckError), match=r"expected tensors of one shape, got x0|'x0_real'"):
            call()


def test_a_number_as_noise_level(s):
    with pytest.raises((ValueError, TypeCheckError), match=r"expected sigma as a tensor, a level for each|'sigma'"):
        DenoisingObjective(s.fake, s.process)(s.x0, s.cond, 0.5, s.noise)


def test_features_that_are_no_tokens(s):
    def pooled(x_t, sigma, cond, *, block=None, stop=False):
        found = s.fake(x_t, sigma, cond, block=block, stop=stop)
        return Output(found.x0, found.features.mean(1))

    with pytest.raises((ValueError, TypeCheckError), match=r"expected features \(N, L, C\), tokens of|return value"):
        GANObjective(pooled, s.head, s.process, 0).generator(s.x0, s.cond, s.sigma, s.noise)


def test_a_model_or_scheduler_of_diffusers_as_it_is(s):
    class Stock(torch.nn.Module):
        __module__ = "diffusers.models.transformers"

    stock, scheduler = Stock(), Stock()
    makers = (
        lambda: MMDObjective(stock, s.process, 0),
        lambda: DMDObjective(s.teacher, stock, s.process, 1.0),
        lambda: GANObjective(stock, s.head, s.process, 0),
        lambda: DenoisingObjective(stock, s.process),
    )
    for make in makers:
        with pytest.raises(
            (ValueError, TypeCheckError), match=r"expected a denoiser, got Stock of diffusers: wrap it|'"
        ):
            make()
    for process in (scheduler, object()):
        with pytest.raises((ValueError, TypeCheckError), match=r"expected a process with add_noise|'process'"):
            DenoisingObjective(s.fake, process)


def test_a_kernel_by_its_name(s):
    with pytest.raises((ValueError, TypeCheckError), match=r"expected a kernel that can be called|'kernel'"):
        MMDObjective(s.teacher, s.process, 0, "linear")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda s: (s.sigma[:1], s.noise),
            "expected noise of x0's shape .* and a level for each sample|parameter 'sigma'",
        ),
        (lambda s: (s.sigma, s.noise[:, :1]), "expected noise of x0's shape|parameter 'noise'"),
        (lambda s: ((1000 * s.sigma).long(), s.noise), "expected noise levels from 0 to 1, got torch.int64|'sigma'"),
    ],
)
def test_levels_and_noise_that_are_none_are_one_line(s, change, line):
    sigma, noise = change(s)
    calls = (
        lambda: MMDObjective(s.teacher, s.process, 1)(s.x0, s.x0_real, s.cond, sigma, noise),
        lambda: DMDObjective(s.teacher, s.fake, s.process, 1.0)(s.x0, s.cond, None, sigma, noise),
        lambda: GANObjective(s.fake, s.head, s.process, 1).generator(s.x0, s.cond, sigma, noise),
        lambda: DenoisingObjective(s.fake, s.process)(s.x0, s.cond, sigma, noise),
        lambda: FakeObjective(GANObjective(s.fake, s.head, s.process, 1))(s.x0, s.x0_real, s.cond, sigma, noise),
    )
    for call in calls:
        with pytest.raises((ValueError, TypeCheckError), match=line):  # the types' own, where they are checked
            call()


def test_features_of_another_width_than_the_heads_are_one_line():
    with pytest.raises(ValueError, match="expected features of 8 channels, got 6: build the head for them"):
        DiscriminatorHead(8)(torch.randn(2, 3, 6))
