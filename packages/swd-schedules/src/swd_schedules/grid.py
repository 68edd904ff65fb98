"""Shifted noise-level grids: the fine grids that few-step schedules take their points from."""


def shift_sigma(sigma: float, shift: float) -> float:
    """Move a noise level towards 1: `s sigma / (1 + (s - 1) sigma)` (Esser et al. 2024, eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def shifted_grid(num_steps: int, shift: float = 3.0, twice: bool = True) -> tuple[float, ...]:
    """Return the falling noise levels of a `num_steps` grid, closed by 0: `num_steps + 1` values.

    `sigma_i = shift_sigma(u_i)` with `u` evenly spaced from 1 to `u_min`.

    diffusers' `FlowMatchEulerDiscreteScheduler` shifts its smallest level 1/1000 in the constructor, then the whole
    grid in `set_timesteps`: `twice=True`, `u_min = shift_sigma(1/1000)`. With `twice=False`, `u_min = 1/1000`.
    At 28 steps the two agree within one timestep down to 737, which hides a mix-up, and end at 8.9 and 3.0.
    """
    if num_steps < 1:
        raise ValueError(f"expected num_steps of at least 1, got {num_steps}; ask for one step or more")
    u_min = shift_sigma(0.001, shift) if twice else 0.001
    spacing = (1 - u_min) / max(num_steps - 1, 1)
    return (*(shift_sigma(1 - i * spacing, shift) for i in range(num_steps)), 0.0)
