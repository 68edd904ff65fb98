"""The page on how far the large teacher has come, and its reckoning of a GPU."""

import json
import math
from types import SimpleNamespace

import pytest

from benchmarks.large_teacher import curve
from benchmarks.large_teacher.__main__ import ON_GPU


def share(samples, middle, steepness=1.3):
    return 1 / (1 + math.exp(-steepness * math.log(samples / middle)))


@pytest.fixture
def work(tmp_path):
    """Write the log of a training whose attributes are logistic in the logarithm of samples."""
    lines = [{"stage": "vae", "step": 100, "loss": 1.0, "seconds": 3600.0}]
    for step in (1000, 2000, 2000, 4000):
        line = {"stage": "transformer", "step": step, "loss": 0.5, "seconds": 2.0 * step, "samples": 32 * step}
        line["machine"] = "2 cores"
        right = {name: share(32 * step, 1e4 * (1 + i)) for i, name in enumerate(curve.ATTRIBUTES)}
        lines += [line | {"step": step - 100}, line | right | {"all_right": math.prod(right.values())}]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return tmp_path


def test_looks_are_by_step_and_a_repeated_one_counts_once(work):
    assert [row["step"] for row in curve.looks(work / "log.jsonl")] == [1000, 2000, 4000]


def test_a_logistic_curve_is_continued(work):
    rows = curve.looks(work / "log.jsonl")
    found = curve.reached(rows, 4e5)
    for i, name in enumerate(curve.ATTRIBUTES):
        assert found[name] == pytest.approx(share(4e5, 1e4 * (1 + i)), abs=0.02)
    assert found["all_right"] == pytest.approx(math.prod(found[name] for name in curve.ATTRIBUTES))


def test_none_right_and_all_right_have_a_curve_too():
    assert curve.extrapolate([1e4, 1e5], [0.0, 0.0], 1e6) < 0.02
    assert curve.extrapolate([1e4, 1e5], [1.0, 1.0], 1e6) > 0.98


def test_a_gpus_samples_are_those_whose_flops_it_has_the_time_for():
    seconds, dt, samples = 9 * 60 * 0.85 - 40, 0.5, 0.0
    for tick in range(int(seconds / dt)):  # by the clock: as long with the shares of early as it says
        early = tick * dt / seconds < ON_GPU.early
        shares = ON_GPU.early_shares if early else ON_GPU.late_shares
        flops = sum(share * curve.GFLOP[size] for share, size in zip(shares, ON_GPU.latent_sizes, strict=True))
        samples += dt * curve.GPU_TFLOPS * 1e3 / flops
    assert curve.gpu_samples(9.0) == pytest.approx(samples, rel=0.01)


def test_the_page_is_made_by_one_command(work, monkeypatch, tmp_path, capsys):
    same = SimpleNamespace(encode=lambda x: x, decode=lambda x: x)
    monkeypatch.setattr(curve, "load_latents", lambda model: same)
    out = tmp_path / "page"
    curve.main(["--work", str(work), "--count", "8", "--out", str(out)])
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["checker"]["drawings"] == record["checker"]["after a round trip"]
    assert record["checker"]["drawings"]["all_right"] >= 0.875
    assert record["hours"] == pytest.approx((3600 + 8000) / 3600)
    page = out.with_suffix(".md").read_text()
    assert page.count("\n| 4000 | 128k | 133 |") == 1
    assert "on 2 cores:" in page
    assert out.with_suffix(".png").stat().st_size > 10_000
    (work / "log.jsonl").write_text("")
    with pytest.raises(SystemExit, match="expected two looks or more"):
        curve.main(["--work", str(work), "--out", str(out)])
