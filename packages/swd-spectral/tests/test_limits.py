import pytest

from swd_spectral.limits import check_law, check_range, check_tau, check_timesteps, parse_size

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("tau", [NAN, INF, -INF, -1.0, 0.0])
def test_tau_is_a_ratio(tau):
    with pytest.raises(ValueError, match="expected --tau in"):
        check_tau(tau)
    check_tau(0.1)


@pytest.mark.parametrize(
    ("timesteps", "message"),
    [
        ((), "expected 1 to 16 --timesteps, got 0"),
        ((500.0,) * 17, "expected 1 to 16 --timesteps, got 17"),
        ((500.0, NAN), r"expected --timesteps in \(0, 1000\], got nan"),
        ((0.0,), r"in \(0, 1000\], got 0"),
        ((-1.0,), r"in \(0, 1000\], got -1"),
        ((1000.5,), r"in \(0, 1000\], got 1000.5"),
        ((0.8, 0.4), "got 0.8: multiply sigmas by 1000"),
    ],
)
def test_timesteps_can_be_drawn(timesteps, message):
    with pytest.raises(ValueError, match=message):
        check_timesteps(timesteps)
    check_timesteps((1000.0, 0.5))


def test_a_law_falls():
    check_law(None)
    check_law((6.5, 2.0))
    for law in ((NAN, 2.0), (6.5, NAN), (-1.0, 2.0), (6.5, -1.0), (INF, 2.0), (6.5, 1e9)):
        with pytest.raises(ValueError, match="of --temporal in"):
            check_law(law)


def test_ranges_name_what_they_are_of():
    with pytest.raises(ValueError, match=r"expected --steps in 1\.\.64, got 0: sampling steps"):
        check_range("--steps", 0, 1, 64, "sampling steps")


def test_sizes():
    assert parse_size("--full", "21x60x104") == (21, 60, 104)
    for text in ("", "128", "128x", "1x2x3x4", "axb", "-8x8", "8.0x8", "\u00b28x8", "9" * 5000 + "x8", "99999x8"):
        with pytest.raises(ValueError, match="expected --full to be a size such as 128x128"):
            parse_size("--full", text)
    for text in ("0x8", "8x4097"):
        with pytest.raises(ValueError, match="expected --full of 1 to 4096 latent cells a side"):
            parse_size("--full", text)
