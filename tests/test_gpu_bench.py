import json
import os
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from jaxtyping import config

from benchmarks.gpu import __main__ as gpu, memory, pack, records, setting, training
from benchmarks.gpu.page import page, table
from benchmarks.gpu.reckon import as_text, beside, estimate, steps_seconds, update_seconds
from benchmarks.gpu.setting import Setting, here
from benchmarks.gpu.stages import STAGES, Stage
from benchmarks.latency.rows import schedules
from benchmarks.provenance import COMMIT, ROOT, data_sheet
from benchmarks.training.updates import FAKE, kinds, steps_at
from swd_distill.training.batches import STUDENT, Draw
from swd_schedules import presets

H100 = "NVIDIA H100 80GB HBM3"
FAMILIES = {name: name for name in ("sd3", "flux", "sdxl", "wan")} | {"sd3": "sd35-medium"}


@pytest.fixture
def small():
    return here()


@pytest.fixture
def on_gpu():
    """Give the setting of an H100, to reckon with: nothing runs on it."""
    full = (data_sheet(H100), FAMILIES, FAMILIES, 8, 1, (1, 2, 3), 2, "inductor")
    return Setting(torch.device("cuda"), torch.bfloat16, *full)


def _stage(measure, takes=1.0):
    return Stage("some-stage", "Some stage", (takes, takes), measure)


