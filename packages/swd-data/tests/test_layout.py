import hashlib
import json

import pytest

from swd_data.layout import is_run, latents_of, samples_of, teachers_of


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "images").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model": "embedded", "recipe": {}}))
    return folder


def test_of_a_run_the_student_is_meant_the_teacher_or_the_latents(run):
    with pytest.raises(ValueError, match=f"expected samples, got the run {run}, .* `swd-sample {run} --unseen`"):
        samples_of(run)
    (run / "student").mkdir()
    assert samples_of(run) == run / "student"
    assert teachers_of(run) == run / "images"
    assert latents_of(run) == run / "images"
    (run / "cache").mkdir()
    (run / "cache" / "manifest.json").write_text('{"settings": {}}')
    assert latents_of(run) == run / "cache"


def test_samples_of_an_earlier_student_are_refused(run):
    (run / "lora" / "low").mkdir(parents=True)
    (run / "student").mkdir()
    files = run / "lora" / "pytorch_lora_weights.safetensors", run / "lora" / "low" / "pytorch_lora_weights.safetensors"
    for file in files:
        file.write_bytes(str(file).encode())
    drew = " ".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    (run / "student" / "sampling.json").write_text(json.dumps({"lora": drew}))
    assert samples_of(run) == run / "student"
    files[1].write_bytes(b"trained on")
    with pytest.raises(ValueError, match=f"those of an earlier one in {run}/student: remove them, and let"):
        samples_of(run)
    for file in files:
        file.unlink()
    assert samples_of(run) == run / "student"


def test_a_cache_has_no_samples(run):
    (run / "cache").mkdir()
    (run / "cache" / "manifest.json").write_text('{"settings": {}}')
    with pytest.raises(ValueError, match="which holds latents: give a folder of images"):
        samples_of(run / "cache")


def test_any_other_folder_is_meant_itself(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "SD3Transformer2DModel"}))
    assert not is_run(tmp_path)
    for of in (samples_of, teachers_of, latents_of):
        assert of(tmp_path) == tmp_path
        assert of(tmp_path / "none") == tmp_path / "none"


def test_the_images_of_a_run_may_be_elsewhere(run, tmp_path):
    (run / "config.json").write_text(json.dumps({"model": "a", "recipe": {}, "data": {"images": str(tmp_path)}}))
    assert teachers_of(run) == latents_of(run) == tmp_path
    (run / "config.json").write_text(json.dumps({"model": "a", "recipe": {}, "data": {"images": "owner/name"}}))
    with pytest.raises(ValueError, match="in owner/name, got no such folder"):
        teachers_of(run)


@pytest.mark.parametrize("text", ["[1]", "no JSON", '{"model": "gpt"}'])
def test_files_of_others_by_these_names_make_no_run_and_no_cache(tmp_path, text):
    for name in ("config.json", "manifest.json"):
        (tmp_path / name).write_text(text)
    assert samples_of(tmp_path) == latents_of(tmp_path) == tmp_path
