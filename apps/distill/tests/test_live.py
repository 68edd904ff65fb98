"""Training without a cache on disk: the same samples, encoded when they are asked for."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from PIL import Image

from swd_distill.data.cache import Cache
from swd_distill.data.encode import fitting
from swd_distill.data.live import Live
from swd_distill.presets import PRESETS
from swd_distill.training.batches import Draw
from swd_losses import PAPER
from swd_schedules import presets

SIZES = ((8, 8), (10, 10), (12, 12), (16, 16))
CLOSE = {"rtol": 0, "atol": 1e-4}


@pytest.fixture
def live(finished, configure):
    return Live(configure(finished))


def test_latents_and_text_are_those_of_the_cache(live, open_cache):
    cache = open_cache()
    assert len(live) == len(cache) == 6
    assert (live.captions, live.buckets) == (cache.captions, cache.buckets)
    for samples in ([3, 0, 3], [5]):
        for size in SIZES:
            found = live.latents(samples, size)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, cache.latents(samples, size), **CLOSE)
        found, expected = live.cond(samples), cache.cond(samples)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, **CLOSE)
    for name, value in cache.uncond.items():
        torch.testing.assert_close(live.uncond[name], value, **CLOSE)


def test_images_are_read_once_for_both_sizes_of_a_stage(live, monkeypatch):
    loads, load = [], live._load
    monkeypatch.setattr(live, "_load", lambda samples: (loads.append(samples), load(samples))[1])
    live.latents([1, 2], (8, 8)), live.latents([1, 2], (10, 10)), live.latents([2, 1], (10, 10))
    assert loads == [[1, 2], [2, 1]]


def test_two_threads_get_what_one_would_and_no_graph(live, open_cache):
    cache = open_cache()
    draws = [Draw(0, step, "student", range(2)) for step in range(12)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda draw: draw.batch(live, presets.TINY_4, PAPER), draws))
    for draw, batch in zip(draws, found, strict=True):
        expected = draw.batch(cache, presets.TINY_4, PAPER)
        assert not batch.real.requires_grad
        assert batch.stage == expected.stage
        torch.testing.assert_close(batch.real, expected.real, **CLOSE)
        torch.testing.assert_close(batch.cond["prompt_embeds"], expected.cond["prompt_embeds"], **CLOSE)


def test_buckets_are_those_of_the_cache(cli, argv, configure, tmp_path):
    flags = ("--schedule", "1000:8x8,602:12x12", "--data.buckets", "1:1", "4:3")
    cli(*argv("generate", tmp_path, *flags))
    cli(*argv("encode", tmp_path, *flags))
    config = configure(tmp_path)
    config = replace(config, schedule=flags[1], data=replace(config.data, buckets=("1:1", "4:3")))
    live, cache = Live(config), Cache.open(config.cache, fitting(config))
    assert live.buckets == cache.buckets
    assert live.captions == cache.captions
    for bucket, among in cache.buckets:
        size = bucket.schedule(config.scales).sizes[-1]
        torch.testing.assert_close(live.latents(list(among), size), cache.latents(list(among), size), **CLOSE)


def test_clips_are_encoded_on_the_fly_too(cli, tmp_path):
    out, flags = ("--out", str(tmp_path)), ("--data.num-images", "2", "--data.teacher-steps", "1")
    cli("generate", "tiny-wan", *out, *flags)
    cli("encode", "tiny-wan", *out, *flags)
    config = replace(PRESETS["tiny-wan"], out=tmp_path)
    live, cache = Live(config), Cache.open(config.cache, fitting(config))
    for size in config.scales.sizes:
        torch.testing.assert_close(live.latents([1, 0], size), cache.latents([1, 0], size), **CLOSE)


def test_a_run_on_the_fly_trains_the_student_of_the_cache_and_knows_its_images(cli, refused, argv, finished, tmp_path):
    shutil.copytree(finished / "images", tmp_path / "images")
    cli(*argv("run", tmp_path, "--data.on-the-fly"))
    assert not (tmp_path / "cache").exists()
    assert (tmp_path / "samples" / "comparison.png").is_file()
    rows = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (tmp_path, finished)
    ]
    for found, expected in zip(*rows, strict=True):
        assert found["stage"] == expected["stage"]
        assert found["mmd"] == pytest.approx(expected["mmd"], rel=1e-3)
    assert cli(*argv("run", tmp_path, "--data.on-the-fly")).startswith("already done")
    first = next((tmp_path / "images").glob("*.png"))
    Image.open(first).rotate(180).save(first, compress_level=0)
    for command in ("run", "train"):
        line = refused(argv(command, tmp_path, "--data.on-the-fly"))
        assert f"expected a run in {tmp_path} made with the given files, got other files" in line


def test_a_stream_cannot_be_read_on_the_fly(refused, argv, tmp_path):
    error = refused(argv("train", tmp_path, "--data.on-the-fly", "--data.streaming"))
    assert "expected samples in any order with --data.on-the-fly" in error
