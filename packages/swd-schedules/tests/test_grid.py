import pytest

from swd_schedules.grid import shift_sigma, shifted_grid


def test_shift_of_one_is_the_identity_and_ends_stay() -> None:
    assert shift_sigma(0.3, 1.0) == 0.3
    assert shift_sigma(0.0, 3.0) == 0.0
    assert shift_sigma(1.0, 3.0) == 1.0
    assert shift_sigma(0.5, 3.0) == 0.75


@pytest.mark.parametrize(
    ("index", "timestep"), [(0, 1000.0), (4, 945.39), (7, 895.90), (12, 790.37), (14, 737.06), (18, 602.15), (27, 8.93)]
)
def test_twice_shifted_grid_holds_the_papers_timesteps(index: int, timestep: float) -> None:
    assert 1000 * shifted_grid(28)[index] == pytest.approx(timestep, abs=0.006)


@pytest.mark.parametrize(("index", "timestep"), [(4, 945.27), (7, 895.65), (12, 789.77), (14, 736.25), (18, 600.72)])
def test_once_shifted_grid_is_the_readme_snippets(index: int, timestep: float) -> None:
    assert 1000 * shifted_grid(28, twice=False)[index] == pytest.approx(timestep, abs=0.006)


@pytest.mark.parametrize("num_steps", [1, 2, 28])
def test_grid_falls_from_one_to_zero(num_steps: int) -> None:
    grid = shifted_grid(num_steps)
    assert len(grid) == num_steps + 1
    assert grid[0] == 1.0
    assert grid[-1] == 0.0
    assert list(grid) == sorted(grid, reverse=True)


def test_a_grid_needs_a_step() -> None:
    with pytest.raises(ValueError, match="expected num_steps of at least 1, got 0"):
        shifted_grid(0)
