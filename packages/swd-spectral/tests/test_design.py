import pytest

from swd_schedules import FlowMatching, ScaleSchedule, VariancePreserving, presets
from swd_spectral import FLUX_LAW, WAN_LAW, PowerLaw, check_schedule, propose_schedule, propose_timesteps
from swd_spectral.costs import COSTS, relative_cost
from swd_spectral.design import check_sizes, default_timesteps, even_sizes

FRAMES = PowerLaw(6.5, 2.0)  # 11 of 21 frames are safe at t = 600
PAPER = {
    "sd35-medium-6": ("sd35-medium", FLUX_LAW),
    "sd35-medium-4": ("sd35-medium", FLUX_LAW),
    "sd35-large-4": ("sd35-large", FLUX_LAW),
    "flux-4-paper": ("flux", FLUX_LAW),
    "flux-4-released": ("flux", FLUX_LAW),
    "wan-4": ("wan", WAN_LAW),
    "wan-4-spatial": ("wan", WAN_LAW),
    "sdxl-4": ("sdxl", FLUX_LAW),
}


def check(name, schedule, **options):
    process = VariancePreserving() if name.startswith("sdxl") else FlowMatching()
    temporal = FRAMES if name == "wan-4" else None
    return check_schedule(schedule, PAPER[name][1], process, temporal=temporal, **options)


@pytest.mark.parametrize("name", list(PAPER))
def test_schedules_of_the_paper_pass_and_less_noisy_ones_do_not(name):
    schedule = presets.PRESETS[name]
    assert all(step.safe for step in check(name, schedule))
    shifted = ScaleSchedule(tuple(t - 200 for t in schedule.timesteps), schedule.sizes)
    steps = check(name, shifted)
    assert not all(step.safe for step in steps)
    assert any("LOST" in str(step) for step in steps)


def test_a_repeated_size_loses_nothing_and_a_jump_does():
    steps = check_schedule(presets.PRESETS["sd35-medium-6-constant-32"], FLUX_LAW)
    assert [step.safe for step in steps] == [True] * 5 + [False]
    assert all(step.worst == 0 for step in steps[:5])
    assert "nothing lost" in str(steps[2])


def test_the_coarser_axis_decides():
    wide = ScaleSchedule((1000.0, 700.0), ((32, 16), (32, 32)))
    tall = ScaleSchedule((1000.0, 700.0), ((16, 16), (32, 32)))
    assert check_schedule(wide, FLUX_LAW)[1].space == check_schedule(tall, FLUX_LAW)[1].space


def test_noise_at_the_own_size_hides_more():
    plain, matched = (check("wan-4", presets.WAN_4, matched=m) for m in (False, True))
    for a, b in zip(plain[1:], matched[1:], strict=True):
        assert b.space == pytest.approx(a.space * b.target[1] * b.target[2] / (60 * 104))
        assert b.time == pytest.approx(a.time * b.target[0] / 21)


def test_growing_frames_need_a_temporal_spectrum():
    with pytest.raises(ValueError, match="expected a spectrum over time"):
        check_schedule(presets.WAN_4, WAN_LAW)


@pytest.mark.parametrize("name", [n for n in PAPER if not n.startswith("sdxl")])
def test_proposals_are_cheaper_than_the_papers_at_no_smaller_margin(name):
    family, law = PAPER[name]
    schedule, cost = presets.PRESETS[name], COSTS[family]
    temporal = FRAMES if name == "wan-4" else None
    worst = max(step.worst for step in check(name, schedule))
    smallest = schedule.sizes[0]
    proposal = propose_schedule(
        law, schedule.sizes[-1], schedule.timesteps, cost, temporal=temporal, tau=worst, smallest=smallest
    )
    assert proposal.worst <= worst
    assert proposal.relative_cost <= relative_cost(schedule, cost)
    assert all(side % 2 == 0 for size in proposal.schedule.sizes for side in size[-2:])
    assert all(ours <= theirs for ours, theirs in zip(proposal.schedule.sizes, schedule.sizes, strict=True))


