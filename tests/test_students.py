import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.large_teacher import pipeline
from benchmarks.large_teacher.pipeline import TRAINED, UNTRAINED
from benchmarks.provenance import ROOT
from benchmarks.studies import pages, records, students
from benchmarks.studies.catalogue import STUDIES
from benchmarks.studies.claims import LONG, by_hand
from benchmarks.studies.study import Claim
from benchmarks.studies.verdicts import judge
from swd_distill.checks import check, check_model
from swd_distill.presets import PRESETS


@pytest.fixture
def quick(monkeypatch):
    """Make the students' runs as short as can be."""

    def shorten(config):
        data = replace(config.data, num_images=4, teacher_steps=2)
        return replace(config, data=data, training=replace(config.training, iterations=1, batch=2))

    studies = {
        name: replace(study, students={study.base.name: shorten(study.base)})
        for name, study in students.STUDIES.items()
    }
    monkeypatch.setattr(students, "STUDIES", studies)


def test_students_are_trained_once_and_compared_with_their_teacher(quick, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--work", str(tmp_path / "work"), "--out", str(out), "--seeds", "0", "1", "--count", "8"]
    students.main(command)
    page = capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("|")][2:]
    assert rows == [
        "teacher, 2 steps",
        "undistilled, 4 steps, student's schedule",
        "undistilled, 4 steps, full scale",
        "undistilled, 2 steps, full scale",
        "student, tiny",
    ]
    for name in ("students.png", "teacher-and-student.png"):
        assert Image.open(out / name).width > 8 * 160
    record = json.loads((out / "students" / "tiny-1.json").read_text())
    assert record["of"]["config"]["seed"] == 1
    assert record["minutes"] > 0

    shutil.rmtree(tmp_path / "work")  # as on another machine, from what is committed
    students.main(command)
    assert not (tmp_path / "work").exists()
    assert capsys.readouterr().out == page


def test_students_of_the_video_teacher_are_compared_likewise(quick, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--of", "clips", "--work", str(tmp_path / "work"), "--out", str(out), "--seeds", "0", "--count", "2"]
    students.main(command)
    assert "| student, tiny-video |" in capsys.readouterr().out
    assert Image.open(out / "video-students.png").height > 5 * 3 * 100  # five rows of three frames
    assert (out / "video-students" / "tiny-video-0.json").is_file()


def test_a_student_over_a_quantised_base_is_judged_over_the_full_one_too(quick, monkeypatch, tmp_path, capsys):
    short = students.STUDIES["bases"]
    config = replace(short.base, training=replace(short.base.training, base="nf4"))
    monkeypatch.setitem(students.STUDIES, "bases", replace(short, students={"over nf4": config}, claims=()))
    command = ["--of", "bases", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--seeds", "0"]
    students.main([*command, "--count", "8"])
    page = capsys.readouterr().out
    assert "| student, over nf4 |" in page
    assert "| student, over nf4, judged over the full base |" in page
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "out" / "bases").glob("*.json"))]
    assert len(records) == 2
    assert records[0]["scores"] != records[1]["scores"]
    assert [record["of"].get("judged over") for record in records] == [None, "bf16"]


def test_an_unknown_student_is_named(capsys):
    with pytest.raises(SystemExit, match="2"):
        students.main(["--students", "huge"])
    assert "got huge" in capsys.readouterr().err


def test_a_record_of_something_else_is_made_anew(tmp_path):
    path = tmp_path / "a.json"
    assert students.recorded(path, {"seed": 1}, lambda: {"scores": 1})["scores"] == 1
    assert students.recorded(path, {"seed": 1}, lambda: {"scores": 2})["scores"] == 1
    assert students.recorded(path, {"seed": 2}, lambda: {"scores": 3})["scores"] == 3


def test_what_another_study_measured_is_copied_with_its_sheet(tmp_path):
    path, config = tmp_path / "one" / "a-0.json", PRESETS["tiny"]
    of, another = ({"config": replace(config, seed=seed).to_json()} for seed in (0, 1))

    def measured(path, of, kid):
        return students.recorded(path, of, lambda: {"scores": {"kid x 1000": kid}})["scores"]["kid x 1000"]

    measured(path, of, 1)
    path.with_suffix(".png").write_bytes(b"sheet")
    other = tmp_path / "other" / "b-0.json"
    assert measured(other, of, 2) == 1
    assert (other.read_bytes(), other.with_suffix(".png").read_bytes()) == (path.read_bytes(), b"sheet")
    assert measured(tmp_path / "other" / "c-1.json", another, 3) == 3
    reference = tmp_path / "references" / "teacher-0.json"
    assert measured(reference, {"seed": 0}, 4) == 4
    assert measured(tmp_path / "other" / "d.json", {"seed": 0}, 5) == 5


