import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from swd_schedules import ScaleSchedule
from swd_spectral.cli import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """What a command writes below the folder that it runs in is not left here."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def latents(tmp_path):
    """Write latents with an f^-2 spectrum: videos of 9 frames at 16x16."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2, 9, 16, 16, generator=generator).cumsum(2).cumsum(3).cumsum(4)
    path = tmp_path / "latents.safetensors"
    save_file({"latents": x / x.std()}, path)
    return str(path)


def test_analyze_draws_and_keeps_the_numbers(latents, tmp_path, capsys):
    main(["analyze", latents, "--out", str(tmp_path / "out"), "--timesteps", "900", "500"])
    text = capsys.readouterr().out
    assert "t= 900: smallest safe size" in text
    assert "of 9 frames" in text
    assert Image.open(tmp_path / "out" / "masking.png").width > 500
    assert (tmp_path / "out" / "masking.svg").read_text().count("cycles per clip") == 2
    assert (tmp_path / "out" / "spectrum.csv").read_text().startswith("axis,cycles,frequency,power,error,count")
    main(["check", "1000:9x8x8,700:9x16x16", str(tmp_path / "out" / "spectrum.json"), "--tau", "1e9"])
    assert "hidden" in capsys.readouterr().out


def test_design_writes_schedules_that_check_passes(latents, tmp_path, capsys):
    out = tmp_path / "out"
    main(["design", latents, "--steps", "3", "--out", str(out)])
    assert "of full scale" in (out / "report.txt").read_text()
    for name in ("smallest-sizes", "lowest-timesteps"):
        schedule = ScaleSchedule.from_json((out / f"{name}.json").read_text())
        assert schedule.sizes[-1] == (9, 16, 16)
        capsys.readouterr()
        main(["check", str(out / f"{name}.json"), latents])
        assert "LOST" not in capsys.readouterr().out


def test_design_keeps_to_the_sizes_that_it_is_given(latents, tmp_path):
    sizes = ["5x8x8", "7x12x12", "9x16x16"]
    main(["design", latents, "--steps", "3", "--smallest", "5x8x8", "--sizes", *sizes, "--out", str(tmp_path)])
    smallest = ScaleSchedule.from_json((tmp_path / "smallest-sizes.json").read_text())
    assert all(side >= least for size in smallest.sizes for side, least in zip(size, (5, 8, 8), strict=True))
    lowest = ScaleSchedule.from_json((tmp_path / "lowest-timesteps.json").read_text())
    assert ["x".join(map(str, size)) for size in lowest.sizes] == sizes


def test_no_proposal_begins_below_the_smallest_size(tmp_path):
    main(["design", "flux", "--full", "128x128", "--smallest", "64x64", "--steps", "4", "--out", str(tmp_path)])
    for name in ("smallest-sizes", "lowest-timesteps"):
        sizes = ScaleSchedule.from_json((tmp_path / f"{name}.json").read_text()).sizes
        assert min(min(size) for size in sizes) >= 64


def test_sizes_whose_frames_stay_need_no_temporal_law(tmp_path):
    main(["design", "wan", "--full", "9x60x104", "--sizes", "9x30x52", "9x60x104", "--out", str(tmp_path)])
    lowest = ScaleSchedule.from_json((tmp_path / "lowest-timesteps.json").read_text())
    assert lowest.sizes == ((9, 30, 52), (9, 60, 104))


def test_a_spectrum_of_another_size_says_nothing_of_this_one(latents, tmp_path, capsys):
    out = tmp_path / "out"
    main(["analyze", latents, "--out", str(out), "--timesteps", "900"])
    measured = str(out / "spectrum.json")
    for command in (
        ["check", "1000:9x16x16,400:9x32x32", measured],
        ["check", "1000:5x8x8,400:5x16x16", measured],
        ["design", measured, "--full", "9x32x32"],
    ):
        with pytest.raises(SystemExit) as refused:
            main(command)
        assert refused.value.code == 2
        assert ", got one of 9x16x16: analyze data of that size" in capsys.readouterr().err
    main(["check", "1000:5x8x8,900:5x16x16", measured, "--temporal", "0.5", "2", "--tau", "1e9"])  # its law has no size


