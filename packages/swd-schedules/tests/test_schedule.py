from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest

from swd_schedules import ScaleSchedule, Stage, presets

SCHEDULE = ScaleSchedule.square((1000.0, 896.0, 737.0), (8, 8, 16))


def test_stages_pair_each_timestep_with_its_own_size() -> None:
    assert SCHEDULE.stages == (
        Stage(0, 1.0, (8, 8), (8, 8)),
        Stage(1, 0.896, (8, 8), (8, 8)),
        Stage(2, 0.737, (8, 8), (16, 16)),
    )
    assert SCHEDULE.sigmas == (1.0, 0.896, 0.737)


def test_an_upscaler_travels_with_the_schedule() -> None:
    schedule = ScaleSchedule.parse("1000:8, 896:8, 737:16, dct")
    assert schedule == replace(SCHEDULE, upscaler="dct")
    assert ScaleSchedule.from_json(schedule.to_json()) == schedule
    assert str(schedule) == "1000@8x8 -> 896@8x8 -> 737@16x16 (dct)"
    assert presets.resolve("tiny-4, dct") == replace(presets.TINY_4, upscaler="dct")
    for derived in (schedule.full_scale(), schedule.thin(2), schedule.thin(1), schedule.reshaped(2.0)):
        assert derived.upscaler == "dct"
    assert "upscaler" not in SCHEDULE.to_json()


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (ScaleSchedule.parse, "1000:8,896:16,lanczos"),
        (presets.resolve, "tiny-4,lanczos"),
        (ScaleSchedule.from_json, '{"timesteps": [1000], "sizes": [[8, 8]], "upscaler": "lanczos"}'),
    ],
)
def test_an_unknown_upscaler_is_refused(read: Callable[[str], ScaleSchedule], text: str) -> None:
    with pytest.raises(ValueError, match="expected an upscaler of bicubic, bilinear, nearest, dct, got 'lanczos'"):
        read(text)


def test_full_scale_keeps_timesteps_at_the_final_size() -> None:
    assert SCHEDULE.full_scale() == ScaleSchedule.square((1000.0, 896.0, 737.0), (16, 16, 16))


def test_a_level_at_a_boundary_is_of_the_noisier_side() -> None:
    stages = SCHEDULE.stages
    assert SCHEDULE.within(0.896, 1.0) == stages[:2]
    assert SCHEDULE.within(0.0, 0.896) == stages[2:]
    assert SCHEDULE.within(0.0, 1.0) == stages
    assert SCHEDULE.within(0.9, 0.95) == ()


def test_text_is_one_compact_line() -> None:
    assert str(SCHEDULE) == "1000@8x8 -> 896@8x8 -> 737@16x16"
    assert str(presets.WAN_4).startswith("1000@6x20x34 -> 895.9@11x30x52")


@pytest.mark.parametrize("name", presets.PRESETS)
def test_json_round_trip(name: str) -> None:
    schedule = presets.PRESETS[name]
    assert ScaleSchedule.from_json(schedule.to_json()) == schedule


def test_json_takes_whole_numbers_for_timesteps() -> None:
    text = '{"timesteps": [1000, 896, 737], "sizes": [[8, 8], [8, 8], [16, 16]]}'
    assert ScaleSchedule.from_json(text) == SCHEDULE


def test_parse() -> None:
    expected = ScaleSchedule((1000.0, 895.5), ((8, 8), (8, 10)))
    assert ScaleSchedule.parse("1000:8x8,895.5:8x10") == expected
    assert ScaleSchedule.parse(" 1000:8 , 895.5:8x10 ") == expected
    assert ScaleSchedule.parse("1e3:6x20x34").sizes == ((6, 20, 34),)