def test_a_record_without_the_latest_scores_is_kept_but_not_copied(tmp_path):
    of = {"config": PRESETS["tiny"].to_json()}
    assert students.recorded(tmp_path / "one" / "a.json", of, lambda: {"scores": {}})["scores"] == {}
    assert students.recorded(tmp_path / "one" / "a.json", of, lambda: {"scores": {"new": 1}})["scores"] == {}
    found = students.recorded(tmp_path / "two" / "a.json", of, lambda: {"scores": {"kid x 1000": 1}})
    assert found["scores"] == {"kid x 1000": 1}


def test_a_record_of_before_a_setting_is_of_what_runs_then_had(tmp_path):
    path, full = tmp_path / "one" / "a.json", by_hand(LONG, 30.0)
    for name, config in (("full", full), ("alone", PRESETS["tiny"])):
        path = tmp_path / name / "a.json"
        old = config.to_json() | {"training": {"rank": 32, "gradient_checkpointing": False}}
        later = {"balance", "balance_over", "gan_rise", "gan_sample", "stages"}
        old["recipe"] = {key: value for key, value in old["recipe"].items() if key not in later}
        assert students.recorded(path, {"config": old}, lambda: {"scores": {"all_right": 1}})["scores"] == {
            "all_right": 1
        }
        assert students.recorded(path, {"config": config.to_json()}, lambda: {"scores": {"all_right": 2}})[
            "scores"
        ] == {"all_right": 1}, name
    changed = full.to_json()
    changed["recipe"]["stages"] = "cycle"
    path = tmp_path / "full" / "a.json"
    assert students.recorded(path, {"config": changed}, lambda: {"scores": {"all_right": 3}})["scores"] == {
        "all_right": 3
    }


# Measured under other settings than their rows have now: made anew where a study is repeated.
OF_BEFORE = {"MMD alone, features of the fake model"}  # for which no weight had to ask


def test_committed_records_are_of_their_rows():
    count = 0
    for study in STUDIES.values():
        for name, seed in itertools.product(study.students.keys() - OF_BEFORE, range(8)):
            path = records.path_of(study, ROOT / "benchmarks" / "results", f"{students.STUDENT}{name}", seed)
            if path.is_file():
                config = students._config_of(study, name, seed, Path()).to_json() | {"out": None}
                then = json.loads(path.read_text())["of"]
                now = then | {"config": json.loads(json.dumps(config, default=str))}
                assert records._covers(*map(records._as_noted_now, (now, then))), path
                count += 1
    assert count > 150


def test_another_upscaler_is_another_record():
    def of(name):
        config = students._config_of(STUDIES["upscalers"], name, 0, Path()).to_json()
        return {"config": json.loads(json.dumps(config, default=str))}

    names = list(STUDIES["upscalers"].students)
    for now, then in itertools.product(names, names):
        covers = records._covers(records._as_noted_now(of(now)), records._as_noted_now(of(then)))
        assert covers == (now == then), (now, then)


def test_committed_verdicts_are_those_of_their_intervals():
    count = 0
    for page in (ROOT / "benchmarks" / "results").glob("*.md"):
        for row in re.findall(r"\| ([+-][\d.]+) ± ([\d.]+)(?:, margin ([\d.]+))? \| ([^|]+) \|", page.read_text()):
            mean, half, margin = (float(each or 0) for each in row[:3])
            told, off = row[3].strip(), 0.0006  # as printed
            judged = {judge(mean + by, half, margin).partition(",")[0] for by in (-off, 0.0, off)}
            assert told.partition(",")[0] in judged, (page.name, row)
            count += 1
    assert count > 40


def test_sheets_keep_every_pixel(tmp_path):
    images = [Image.effect_noise((8, 8), 50 + i).convert("RGB") for i in range(3)]
    pages.save_sheet(images, tmp_path / "sheet.png")
    back = pages.read_sheet(tmp_path / "sheet.png", 3)
    assert [image.tobytes() for image in back] == [image.tobytes() for image in images]
    pages.save_sheet([images, images[::-1]], tmp_path / "videos.png")
    videos = pages.read_sheet(tmp_path / "videos.png", 2)
    assert [[frame.tobytes() for frame in video] for video in videos] == [
        [frame.tobytes() for frame in video] for video in (images, images[::-1])
    ]


def _rows(**scores):
    return {
        f"student, {name}": [{"scores": {"all_right": s, "kid x 1000": 1 - s}} for s in seeds]
        for name, seeds in scores.items()
    }