def test_what_is_made_of_two_sources_lies_in_two_folders(latents, tmp_path, capsys):
    main(["analyze", "latents.safetensors"])
    main(["design", "runs/spectrum/latents.safetensors/spectrum.json", "--steps", "2"])
    main(["design", "flux", "--full", "32x32", "--steps", "2"])
    assert (tmp_path / "runs/spectrum/latents.safetensors/spectrum.json").is_file()
    for name, full in {"latents.safetensors": [9, 16, 16], "flux": [32, 32]}.items():
        found = json.loads((tmp_path / "runs/design" / name / "smallest-sizes.json").read_text())
        assert found["sizes"][-1] == full


def test_a_run_means_its_cache(latents, tmp_path, monkeypatch, capsys):
    cache = tmp_path / "run" / "cache"
    (cache / "latents").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text('{"model": "embedded", "recipe": {}}')
    (cache / "manifest.json").write_text('{"settings": {}}')
    (tmp_path / "latents.safetensors").rename(cache / "latents" / "shard-00000.safetensors")
    (tmp_path / "run" / "images").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "run" / "images" / "0.png")
    main(["analyze", str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    assert "4 latents of 9x16x16" in capsys.readouterr().out


def test_a_published_law_will_do(tmp_path, capsys):
    main(["design", "flux", "--full", "128x128", "--family", "flux", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "smallest-sizes.json").read_text())["sizes"][-1] == [128, 128]
    main(["check", "flux-4-paper", "flux"])
    main(["check", "wan-4", "wan", "--temporal", "6.5", "2"])
    main(["check", "sdxl-4", "flux", "--process", "vp"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as unsafe:
        main(["check", "1000:64,400:128", "flux"])
    assert unsafe.value.code == 1
    assert "LOST: raise the timestep" in capsys.readouterr().out


BAD = [
    (["design", "flux"], "expected --full with the law flux"),
    (["design", "flux", "--full", "128"], "expected --full to be a size such as 128x128"),
    (["design", "flux", "--full", "127x129"], "expected a full size in multiples of 2, the model's patch, got 127x129"),
    (["design", "flux", "--full", "128x128", "--smallest", "8x8x8"], "expected a smallest size within 128x128"),
    (["design", "flux", "--full", "128x128", "--sizes", "64x64", "96x96"], "expected --sizes that end in 128x128"),
    (["design", "flux", "--full", "128x128", "--sizes", "8x8x8", "128x128"], "expected sizes of one rank"),
    (["design", "flux", "--full", "128x128", "--sizes", "128x128"], "expected two --sizes or more, got 128x128 alone"),
    (["design", "wan", "--full", "9x60x104", "--sizes", "5x30x52", "9x60x104"], "expected --temporal with --sizes"),
    (["design", "nowhere", "--steps", "0"], "expected --steps in 1..64, got 0"),
    (["design", "nowhere", "--steps", "40"], "expected at most 19 steps"),
    (["design", "nowhere", "--steps", "99", "--process", "vp"], "expected --steps in 1..64, got 99"),
    (["design", "nowhere", "--multiple", "0"], "expected --multiple in 1..64, got 0"),
    (["design", "nowhere", "--temporal", "nan", "2"], "expected the amplitude of --temporal in"),
    (["design", "nowhere", "--full", "9999x9999"], "expected --full of 1 to 4096 latent cells a side"),
    (["check", "flux-4-paper", "nowhere"], "does not exist"),
    (["check", "flux-4-paper", "nowhere.json"], "does not exist"),
    (["check", "flux-4-paper", "nowhere", "--tau", "nan"], "expected --tau in"),
    (["check", "1.0:8,0.6:16", "flux"], "got sigmas? multiply by 1000"),
    (["check", "wan-4", "wan"], "expected a spectrum over time"),
    (["check", "wan-4", "wan", "--temporal", "6.5", "nan"], "expected the exponent of --temporal in"),
    (["analyze"], "expected at least one input"),
    (["analyze", "nowhere"], "does not exist"),
    (["analyze", "nowhere", "--tau", "-1"], "expected --tau in"),
    (["analyze", "nowhere", "--timesteps", "800", "1200"], "expected --timesteps in (0, 1000], got 1200"),
    (["analyze", "nowhere", "--timesteps", "0.8"], "multiply sigmas by 1000"),
    (["analyze", "nowhere", "--pixels", "0"], "expected --pixels in multiples of 16, got 0"),
    (["analyze", "nowhere", "--pixels", "-16"], "expected --pixels in multiples of 16, got -16"),
    (["analyze", "nowhere", "--pixels", "100"], "expected --pixels in multiples of 16, got 100"),
    (["analyze", "nowhere", "--num-frames", "0"], "expected --num-frames in 1..4096, got 0"),
    (["analyze", "nowhere", "--fps", "nan"], "expected --fps in 1..240, got nan"),
    (["analyze", "nowhere", "--max-bad", "2"], "expected --max-bad in 0..1, got 2"),
    (["analyze", "nowhere", "--out", __file__], "expected a folder for --out"),
]


@pytest.mark.parametrize(("command", "message"), BAD)
def test_errors_are_one_line(command, message, capsys):
    assert_one_line(command, message, capsys)


def assert_one_line(command, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(command)
    text = capsys.readouterr().err
    assert error.value.code == 2, text
    assert message in text
    assert text.startswith("swd-spectral: error: expected ")
    assert len(text.splitlines()) == 1


def test_samples_that_say_nothing_are_one_line(tmp_path, capsys):
    image, path = tmp_path / "a.png", tmp_path / "a.safetensors"
    Image.new("RGB", (8, 8)).save(image)
    assert_one_line(["analyze", str(image)], "expected 16 pixels a side or more, got 8x8", capsys)
    save_file({"latents": torch.zeros(2, 4, 16, 16)}, path)
    assert_one_line(["analyze", str(path)], "got constant ones", capsys)
    save_file({"latents": torch.full((2, 4, 16, 16), torch.nan)}, path)
    assert_one_line(["analyze", str(path), "--out", str(tmp_path)], "expected", capsys)
    (tmp_path / "a.json").write_text("{}")
    assert_one_line(["check", "flux-4-paper", str(tmp_path / "a.json")], "a.json, which is none", capsys)


@pytest.mark.parametrize(
    "shape", [(1, 4, 16, 16), (2, 4, 2, 2), (3, 4, 2, 9), (1, 4, 1, 8, 8), (2, 4, 2, 8, 8), (1, 1, 5, 16, 16)]
)
def test_few_and_small_latents_work(tmp_path, capsys, shape):
    out = tmp_path / "out"
    save_file({"latents": torch.randn(shape).to(torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    main(["analyze", str(tmp_path / "a.safetensors"), "--out", str(out), "--drop-first"])
    assert f"{shape[0]} latents of {'x'.join(map(str, shape[2:]))}" in capsys.readouterr().out
    main(["design", str(out / "spectrum.json"), "--multiple", "1", "--steps", "6", "--out", str(out)])
    assert (out / "smallest-sizes.json").is_file()


def test_pictures_that_stand_still_work(tmp_path, capsys):
    save_file({"latents": torch.randn(2, 4, 1, 16, 16).repeat(1, 1, 9, 1, 1)}, tmp_path / "a.safetensors")
    main(["analyze", str(tmp_path / "a.safetensors"), "--out", str(tmp_path / "out")])
    assert "1 of 9 frames" in capsys.readouterr().out


def test_odd_sizes_work_where_no_patch_divides_them(tmp_path):
    main(["design", "flux", "--full", "127x129", "--multiple", "1", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "lowest-timesteps.json").read_text())["sizes"][-1] == [127, 129]


def test_no_two_sources_share_a_default_folder():
    from swd_spectral.options import default_folder

    sources = [
        ("photos",),
        ("../photos",),
        ("/photos",),
        ("a/b",),
        ("a-b",),
        ("a", "b"),
        ("a",),
        ("x.png",),
        ("x",),
        (".",),
        ("..",),
    ]
    assert len({default_folder("spectrum", *each) for each in sources}) == len(sources)
    assert default_folder("design", "runs/spectrum/runs/tiny/spectrum.json") == Path("runs/design/runs/tiny")