@pytest.mark.parametrize(
    ("timesteps", "sizes", "message"),
    [
        ((), (), "expected 1 to 64 timesteps, got none"),
        ((1000.0,), (), "expected one size per timestep, got 1 timesteps and 0 sizes"),
        ((1001.0,), ((8, 8),), r"expected timesteps in \(0, 1000\], got 1001"),
        ((0.0,), ((8, 8),), r"expected timesteps in \(0, 1000\], got 0"),
        ((-5.0,), ((8, 8),), r"expected timesteps in \(0, 1000\], got -5"),
        ((float("nan"),), ((8, 8),), r"expected timesteps in \(0, 1000\], got nan"),
        ((float("inf"),), ((8, 8),), r"expected timesteps in \(0, 1000\], got inf"),
        ((1000.0, float("nan")), ((8, 8),) * 2, r"expected timesteps in \(0, 1000\], got nan"),
        (tuple(1000.0 - i for i in range(65)), ((8, 8),) * 65, "expected 1 to 64 timesteps, got 65"),
        ((1.0, 0.6), ((8, 8), (16, 16)), "expected a first timestep of 10 or more, got 1; got sigmas"),
        ((900.0, 900.0), ((8, 8), (8, 8)), "expected strictly falling timesteps, got 900 then 900"),
        ((1000.0,), ((8,),), r"expected sizes \(h, w\) or \(t, h, w\) of whole numbers in 1..4096, got \(8,\)"),
        ((1000.0,), ((8, 0),), r"of whole numbers in 1..4096, got \(8, 0\)"),
        ((1000.0,), ((8, 4097),), r"of whole numbers in 1..4096, got \(8, 4097\)"),
        ((1000.0, 900.0), ((8, 8), (2, 8, 8)), r"expected sizes of one rank, got \(8, 8\) then \(2, 8, 8\)"),
        ((1000.0, 900.0), ((8, 8), (16, 6)), r"expected sizes that never shrink, got \(8, 8\) then \(16, 6\)"),
    ],
)
def test_broken_rules_are_named(timesteps: tuple[float, ...], sizes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScaleSchedule(timesteps, sizes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON such as .*check the syntax"),
        ("[]", "give exactly these two keys"),
        ('{"timesteps": [1000]}', "give exactly these two keys"),
        ('{"timesteps": [1000], "sizes": [[8, 8]], "mode": "dct"}', "give exactly these two keys"),
        ('{"timesteps": ["1000"], "sizes": [[8, 8]]}', r"got timesteps \['1000'\]; give a list of numbers"),
        ('{"timesteps": [1000], "sizes": [8]}', r"got sizes \[8\]; give a list of lists of whole numbers"),
        ('{"timesteps": [1000], "sizes": [["8", 8]]}', r"got sizes \[\['8', 8\]\]; give a list of lists"),
        ('{"timesteps": [1000], "sizes": [[8.0, 8]]}', r"got sizes \[\[8.0, 8\]\]; give a list of lists"),
        ('{"timesteps": [NaN], "sizes": [[8, 8]]}', "expected timesteps in"),
        ('{"timesteps": [1e999], "sizes": [[8, 8]]}', "expected timesteps in .* got inf"),
        ('{"timesteps": [1' + "0" * 400 + '], "sizes": [[8, 8]]}', "expected timesteps in"),
        ('{"timesteps": [1' + "0" * 9000 + '], "sizes": [[8, 8]]}', "check the syntax"),
        ("[" * 100_000, "check the syntax"),
        ('{"timesteps": [true], "sizes": [[8, 8]]}', r"got timesteps \[True\]; give a list of numbers"),
        ('{"timesteps": [1000], "sizes": [[true, 8]]}', "give a list of lists of whole numbers"),
        ('{"timesteps": 1000, "sizes": [[8, 8]]}', "got timesteps 1000; give a list of numbers"),
        ('{"timesteps": [1.0, 0.6], "sizes": [[8, 8], [16, 16]]}', "got sigmas.* multiply by 1000"),
        ('{"timesteps": [1000], "sizes": [[8, 8]], "upscaler": ["dct"]}', "expected an upscaler of"),
    ],
)
def test_broken_json_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScaleSchedule.from_json(text)


def test_sigmas_in_the_inline_form_are_a_mistake() -> None:
    for text in ("1.0:8,0.6:16", "9.99:8", "1e-3:8"):
        with pytest.raises(
            ValueError, match=r"expected a first timestep of 10 or more.* got sigmas\? multiply by 1000"
        ):
            ScaleSchedule.parse(text)
    assert ScaleSchedule.parse("10:8,0.5:16").timesteps == (10.0, 0.5)


BROKEN = ["", "1000", "1000:8x", "1000:1x2x3x4", "-5:8x8", "1000@8x8", "1000:8x8;900:8x8", "nan:8", "inf:8", "1000:-8"]


@pytest.mark.parametrize("text", [*BROKEN, "1000:" + "9" * 9000])
def test_broken_inline_form_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="expected entries such as 1000:8x8, got"):
        ScaleSchedule.parse(text)


def test_thin_keeps_first_and_last():
    schedule = ScaleSchedule.square((1000.0, 900.0, 800.0, 700.0), (8, 10, 12, 16))
    assert schedule.thin(4) == schedule
    assert schedule.thin(3).sizes == ((8, 8), (12, 12), (16, 16))
    assert schedule.thin(2) == ScaleSchedule.square((1000.0, 700.0), (8, 16))
    assert schedule.thin(1) == ScaleSchedule.square((1000.0,), (16,))
    with pytest.raises(ValueError, match="expected 1 to 4 steps, got 5"):
        schedule.thin(5)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_another_shape_keeps_timesteps_frames_and_areas(name: str) -> None:
    schedule = presets.PRESETS[name]
    for aspect, multiple in product((1.0, 4 / 3, 3 / 4, 16 / 9, 2.39), (1, 2, 4)):
        reshaped = schedule.reshaped(aspect, multiple)
        assert reshaped.timesteps == schedule.timesteps
        for old, new in zip(schedule.sizes, reshaped.sizes, strict=True):
            assert new[:-2] == old[:-2]
            height, width = ((old[-2] * old[-1] * ratio) ** 0.5 for ratio in (1 / aspect, aspect))
            for side, exact in zip(new[-2:], (height, width), strict=True):
                assert side % multiple == 0
                assert abs(side - exact) <= multiple / 2 + 1e-9 or side == multiple > exact


def test_a_shape_on_its_side_is_the_shape_turned() -> None:
    wide, high = SCHEDULE.reshaped(16 / 9, 2), SCHEDULE.reshaped(9 / 16, 2)
    assert [size[::-1] for size in wide.sizes] == list(high.sizes)
    assert wide.sizes == ((6, 10), (6, 10), (12, 22))


def test_the_own_shape_of_a_schedule_is_itself() -> None:
    for schedule in (SCHEDULE, presets.SD35_MEDIUM_6, presets.TINY_VIDEO_4):
        assert schedule.reshaped(1.0, 2) == schedule


@pytest.mark.parametrize("size", [(2048, 2049), (4096, 1025), (1025, 64, 64), (4096, 4096, 4096)])
def test_sizes_that_no_model_has_memory_for_are_refused(size):
    with pytest.raises(ValueError, match="expected at most 4194304 latent cells, got"):
        ScaleSchedule((1000.0,), (size,))
    assert ScaleSchedule((1000.0,), ((2048, 2048),)).sizes == ((2048, 2048),)
