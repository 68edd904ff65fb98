import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from swd_schedules import ScaleSchedule
from swd_spectral.cli import main


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


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["design", "flux"], "expected --full with the law flux"),
        (["design", "flux", "--full", "128"], "expected a size such as 128x128"),
        (["check", "flux-4-paper", "nowhere"], "does not exist"),
        (["check", "flux-4-paper", "nowhere.json"], "No such file"),
        (["analyze", "nowhere"], "does not exist"),
        (["check", "wan-4", "wan"], "expected a temporal spectrum"),
    ],
)
def test_errors_are_one_line(command, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(command)
    assert error.value.code == 2
    text = capsys.readouterr().err
    assert message in text
    assert len(text.splitlines()) == 1
