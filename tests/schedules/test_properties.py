"""Properties of schedules and sizes over their whole range."""

import torch
from hypothesis import given, settings, strategies as st

from swd_schedules import ScaleSchedule, downscale, upscale

Columns = tuple[tuple[float, ...], tuple[tuple[int, ...], ...]]


@st.composite
def columns(draw: st.DrawFn) -> Columns:
    """Timesteps and sizes that make a valid schedule; the schedule is built in the test, where beartype may sample."""
    num_steps = draw(st.integers(1, 6))
    first = draw(st.floats(10, 1000))
    later = st.floats(1e-6, first, exclude_max=True)
    timesteps = [first, *draw(st.lists(later, min_size=num_steps - 1, max_size=num_steps - 1, unique=True))]
    axis = st.lists(st.integers(1, 160), min_size=num_steps, max_size=num_steps).map(sorted)
    axes = draw(st.lists(axis, min_size=2, max_size=3))
    return tuple(sorted(timesteps, reverse=True)), tuple(zip(*axes, strict=True))


@given(columns())
def test_json_round_trip(columns: Columns) -> None:
    schedule = ScaleSchedule(*columns)
    assert ScaleSchedule.from_json(schedule.to_json()) == schedule


@given(columns())
def test_inline_round_trip(columns: Columns) -> None:
    text = ",".join(f"{t!r}:{'x'.join(map(str, size))}" for t, size in zip(*columns, strict=True))
    assert ScaleSchedule.parse(text) == ScaleSchedule(*columns)


@given(columns())
def test_stages_chain_from_the_first_size_to_the_last(columns: Columns) -> None:
    stages = ScaleSchedule(*columns).stages
    assert stages[0].source == stages[0].target
    assert [stage.source for stage in stages[1:]] == [stage.target for stage in stages[:-1]]
    assert tuple(stage.target for stage in stages) == columns[1]
    assert [stage.index for stage in stages] == list(range(len(stages)))
    assert all(0 < stage.sigma <= 1 for stage in stages)


grown = st.tuples(st.integers(1, 6), st.integers(0, 5)).map(lambda pair: (pair[0], sum(pair)))


@settings(deadline=None)
@given(st.lists(grown, min_size=2, max_size=3), st.sampled_from(["bicubic", "bilinear", "nearest", "dct"]))
def test_resizing_reaches_every_size_and_keeps_the_mean_of_constants(axes: list[tuple[int, int]], mode: str) -> None:
    small, large = (tuple(size) for size in zip(*axes, strict=True))
    x = torch.full((2, 3, *small), 0.7, dtype=torch.float64)
    y = upscale(x, large, mode)
    torch.testing.assert_close(y, torch.full((2, 3, *large), 0.7, dtype=torch.float64))
    torch.testing.assert_close(downscale(y, small, "dct" if mode == "dct" else "area"), x)


@settings(deadline=None)
@given(grown, grown)
def test_dct_truncation_undoes_dct_padding(rows: tuple[int, int], columns: tuple[int, int]) -> None:
    small, large = zip(rows, columns, strict=True)
    x = torch.randn(1, 2, *small, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(downscale(upscale(x, large, "dct"), small, "dct"), x)
