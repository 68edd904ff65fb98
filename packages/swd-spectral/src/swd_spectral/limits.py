"""What numbers of the command line may be, each with the line that a user reads."""

from collections.abc import Sequence
from pathlib import Path


def check_range(name: str, value: int | float, low: int | float, high: int | float, hint: str) -> None:
    """Raise ValueError unless a number is in low..high; NaN never is."""
    if not low <= value <= high:
        raise ValueError(f"expected {name} in {low:g}..{high:g}, got {value:g}: {hint}")


def check_tau(tau: float) -> None:
    """Raise ValueError for what is no signal-to-noise ratio."""
    check_range("--tau", tau, 1e-9, 1e12, "a ratio of signal to noise; 0.1 unless you know better")


def check_timesteps(timesteps: Sequence[float]) -> None:
    """Raise ValueError for timesteps that cannot be drawn, or are sigmas."""
    if not 1 <= len(timesteps) <= 16:
        raise ValueError(f"expected 1 to 16 --timesteps, got {len(timesteps)}: each is a panel of the figure")
    for t in timesteps:
        if not 0 < t <= 1000:
            raise ValueError(f"expected --timesteps in (0, 1000], got {t:g}: count as 800, 600, 400")
    if max(timesteps) < 10:
        raise ValueError(
            f"expected one of --timesteps to be 10 or more, got {max(timesteps):g}: multiply sigmas by 1000"
        )


def check_law(law: tuple[float, float] | None) -> None:
    """Raise ValueError for amplitude and exponent of a law that does not fall."""
    if law is not None:
        check_range("the amplitude of --temporal", law[0], 1e-12, 1e12, "the power at one cycle per clip")
        check_range("the exponent of --temporal", law[1], 0, 16, "power falls as cycles^-exponent; about 2")


def check_folder(folder: Path) -> None:
    """Raise ValueError for an --out that is a file."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"expected a folder for --out, got {folder}, which is a file: choose another")


def parse_size(flag: str, text: str) -> tuple[int, ...]:
    """Read 128x128 or 21x60x104.

    Raises:
        ValueError: something else; the flag is named.
    """
    sides = text.split("x")
    if len(sides) not in (2, 3) or not all(side.isascii() and side.isdigit() and len(side) <= 4 for side in sides):
        raise ValueError(f"expected {flag} to be a size such as 128x128 or 21x60x104, got {text[:40]!r}")
    size = tuple(map(int, sides))
    if not all(1 <= side <= 4096 for side in size):
        raise ValueError(f"expected {flag} of 1 to 4096 latent cells a side, got {text}: pixels over 8, mostly")
    return size