def test_a_proposal_explains_itself():
    text = str(propose_schedule(FLUX_LAW, (128, 128), default_timesteps(4), COSTS["flux"]))
    assert "1000@32x32 -> 895.9@38x38" in text
    assert "of full scale" in text
    assert "tau 0.1" in text
    assert text.count("t=") == 4


def test_a_smaller_size_would_lose_something():
    proposal = propose_schedule(FLUX_LAW, (128, 128), default_timesteps(6), COSTS["flux"], smallest=(2, 2))
    schedule = proposal.schedule
    for index in range(len(schedule.sizes) - 1):
        sizes = list(schedule.sizes)
        if sizes[index][0] == 2:
            continue
        sizes[index] = (sizes[index][0] - 2, sizes[index][1] - 2)
        try:
            smaller = ScaleSchedule(schedule.timesteps, tuple(sizes))
        except ValueError:
            continue
        assert not all(step.safe for step in check_schedule(smaller, FLUX_LAW))


def test_timesteps_for_sizes_are_the_lowest_safe_ones():
    proposal = propose_timesteps(FLUX_LAW, presets.SD35_MEDIUM_6.sizes, COSTS["sd35-medium"])
    assert all(step.safe for step in proposal.steps)
    schedule = proposal.schedule
    for index in range(1, 6):
        lower = list(schedule.timesteps)
        lower[index] -= 2
        steps = check_schedule(ScaleSchedule(tuple(lower), schedule.sizes), FLUX_LAW)
        assert not steps[index].safe
    with pytest.raises(ValueError, match="got 32x32 twice"):
        propose_timesteps(FLUX_LAW, [(32, 32), (32, 32)], COSTS["flux"])


@pytest.mark.parametrize("smallest", [(16, 16), (40, 12), (20, 36)])
def test_no_side_is_below_the_smallest_whatever_its_proportions(smallest):
    for steps in (3, 4, 6, 9):
        schedule = propose_schedule(
            FLUX_LAW, (60, 104), default_timesteps(steps), COSTS["flux"], smallest=smallest
        ).schedule
        assert all(side >= least for size in schedule.sizes for side, least in zip(size, smallest, strict=True))


@pytest.mark.parametrize("sizes", [[(11, 60, 104), (21, 60, 104)], [(21, 30, 52), (21, 60, 104)]])
def test_timesteps_are_the_lowest_safe_ones_where_one_kind_of_axis_grows(sizes):
    proposal = propose_timesteps(WAN_LAW, sizes, COSTS["wan"], temporal=PowerLaw(0.5, 2.0))
    assert all(step.safe for step in proposal.steps)
    lower = ScaleSchedule((1000.0, proposal.schedule.timesteps[1] - 2), tuple(sizes))
    assert not check_schedule(lower, WAN_LAW, temporal=PowerLaw(0.5, 2.0))[1].safe


def test_frames_that_grow_need_a_temporal_spectrum_for_their_timesteps():
    with pytest.raises(ValueError, match="expected a temporal spectrum for frames that grow, got none"):
        propose_timesteps(WAN_LAW, [(11, 60, 104), (21, 60, 104)], COSTS["wan"])


def test_sizes_are_those_that_a_model_takes():
    for full, multiple, smallest, message in (
        (
            (127, 129),
            2,
            None,
            "expected a full size in multiples of 2, .* got 127x129: take 126x128, or another multiple",
        ),
        ((21, 60, 105), 2, None, "got 21x60x105: take 21x60x104"),
        ((1, 1), 2, None, "got 1x1: take 2x2"),
        ((128, 128), 0, None, "expected a multiple of 1 or more, got 0"),
        ((128, 128), 2, (9, 9), "expected a smallest size in multiples of 2, got 9x9"),
        ((128, 128), 2, (4, 8, 8), "expected a smallest size within 128x128, got 4x8x8"),
        ((128, 128), 2, (256, 8), "expected a smallest size within 128x128, got 256x8"),
    ):
        with pytest.raises(ValueError, match=message):
            check_sizes(full, multiple, smallest)
        with pytest.raises(ValueError, match=message):
            propose_schedule(FLUX_LAW, full, (1000.0, 600.0), COSTS["flux"], multiple=multiple, smallest=smallest)
    odd = propose_schedule(FLUX_LAW, (127, 129), (1000.0, 600.0), COSTS["flux"], multiple=1)
    assert odd.schedule.sizes[-1] == (127, 129)


