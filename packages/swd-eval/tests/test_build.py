import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from swd_eval.study.build import build_study
from swd_eval.study.pairs import Key


def test_what_a_rater_can_load_never_names_a_model(make_study):
    folder = make_study(8, num_runs=3)
    public = folder / "public"
    key = Key.read(folder)
    assert key.runs == ("model-0", "model-1", "model-2")
    files = [path for path in public.rglob("*") if path.is_file()]
    assert len(files) == 1 + 2 * 16
    for path in files:
        assert b"model-" not in path.read_bytes()
        assert "model-" not in str(path.relative_to(folder))
    page = (public / "index.html").read_text()
    assert str(key.seed) not in json.loads(page.split('id="study">')[1].split("</script>")[0]).values()
    assert all(pair.item + "." not in page for pair in key.pairs)


def test_pixels_stay_and_all_that_tells_models_apart_goes(tmp_path, write_run):
    a, b = (write_run(tmp_path / run, ["x"], ["a cat"], seed=i) for i, run in enumerate("ab"))
    pixels = np.asarray(Image.open(a / "x.png"))
    info = PngInfo()
    info.add_text("parameters", "Model: secret-model")
    exif = Image.Exif()
    exif[0x0131] = "secret-software"
    Image.fromarray(pixels).save(a / "x.png", pnginfo=info, exif=exif)
    assert b"secret-model" in (a / "x.png").read_bytes()
    build_study([a, b], tmp_path / "study")
    (pair,) = Key.read(tmp_path / "study").pairs
    shown = tmp_path / "study/public/media" / pair.media[pair.runs.index(0)]
    assert np.array_equal(np.asarray(Image.open(shown)), pixels)
    assert b"secret" not in shown.read_bytes()


def test_a_study_is_written_whole_or_not_at_all(tmp_path, write_run):
    a, b = (write_run(tmp_path / run, ["x", "y"], ["a cat", "a dog"], seed=i) for i, run in enumerate("ab"))
    (b / "y.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"expected an image, got .*y\.png"):
        build_study([a, b], tmp_path / "study")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_study_that_exists_is_left_alone(make_study, tmp_path):
    folder = make_study(2)
    with pytest.raises(ValueError, match="votes may be in it"):
        build_study([tmp_path / "model-0", tmp_path / "model-1"], folder)


def test_folders_of_one_name_are_told_apart(tmp_path, write_run):
    runs = [write_run(tmp_path / run / "images", ["x"], ["a cat"]) for run in "ab"]
    build_study(runs, tmp_path / "study")
    assert Key.read(tmp_path / "study").runs == ("a/images", "b/images")
    with pytest.raises(ValueError, match="expected different folders"):
        build_study([runs[0], runs[0]], tmp_path / "twice")


def test_a_prompt_cannot_leave_the_data_of_the_page(make_study):
    evil = ["</script><script>alert(1)</script>", "<!-- <script>", "{{script}} {{style-hash}}", "line\u2028end"]
    page = (make_study(prompts=evil) / "public/index.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="study">')[1].split("</script>")[0])
    assert {pair["prompt"] for pair in data["pairs"]} == set(evil)
    assert page.count("</script>") == 2
    assert "alert(1)</script>" not in page


def test_of_runs_their_students_are_compared(tmp_path, write_run):
    for name, seed in {"first": 0, "second": 1}.items():
        write_run(tmp_path / name / "student", ["x"], ["a cat"], seed=seed)
        write_run(tmp_path / name / "images", ["0", "1"], ["a dog", "a cow"], seed=seed)
        (tmp_path / name / "config.json").write_text('{"model": "embedded", "recipe": {}}')
    build_study([tmp_path / "first", tmp_path / "second"], tmp_path / "study")
    key = Key.read(tmp_path / "study")
    assert key.runs == ("first", "second")
    with pytest.raises(ValueError, match="expected different folders, got one twice"):
        build_study([tmp_path / "first", tmp_path / "first" / "student"], tmp_path / "other")
    assert [pair.item for pair in key.pairs] == ["x"]
