import pytest
import torch

from swd_schedules import FlowMatching, VariancePreserving

FLOW, VP = FlowMatching(), VariancePreserving()
SHAPES = [(3, 4), (3, 2, 4, 6), (3, 2, 5, 4, 6)]


def pair(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=dtype), torch.randn(shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_flow_round_trip(shape: tuple[int, ...]) -> None:
    x0, noise = pair(shape)
    sigma = torch.tensor([1.0, 0.6, 0.0], dtype=torch.float64)
    x_t = FLOW.add_noise(x0, noise, sigma)
    torch.testing.assert_close(x_t[0], noise[0], rtol=0, atol=0)
    torch.testing.assert_close(x_t[2], x0[2], rtol=0, atol=0)
    torch.testing.assert_close(x_t[1], 0.4 * x0[1] + 0.6 * noise[1])
    torch.testing.assert_close(FLOW.to_x0(x_t, noise - x0, sigma), x0)


@pytest.mark.parametrize("shape", SHAPES)
def test_vp_round_trip_at_every_noise_level(shape: tuple[int, ...]) -> None:
    x0, noise = pair(shape)
    sigma = torch.tensor([1.0, 0.6, 0.0], dtype=torch.float64)
    x_t = VP.add_noise(x0, noise, sigma)
    torch.testing.assert_close(VP.to_x0(x_t, noise, sigma), x0)


@pytest.mark.parametrize("process", [FLOW, VP])
def test_one_sigma_for_all_equals_one_per_sample(process: FlowMatching | VariancePreserving) -> None:
    x0, noise = pair((3, 2, 4, 4))
    sigma = torch.full((3,), 0.7, dtype=torch.float64)
    assert torch.equal(process.add_noise(x0, noise, 0.7), process.add_noise(x0, noise, sigma))
    assert torch.equal(process.to_x0(x0, noise, 0.7), process.to_x0(x0, noise, sigma))


@pytest.mark.parametrize("process", [FLOW, VP])
def test_half_precision_latents_keep_their_dtype_and_single_precision_coefficients(
    process: FlowMatching | VariancePreserving,
) -> None:
    x0, noise = pair((2, 3, 4, 4), torch.bfloat16)
    x_t = process.add_noise(x0, noise, 0.945387)
    assert x_t.dtype == torch.bfloat16
    assert torch.equal(x_t, process.add_noise(x0.float(), noise.float(), 0.945387).bfloat16())
    assert process.to_x0(x_t, noise, 0.945387).dtype == torch.bfloat16


def test_flow_thresholds() -> None:
    sigma = torch.tensor([0.0, 0.5, 0.8, 1.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 1.0, 16.0, torch.inf], dtype=torch.float64)
    torch.testing.assert_close(FLOW.noise_to_signal(sigma), expected)
    torch.testing.assert_close(FLOW.snr(sigma), 1 / expected)
    assert FLOW.noise_to_signal(0.5).item() == 1.0


def test_vp_thresholds() -> None:
    sigma = torch.tensor([0.0, 0.4, 1.0])
    abar = VP.alpha_bar(sigma)
    torch.testing.assert_close(VP.noise_to_signal(sigma), (1 - abar) / abar)
    torch.testing.assert_close(VP.snr(sigma), abar / (1 - abar))
    assert torch.isfinite(VP.snr(sigma)).all()
    assert torch.isfinite(VP.noise_to_signal(sigma)).all()


def test_vp_alpha_bar_is_the_product_of_the_betas() -> None:
    ramp = [0.00085**0.5 + i / 999 * (0.012**0.5 - 0.00085**0.5) for i in range(1000)]
    product = 1.0
    for i, root in enumerate(ramp):
        product *= 1 - root**2
        if i in (0, 400, 999):
            assert VP.alpha_bar(i / 1000).item() == pytest.approx(product, rel=1e-12)


def test_vp_clamps_the_last_timestep() -> None:
    assert VP.alpha_bar(1.0) == VP.alpha_bar(0.999)
    assert VP.alpha_bar(1.0) < VP.alpha_bar(0.998)


def test_vp_equivalent_flow_sigmas() -> None:
    sigma = VP.flow_sigma(torch.tensor([1.0, 0.8, 0.6, 0.4]))
    expected = torch.tensor([0.936, 0.836, 0.695, 0.537], dtype=torch.float64)
    torch.testing.assert_close(sigma, expected, rtol=0, atol=1.1e-3)
    torch.testing.assert_close(FLOW.noise_to_signal(sigma), VP.noise_to_signal(torch.tensor([1.0, 0.8, 0.6, 0.4])))


def test_vp_gradients_after_first_use_in_inference_mode() -> None:
    process = VariancePreserving(beta_start=0.001)  # own numbers: nothing cached yet
    x0, noise = pair((2, 3, 4, 4))
    with torch.inference_mode():
        process.add_noise(x0, noise, 0.5)
    x0.requires_grad_()
    process.add_noise(x0, noise, 0.5).sum().backward()
    torch.testing.assert_close(x0.grad, process.alpha_bar(0.5).sqrt().expand_as(x0))