def test_sizes_for_timesteps_keep_the_rules_of_a_schedule():
    for sizes, message in (
        ([(8, 8), (4, 8, 8)], "expected sizes of one rank"),
        ([(16, 16), (8, 8)], "never shrink"),
    ):
        with pytest.raises(ValueError, match=message):
            propose_timesteps(FLUX_LAW, sizes, COSTS["flux"])
    dark = PowerLaw(1e-12, 2.0)  # any noise hides it: as low as timesteps go
    lowest = propose_timesteps(dark, [(8, 8), (16, 16), (32, 32), (64, 64)], COSTS["flux"])
    assert lowest.schedule.timesteps == (1000.0, 3.0, 2.0, 1.0)


def test_frames_are_proposed_too():
    proposal = propose_schedule(WAN_LAW, (21, 60, 104), default_timesteps(4), COSTS["wan"], temporal=FRAMES)
    assert [size[0] for size in proposal.schedule.sizes] == [6, 6, 11, 21]
    spatial = propose_schedule(WAN_LAW, (21, 60, 104), default_timesteps(4), COSTS["wan"])
    assert {size[0] for size in spatial.schedule.sizes} == {21}
    timed = propose_timesteps(WAN_LAW, presets.WAN_4.sizes, COSTS["wan"], temporal=FRAMES)
    assert all(step.safe for step in timed.steps)


def test_default_timesteps():
    assert default_timesteps(6) == presets.SD35_MEDIUM_6.timesteps
    assert default_timesteps(4) == presets.SD35_MEDIUM_4.timesteps
    assert default_timesteps(4, VariancePreserving()) == presets.PRESETS["sdxl-4"].timesteps
    assert default_timesteps(3) == pytest.approx((1000, 857.7, 602.2), abs=0.1)
    assert default_timesteps(1) == (1000.0,)
    for wrong in (0, 20):
        with pytest.raises(ValueError, match="expected at"):
            default_timesteps(wrong)


def test_even_sizes_are_the_papers():
    assert even_sizes((128, 128), 4) == [(32, 32), (64, 64), (96, 96), (128, 128)]
    assert even_sizes((21, 60, 104), 2, smallest=0.3) == [(6, 18, 32), (21, 60, 104)]


# facts: TFLOP of a forward pass, counted on diffusers' models
COUNTED = {
    "sd35-medium": [0.911, 1.52, 2.44, 3.77, 5.59, 11.25],
    "sd35-large": [3.28, 5.19, 7.98, 11.79, 16.77, 31.12],
    "flux": [10.35, 14.90, 21.50, 30.41, 41.93, 74.38],
    "sdxl": [0.428, 0.905, 1.59, 2.49, 3.64, 6.76],
}


@pytest.mark.parametrize("family", list(COUNTED))
def test_costs_are_the_counted_ones(family):
    for side, tflop in zip((32, 48, 64, 80, 96, 128), COUNTED[family], strict=True):
        assert COSTS[family]((side, side)) == pytest.approx(tflop, rel=2e-3)


def test_wan_costs_are_the_counted_ones():
    for size, tflop in zip(presets.WAN_4.sizes, (2.99, 14.68, 52.35, 283.0), strict=True):
        assert COSTS["wan"](size) == pytest.approx(tflop, rel=2e-3)