@pytest.mark.parametrize(
    ("one", "other", "margin", "verdict"),
    [
        ((0.90, 0.91, 0.92), (0.80, 0.81, 0.83), 0.0, "reproduced"),
        ((0.80, 0.81, 0.83), (0.90, 0.91, 0.92), 0.0, "not reproduced"),
        ((0.90, 0.80, 0.85), (0.84, 0.86, 0.85), 0.0, "undecided at this size"),
        ((0.90, 0.91, 0.92), (0.91, 0.92, 0.93), 0.02, "reproduced"),
        ((0.9,), (0.1,), 0.0, "undecided at this size"),
        ((0.90, 0.89, 0.88), (0.92, 0.91, 0.90), 0.03, "reproduced"),  # worse, by less than the margin
        ((0.90, 0.885, 0.88), (0.92, 0.91, 0.90), 0.02, "worse, by 0.014 to 0.029"),
    ],
)
def test_a_claim_is_judged_by_the_interval_of_the_paired_difference(one, other, margin, verdict):
    study = replace(students.STUDIES["scenes"], claims=(Claim("better", "one", "other", margin),))
    assert f" | {verdict} | " in pages.verdicts(study, _rows(one=one, other=other))


def test_a_row_of_more_seeds_is_compared_in_those_that_both_have():
    study = replace(students.STUDIES["scenes"], claims=(Claim("better", "one", "other"),))
    rows = _rows(one=(0.90, 0.91, 0.92, 0.1, 0.1), other=(0.80, 0.81, 0.83))
    assert " | reproduced | " in pages.verdicts(study, rows)


def test_a_student_may_have_more_seeds_than_the_others(quick, tmp_path, capsys, monkeypatch):
    study = students.STUDIES["scenes"]
    for module in (pages, students):
        monkeypatch.setattr(module, "SEEDS", (0,))
    more = replace(study, students={"one": study.base, "two": study.base}, seeds={"two": 2})
    monkeypatch.setattr(students, "STUDIES", {"scenes": more})
    students.main(["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--count", "4"])
    assert "seeds 0 (of `two` 0 to 1);" in capsys.readouterr().out
    found = sorted(path.name for path in (tmp_path / "out").glob("*/*.json"))
    assert [name for name in found if name.startswith(("one", "two", "teacher"))] == [
        "one-0.json", "teacher-2-steps-0.json", "two-0.json", "two-1.json",
    ]  # fmt: skip


def test_every_claim_names_rows_of_its_study_and_every_schedule_fits():
    for study in students.STUDIES.values():
        assert all({claim.better, claim.worse} <= study.students.keys() for claim in study.claims)
        for config in study.students.values():
            check(config)
            if config.model != str(TRAINED):
                check_model(config)


def test_a_study_of_looks_tells_power_by_frequency_and_spread_over_seeds(quick, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.teacher.spread.PROMPTS", 2)
    monkeypatch.setattr("benchmarks.teacher.spread.SEEDS", 2)
    out = tmp_path / "out"
    command = ["--work", str(tmp_path / "work"), "--out", str(out), "--seeds", "0", "--count", "4"]
    students.main(command)
    reference = json.loads((out / "embedded-references" / "teacher-2-steps-0.json").read_text())
    assert "power" not in reference
    students.main([*command, "--of", "texture"])
    page = capsys.readouterr().out
    assert "| power against drawings, dB" in page
    assert "| drawings |" in page
    assert "| drawings, encoded and decoded |" in page
    assert Image.open(out / "texture-power.png").width > 500
    for folder, name in (("embedded-references", "teacher-2-steps"), ("texture", "tiny")):
        record = json.loads((out / folder / f"{name}-0.json").read_text())
        assert len(record["power"]["dB"]) == len(record["power"]["cycles"]) > 20
        assert record["spread"]["features"] > 0
    again = json.loads((out / "embedded-references" / "teacher-2-steps-0.json").read_text())
    assert again["scores"] == reference["scores"]


def test_students_of_the_large_teacher_are_compared_likewise(monkeypatch, tmp_path, capsys):
    """Of one with random weights, and narrow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "LARGE", replace(pipeline.LARGE, width=32, layers=5, text_width=32, text_layers=1))
    pipeline.pipeline()
    UNTRAINED.rename(TRAINED)
    study = students.STUDIES["large"]
    for config in study.students.values():
        check_model(config)

    def shorten(config):
        data = replace(config.data, num_images=4, teacher_steps=2)
        return replace(config, data=data, training=replace(config.training, iterations=1, batch=2))

    few = {name: shorten(study.students[name]) for name in ("scale-wise, 4 steps", "full scale, 2 steps")}
    monkeypatch.setattr(students, "STUDIES", {"large": replace(study, students=few, claims=study.claims[1:2])})
    monkeypatch.setattr("benchmarks.teacher.spread.PROMPTS", 1)
    monkeypatch.setattr("benchmarks.teacher.spread.SEEDS", 2)
    students.main(["--of", "large", "--work", "work", "--out", "out", "--seeds", "0", "--count", "2"])
    page = capsys.readouterr().out
    assert "ground texture" in page
    assert "| student, full scale, 2 steps |" in page
    assert Image.open("out/large.png").width > 500