def test_one_command_measures_tiny_models_on_a_cpu_and_claims_nothing_for_a_gpu(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(setting, "here", lambda: replace(here(), backend="eager"))  # which compiles faster
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # or each check of a shape is compiled as well
    monkeypatch.setenv(COMMIT, "this")
    alike = ("latency-flux-compiled", "latency-wan-compiled", "latency-sdxl-compiled", "memory-qwen", "memory-wan")
    stages = tuple(stage for stage in STAGES if stage.name not in alike)  # SD3 is compiled, FLUX is in fewer bits
    monkeypatch.setattr("benchmarks.gpu.stages.STAGES", stages)
    began = time.monotonic()
    gpu.main(["--minutes", "6", "--out", str(tmp_path)])
    assert time.monotonic() - began < 380
    made = {stage.name: json.loads((tmp_path / f"{stage.name}.json").read_text()) for stage in stages}
    assert {name: record["error"] for name, record in made.items() if record["ended"] == "failed"} == {}
    done = {name: record["rows"] for name, record in made.items() if record["ended"] == "done"}
    most = {name for name in made if name.startswith("smoke")} | {"latency-sd3"}
    assert done.keys() >= most  # all of them in two minutes, where nothing else runs
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# Run without a GPU")
    assert "roofline" not in text.split("## ", 1)[1]
    finite = [row["finite"] for rows in done.values() for row in rows.values() if "finite" in row]
    assert len(finite) > 10
    assert all(finite)
    assert done["smoke-tiny"]["resume"]["largest difference"] == 0
    assert done["smoke-adapters"]["outputs apart"]["ours / PEFT"] < 1e-6
    for name in ("tiny-flux", "tiny-wan", "tiny-sdxl"):
        row = done["smoke-families"][name]
        assert row["merged / apart"] < 1e-4 < row["base / apart"]

    capsys.readouterr()
    gpu.main(["--minutes", "6", "--out", str(tmp_path), "--only", "smoke"])
    smoke = [stage for stage in STAGES if stage.name.startswith("smoke")]
    assert capsys.readouterr().out.count("there already") == len(smoke)


def test_table_5_is_made_of_updates_with_as_many_samples_as_fit(small, monkeypatch):
    rows, sweep = {}, training.sweep

    def crowded(setting, case, stages, rows):
        if case.trainer.config.training.batch > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sweep(setting, case, stages, rows)

    monkeypatch.setattr(training, "sweep", crowded)
    training.table_5(small, "flux", (1, 2), rows)
    assert rows["full loss, 2 sample(s)"] == {"not measured": "CUDA out of memory."}
    stages, label = range(len(small.config("flux", 1).scales.sizes)), "full loss, 1 sample(s)"
    times = {"student": 1, "fake": 2}
    by_stage = [
        sum(count * rows[f"{label}, step {i + 1}: {kind} update"]["seconds"] for kind, count in times.items())
        for i in stages
    ]
    assert rows[f"{label}, iteration, scale-wise"]["seconds"] == pytest.approx(sum(by_stage) / len(by_stage))
    assert rows[f"{label}, iteration, full scale"]["seconds"] == pytest.approx(by_stage[-1])
    assert rows["full loss / MMD alone, scale-wise"]["ratio"] > 1


def test_what_does_not_fit_the_budget_is_said_not_to_be_measured(tmp_path, small):
    gpu.measure(small, STAGES[:2], tmp_path, until=time.monotonic() + 1)
    record = json.loads((tmp_path / f"{STAGES[0].name}.json").read_text())
    assert (record["ended"], record["rows"]) == ("not measured", {})
    assert "were left" in (tmp_path / "README.md").read_text()
    assert not records.holds(record)


def test_a_stage_that_fails_or_overruns_keeps_what_it_found(small, monkeypatch):
    monkeypatch.setattr(records, "AGAIN", 0.1)
    lost = []

    def fail(setting, rows):
        rows["first"] = {"seconds": 1.0}
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def overrun(setting, rows):
        rows["first"] = {"seconds": 1.0}
        while True:
            try:
                time.sleep(10)
            except Exception:
                rows["swallowed"] = {}
            except BaseException:
                lost.append(1)  # as in a finaliser
                if len(lost) == 2:
                    raise

    failed, late = records.make(_stage(fail), small, 5.0), records.make(_stage(overrun, 0.1), small, 0.5)
    assert (failed["ended"], late["ended"]) == ("failed", "out of time")
    assert failed["error"].startswith("OutOfMemoryError: CUDA out of memory. (test_gpu_bench.py:")
    assert failed["rows"] == late["rows"] == {"first": {"seconds": 1.0}}
    assert not records.holds(late)
    monkeypatch.setenv(COMMIT, "this-dirty")
    assert not records.holds(failed | {"commit": "this-dirty"})
    monkeypatch.setenv(COMMIT, "this")
    assert records.holds(failed | {"commit": "this"})
    assert "**failed**: OutOfMemoryError" in page([failed])


def test_what_was_measured_at_another_commit_is_kept_until_it_is_measured_again(tmp_path, small):
    path, stage = tmp_path / f"{STAGES[0].name}.json", STAGES[0]
    old = records.make(Stage(stage.name, stage.title, (0, 0), lambda setting, rows: None), small, 5.0)
    records.write(old | {"commit": "another"}, path)
    gpu.measure(small, [stage], tmp_path, until=time.monotonic() + 1)
    assert json.loads(path.read_text())["commit"] == "another"


def test_an_attempt_that_fails_leaves_the_older_record_and_is_not_made_again(tmp_path, small, monkeypatch, capsys):
    def fail(setting, rows):
        rows["one"] = {"seconds": 1.0}
        raise RuntimeError("no kernel")

    name, title, calls = STAGES[0].name, STAGES[0].title, []
    good = Stage(name, title, (0, 0), lambda setting, rows: calls.append(1) or rows.update(good={"seconds": 2.0}))
    for commit, stage in (("one", good), ("two", Stage(name, title, (0, 0), fail))):
        monkeypatch.setenv(COMMIT, commit)
        gpu.measure(small, [stage], tmp_path, until=time.monotonic() + 60)
    assert json.loads((tmp_path / f"{name}.json").read_text())["commit"] == "one"
    assert json.loads((tmp_path / f"{name}.attempt.json").read_text())["rows"] == {"one": {"seconds": 1.0}}
    assert "no kernel" in (tmp_path / "README.md").read_text()
    gpu.measure(small, [good], tmp_path, until=time.monotonic() + 60)
    assert len(calls) == 1
    monkeypatch.setenv(COMMIT, "three")
    gpu.measure(small, [good], tmp_path, until=time.monotonic() + 60)
    assert [path.name for path in tmp_path.glob("*.json")] == [f"{name}.json"]


def test_a_device_that_is_lost_is_given_to_another_process(tmp_path, small, monkeypatch):
    def lose():
        raise torch.AcceleratorError("an illegal memory access was encountered")

    began = []
    monkeypatch.setattr(records, "free", lose)
    monkeypatch.setattr(gpu.os, "execv", lambda program, command: began.append(command))
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", "--minutes", "9"])
    stage = Stage(STAGES[0].name, STAGES[0].title, (0, 0), lambda setting, rows: rows.update(a={"seconds": 1.0}))
    gpu.measure(small, [stage, STAGES[1]], tmp_path, until=time.monotonic() + 60)
    record = json.loads((tmp_path / f"{stage.name}.json").read_text())
    assert record["ended"] == "failed"
    assert "illegal memory access" in record["error"]
    assert record["rows"] == {"a": {"seconds": 1.0}}
    command = began[0]
    assert command[1:5] == ["-m", "benchmarks.gpu", "--minutes", "9"]
    assert 0.5 < float(command[6]) <= 1.0
    assert command[7:] == ["--only", STAGES[1].name]


def test_one_base_that_fails_leaves_the_others(small, monkeypatch):
    def quantise(base, bits):
        if bits == "nf4":
            raise OSError("libbitsandbytes_cuda130.so: cannot open")
        return whole(base, "bf16")

    whole = setting.quantise
    monkeypatch.setattr(setting, "quantise", quantise)
    rows = {}
    with pytest.raises(OSError, match="libbitsandbytes"):  # for which the stage counts as failed
        memory.bases(small, "flux", rows)
    assert rows["nf4, MMD alone"]["not measured"].startswith("OSError: libbitsandbytes_cuda130.so")
    assert any(name.startswith("fp8, full loss") and row.get("seconds") for name, row in rows.items())


def test_the_roofline_of_updates_adds_up_to_that_of_the_plan(on_gpu):
    config = on_gpu.config("sd3", 8)
    found, size = estimate(on_gpu, config, 0), config.scales.sizes[-1]
    student, fake = (update_seconds(on_gpu, found, size, kind) for kind in (STUDENT, FAKE))
    whole = found.seconds(on_gpu.sheet, size).total()
    assert student + config.recipe.fake_updates * fake == pytest.approx(whole)
    assert 0 < fake < student
    assert beside(2 * student, student)["measured / roofline"] == 2


def test_the_roofline_of_steps_is_known_for_sizes_that_were_counted(on_gpu):
    few, many = (schedules("sd35-medium")[row] for row in ("scale-4", "full-4"))
    seconds = [steps_seconds(on_gpu, "sd35-medium", schedule, 8) for schedule in (few, many)]
    assert 0 < seconds[0] < seconds[1]
    assert presets.resolve(as_text(few)) == few
    assert steps_seconds(on_gpu, "sd35-medium", presets.resolve("1000:20x20"), 8) is None


def test_without_a_data_sheet_nothing_is_reckoned(small):
    assert estimate(small, small.config("sd3", 2), 0) is None
    assert beside(1.0, None) == {"seconds": 1.0, "roofline s": None, "measured / roofline": None}
    assert "roofline" not in table({"a": beside(1.0, None)})


def test_updates_are_found_at_the_stage_that_is_asked_for(small):
    from benchmarks.gpu.training import FULL, build

    config = small.config("flux", 1)
    trainer = build(small, FULL, config, *small.roles(config)).trainer
    assert kinds(trainer) == {STUDENT: 1, FAKE: config.recipe.fake_updates}
    for stage in range(len(config.scales.sizes)):
        step = next(steps_at(trainer, STUDENT, stage))
        assert Draw(config.seed, step, STUDENT, range(1)).stage(config.scales, config.recipe).index == stage
        trainer.feed(STUDENT, step)
        assert trainer.update_student(step)["stage"] == stage


def test_the_page_of_a_gpu_names_its_data_sheet_and_what_is_unknown(small):
    record = records.make(_stage(lambda setting, rows: rows.update(a=beside(2.0, 1.0))), small, 5.0)
    record["config"]["device"] = "cuda"
    text = page([record | {"machine": H100}])
    assert text.startswith("# On a GPU")
    assert "H100 SXM data sheet" in text
    assert "| a | 2 | 1 | 2 |" in text
    assert "No data sheet" in page([record | {"machine": "something new"}])


def test_what_a_bare_machine_lacks_is_read_from_the_lock():
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = {(package["name"], package.get("version")) for package in lock["package"]}
    wheels, others = pack.lacking(lock)
    names = {wheel.name for wheel in wheels}
    assert {"diffusers", "importlib-metadata", "tyro", "torchao", "bitsandbytes"} <= names
    assert all((wheel.name, wheel.version) in locked for wheel in wheels)
    assert not names & set(pack.HAS)
    assert not any(name.startswith(("nvidia-", "swd-")) for name in names)
    assert set(others) <= {"av"}  # what videos need
    assert "diffusers" not in {wheel.name for wheel in pack.lacking(lock, {*pack.HAS, "diffusers"})[0]}


def test_libraries_for_other_accelerators_are_not_carried(tmp_path):
    wheel, kept = tmp_path / "some-1-py3-none-any.whl", ["some/libsome_cpu.so", "some/libsome_cuda130.so", "some/a.py"]
    dropped = ["some/libsome_cuda128.so", "some/libsome_rocm72.so", "some/libsome_xpu2026.so"]
    with ZipFile(wheel, "w") as whole:
        for name in (*kept, *dropped):
            whole.writestr(name, name)
    pack.trim(wheel)
    with ZipFile(wheel) as smaller:
        assert {name: smaller.read(name).decode() for name in smaller.namelist()} == {name: name for name in kept}


def test_the_script_runs_a_command_with_the_wheels_and_the_sources(tmp_path):
    (tmp_path / "wheels").mkdir()
    with ZipFile(tmp_path / "wheels" / "carried-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried.py", "NAME = 'carried'")
    (tmp_path / "run.sh").write_text(pack.script(tmp_path))
    code = "import carried, os, swd_schedules; print(carried.NAME, os.environ['SWD_COMMIT'], swd_schedules.__file__)"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", str(tmp_path / "run.sh"), "python3", "-c", code]
    found = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True)
    name, commit, file = found.stdout.split()
    assert name == "carried"
    assert commit
    assert file == str(ROOT / "packages" / "swd-schedules" / "src" / "swd_schedules" / "__init__.py")
    (tmp_path / "run.sh").write_text(pack.script(tmp_path).replace(pack._sources(), "0123456789abcdef"))
    other = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False)
    assert other.returncode == 2
    assert "got others: pack again" in other.stderr


def test_more_than_can_be_carried_is_refused(tmp_path, monkeypatch):
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    (tmp_path / "large").write_bytes(b"x" * 1000)
    size = pack.carried(tmp_path)
    monkeypatch.setattr(pack, "LIMIT", size - 1)
    with pytest.raises(ValueError, match="expected at most"):
        pack.carried(tmp_path)
