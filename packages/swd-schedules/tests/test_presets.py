import pytest

from swd_schedules import ScaleSchedule, presets

PAPER = {
    "sd35-medium-6": ([1000, 945, 896, 790, 737, 602], [32, 48, 64, 80, 96, 128]),
    "sd35-medium-4": ([1000, 896, 737, 602], [64, 80, 96, 128]),
    "sd35-large-4": ([1000, 896, 737, 602], [64, 80, 96, 128]),
    "flux-4-paper": ([1000, 945, 790, 602], [32, 64, 96, 128]),
    "flux-4-released": ([1000, 896, 737, 602], [64, 80, 96, 128]),
    "sdxl-4": ([1000, 800, 600, 400], [64, 80, 96, 128]),
    "tiny-4": ([1000, 896, 737, 602], [8, 10, 12, 16]),
    "sd35-medium-6-constant-64": ([1000, 945, 896, 790, 737, 602], [64] * 5 + [128]),
    "sd35-medium-6-constant-32": ([1000, 945, 896, 790, 737, 602], [32] * 5 + [128]),
    "sd35-medium-6-full": ([1000, 945, 896, 790, 737, 602], [128] * 6),
}


@pytest.mark.parametrize("name", PAPER)
def test_image_presets_print_as_in_the_paper(name: str) -> None:
    timesteps, sides = PAPER[name]
    schedule = presets.PRESETS[name]
    assert [round(t) for t in schedule.timesteps] == timesteps
    assert schedule.sizes == tuple((side, side) for side in sides)


def test_wan_presets() -> None:
    assert [round(t) for t in presets.WAN_4.timesteps] == [1000, 896, 737, 602]
    assert presets.WAN_4.sizes == ((6, 20, 34), (11, 30, 52), (16, 40, 70), (21, 60, 104))
    assert presets.WAN_4_SPATIAL.sizes == ((21, 20, 34), (21, 30, 52), (21, 40, 70), (21, 60, 104))


@pytest.mark.parametrize("name", [name for name in presets.PRESETS if name.endswith("-full")])
def test_full_scale_baselines_follow_their_preset(name: str) -> None:
    assert presets.PRESETS[name] == presets.PRESETS[name.removesuffix("-full")].full_scale()


def test_every_constant_is_a_preset() -> None:
    constants = [value for value in vars(presets).values() if isinstance(value, ScaleSchedule)]
    assert len(constants) == 10
    assert all(value in presets.PRESETS.values() for value in constants)


def test_resolve_takes_a_name_a_file_or_the_inline_form(tmp_path):
    schedule = presets.TINY_4
    path = tmp_path / "schedule.json"
    path.write_text(schedule.to_json())
    assert presets.resolve("tiny-4") == presets.resolve(str(path)) == schedule
    assert presets.resolve("1000:8,602:16").sizes == ((8, 8), (16, 16))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tiny-5", "expected a schedule, got .tiny-5.: take one of tiny-4"),
        ("nothing.json", "No such file"),
        ("1000:16,602:8", "never shrink"),
    ],
)
def test_resolve_says_what_it_expects(text, message):
    with pytest.raises(ValueError, match=message):
        presets.resolve(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_may_have_any_encoding_of_json(tmp_path, encoding):
    path = tmp_path / "schedule.JSON"
    path.write_text(presets.TINY_4.to_json(), encoding=encoding)
    assert presets.resolve(str(path)) == presets.TINY_4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "check the syntax"),
        (b'{"timesteps": [1000', "check the syntax"),
        (b"\xff\xff\xff", "save it as UTF-8"),
        (b'{"steps": 4}', "give exactly these two keys"),
        (b'{"timesteps": [1.0, 0.6], "sizes": [[8, 8], [16, 16]]}', "got sigmas"),
        (b'{"timesteps": [1000], "sizes": [[8, 8]], "upscaler": "lanczos"}', "an upscaler of"),
    ],
)
def test_whatever_is_wrong_with_a_file_it_is_named(tmp_path, data, message):
    path = tmp_path / "schedule.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"expected .*{message}") as error:
        presets.resolve(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"expected a schedule's JSON file, got .*schedule\.json"):
        presets.resolve(str(path))
