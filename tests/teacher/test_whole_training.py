"""A teacher from drawings to a pipeline, in a size of seconds."""

import shutil
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from benchmarks.large_teacher.__main__ import SETTINGS, draw_rows, main
from benchmarks.large_teacher.checker import check
from benchmarks.large_teacher.scenes import random_scene
from benchmarks.teacher import train as module
from benchmarks.teacher.export import UNSEEN, distinct_captions, export
from benchmarks.teacher.look import look_at
from benchmarks.teacher.train import train
from swd_models import load_denoiser, load_text

ARCHITECTURE = replace(SETTINGS.architecture, text_width=32, text_layers=1, width=32, layers=1, latent_size=16)
QUICK = replace(
    SETTINGS, architecture=ARCHITECTURE, num_scenes=60, vae_steps=2, steps=4, batch=2, vae_batch=2, save_every=2,
    look_every=100, vae_sizes=(32,), latent_sizes=(16, 12), early_shares=(0.5, 0.5), late_shares=(0.5, 0.5),
)  # fmt: skip


@pytest.fixture
def teach(monkeypatch):
    monkeypatch.setattr(module, "compile_layers", lambda *_, **__: 0)
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng) for _ in range(QUICK.num_scenes)]
    look = partial(look_at, captions=distinct_captions(random_scene, 16, UNSEEN, seed=1), check=check, steps=1)

    def teach(folder, settings=QUICK, until=None):
        device, captions = torch.device("cpu"), [scene.caption for scene in scenes[: settings.num_scenes]]
        return train(folder, draw_rows(scenes, device), captions, settings, look, device, until)

    return teach


def weights(pipe):
    return torch.cat([parameter.flatten() for parameter in pipe.transformer.parameters()])


def test_a_training_that_was_interrupted_ends_in_the_weights_of_an_unbroken_one(teach, tmp_path, monkeypatch):
    whole = teach(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole/tokenizer", tmp_path / "broken/tokenizer")  # which no seed makes the same
    levels, calls = module.draw_levels, []

    def broken(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return levels(*args)

    with monkeypatch.context() as patched:
        patched.setattr(module, "draw_levels", broken)
        with pytest.raises(KeyboardInterrupt):
            teach(tmp_path / "broken")
    resumed = teach(tmp_path / "broken")
    assert torch.equal(weights(whole), weights(resumed))
    assert torch.equal(weights(whole), weights(teach(tmp_path / "whole")))  # nothing is done again
    assert len((tmp_path / "whole/log.jsonl").read_text().splitlines()) == 3


def test_the_clock_ends_a_training_before_its_steps_do(teach, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LAST", 0.0)
    endless = replace(QUICK, vae_steps=10**9, steps=10**9)
    pipe = teach(tmp_path, endless, time.monotonic() + 8)
    assert torch.isfinite(weights(pipe)).all()
    states = {name: torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("vae", "transformer")}
    assert all(0 < state["step"] < 10**6 for state in states.values())
    assert 0.15 * 8 - 0.2 < states["vae"]["seconds"] < 0.15 * 8 + 1.5
    assert not list((tmp_path / "latents").iterdir())
    teach(tmp_path, endless, time.monotonic() + 4)  # and goes on for as long as it is told
    assert torch.load(tmp_path / "transformer.pt", weights_only=True)["step"] > states["transformer"]["step"]


def test_both_stages_train_in_half_precision_as_on_a_gpu(teach, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "half_precision", lambda device: torch.autocast("cpu", torch.bfloat16))
    assert torch.isfinite(weights(teach(tmp_path))).all()


def test_latents_of_another_autoencoder_are_encoded_again(teach, tmp_path):
    chunk = tmp_path / "latents" / "00000.safetensors"
    teach(tmp_path)
    first = chunk.stat().st_mtime_ns
    teach(tmp_path)
    assert chunk.stat().st_mtime_ns == first
    longer = replace(QUICK, vae_steps=3)
    teach(tmp_path, longer)  # an autoencoder that a transformer knows stays
    assert chunk.stat().st_mtime_ns == first
    (tmp_path / "transformer.pt").unlink()
    teach(tmp_path, longer)
    assert chunk.stat().st_mtime_ns > first


def test_latents_of_another_number_of_scenes_are_encoded_again(teach, tmp_path):
    """Of drawings that one generator makes after another, a scene may look otherwise among more of them."""
    chunk = tmp_path / "latents" / "00000.safetensors"
    teach(tmp_path)
    first = chunk.stat().st_mtime_ns
    (tmp_path / "transformer.pt").unlink()
    teach(tmp_path, replace(QUICK, num_scenes=50))
    assert chunk.stat().st_mtime_ns > first


def test_encoding_goes_on_behind_its_last_chunk(teach, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", QUICK.num_scenes // 4)
    whole = weights(teach(tmp_path / "whole"))
    last = sorted((tmp_path / "whole" / "latents").iterdir())[-1]
    for gone in (last, tmp_path / "whole" / "transformer.pt"):
        gone.unlink()
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "whole" / "latents").iterdir()}
    assert len(first) == 3
    assert torch.equal(weights(teach(tmp_path / "whole")), whole)
    assert last.exists()
    assert {path: path.stat().st_mtime_ns for path in first} == first


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--minutes", "-1"], ["--device", "foo"]])
def test_what_is_no_training_is_refused_in_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error: argument" in capsys.readouterr().err.splitlines()[-1]


def test_what_is_exported_is_a_pipeline_with_prompts_that_training_does_not_see(teach, tmp_path):
    export(teach(tmp_path / "work"), tmp_path / "out", random_scene, 20, 10)
    denoiser, text = load_denoiser(str(tmp_path / "out")), load_text(str(tmp_path / "out"))
    prompts, unseen = (
        (tmp_path / "out" / f"{name}.txt").read_text().splitlines() for name in ("prompts", "prompts_test")
    )
    assert (len(set(prompts)), len(set(unseen)), set(prompts) & set(unseen)) == (20, 10, set())
    x0 = denoiser.denoise(torch.randn(2, 8, 16, 16), torch.ones(2), text(prompts[:2]))
    assert x0.shape == (2, 8, 16, 16)
