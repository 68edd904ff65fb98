"""Images of several shapes, from generation to the batch."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from swd_distill.checks import check_model
from swd_distill.data import encode as encode_module
from swd_distill.data.buckets import Bucket, buckets_of, nearest, schedules_of
from swd_distill.data.cache import Cache
from swd_distill.data.encode import fitting
from swd_distill.presets import PRESETS
from swd_distill.training.batches import Draw
from swd_losses import PAPER
from swd_models import load_latents
from swd_schedules import ScaleSchedule

# The embedded teacher takes at most 16 to a side: room for wide ones.
SCHEDULE = "1000:8x8,800:10x10,602:12x12"
FLAGS = ("--schedule", SCHEDULE, "--data.buckets", "1:1", "4:3", "1:2")
# Size, what it is scaled to, and the crop, in the order of the cache: two squares, three of 56x40, one of 32x64.
IMAGES = {
    0: ((64, 64), (48, 48), (0, 0, 48, 48)),
    2: ((100, 90), (53, 48), (2, 0, 50, 48)),
    1: ((64, 48), (56, 42), (0, 1, 56, 41)),
    3: ((56, 40), (56, 40), (0, 0, 56, 40)),
    4: ((80, 60), (56, 42), (0, 1, 56, 41)),
    5: ((40, 128), (32, 102), (0, 19, 32, 83)),
}


def _with(config, *buckets, **changes):
    return replace(config, data=replace(config.data, buckets=buckets), **changes)


@pytest.fixture
def mixed(tmp_path):
    """Make an image folder of many shapes."""
    folder, rows = tmp_path / "mixed", []
    folder.mkdir()
    for index, ((width, height), *_) in sorted(IMAGES.items()):
        pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(index))
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{index}.png")
        rows.append(json.dumps({"file_name": f"{index}.png", "text": f"image {index % 5}"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def cache(monkeypatch, cli, argv, mixed, configure, tmp_path):
    """Encode them in shards of two and open the cache."""
    monkeypatch.setattr(encode_module, "SHARD_SAMPLES", 2)
    cli(*argv("encode", tmp_path / "run", "--data.images", mixed, *FLAGS))
    return Cache.open(
        tmp_path / "run" / "cache", fitting(_with(configure(tmp_path), "1:1", "4:3", "1:2", schedule=SCHEDULE))
    )


@pytest.mark.parametrize(
    ("preset", "multiple", "last"),
    [
        ("sd35-medium", 2, (96, 170)),
        ("flux", 2, (96, 170)),
        ("sdxl", 4, (96, 172)),
        ("wan", 2, (21, 60, 106)),
    ],
)
def test_buckets_have_sizes_that_the_family_takes(preset, multiple, last):
    config = _with(PRESETS[preset], "16:9")
    check_model(config)
    assert buckets_of(config) == [Bucket("16:9", multiple)]
    (schedule,) = schedules_of(config)
    assert schedule.sizes[-1] == last
    assert schedule.timesteps == config.scales.timesteps


def test_without_buckets_the_shape_is_the_schedules_own():
    assert buckets_of(PRESETS["wan"]) == [Bucket()]
    assert schedules_of(PRESETS["wan"]) == [PRESETS["wan"].scales]


def test_the_nearest_shape_is_that_of_the_least_ratio():
    schedules = [ScaleSchedule((1000.0,), (size,)) for size in ((10, 10), (10, 20), (20, 10))]
    for (width, height), index in {(14, 10): 0, (143, 100): 1, (10, 14): 0, (10, 15): 2, (90, 10): 1}.items():
        assert nearest(schedules, width, height) == index


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        (["4x3"], "expected --data.buckets as WIDTH:HEIGHT, for example 4:3, got '4x3'"),
        (["1:1", "0:3"], "got '0:3'"),
        (["1:1", "16:9"], "at most 16, got 12x22"),
    ],
)
def test_buckets_that_cannot_be_are_refused(refused, argv, tmp_path, buckets, message):
    assert message in refused(argv("run", tmp_path / "run", "--data.buckets", *buckets))
    assert not (tmp_path / "run").exists()


def test_samples_are_sorted_by_bucket_and_encoded_in_its_sizes(cache, mixed):
    assert [(bucket.aspect, among) for bucket, among in cache.buckets] == [
        ("1:1", range(2)), ("4:3", range(2, 5)), ("1:2", range(5, 6)),
    ]  # fmt: skip
    assert len(cache) == 6
    assert cache.captions == [f"image {index % 5}" for index in IMAGES]
    latents = load_latents("embedded")
    for sample, (index, (_, scaled, crop)) in enumerate(IMAGES.items()):
        image = Image.open(mixed / f"{index}.png").resize(scaled, Image.Resampling.LANCZOS).crop(crop)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
        bucket = next(bucket for bucket, among in cache.buckets if sample in among)
        for size in set(bucket.schedule(ScaleSchedule.parse(SCHEDULE)).sizes):
            with torch.no_grad():
                expected = latents.encode(interpolate(pixels, (size[0] * 4, size[1] * 4), mode="area"))
            torch.testing.assert_close(cache.latents([sample], size), expected, rtol=0, atol=1e-4)


def test_the_text_of_a_sample_is_that_of_its_caption(cache, stock_pipe):
    with torch.no_grad():
        embeds, *_ = stock_pipe().encode_prompt(
            cache.captions, None, None, do_classifier_free_guidance=False, max_sequence_length=0
        )
    torch.testing.assert_close(cache.cond(range(6))["prompt_embeds"], embeds, rtol=0, atol=1e-4)


def test_a_batch_is_of_one_bucket_in_proportion_to_its_samples(cache):
    base, seen, num = ScaleSchedule.parse(SCHEDULE), Counter(), 400
    for step in range(num):
        draw = Draw(0, step, "student", range(4))
        batch = draw.batch(cache, base, PAPER)
        bucket, among = cache.buckets[draw.bucket(cache)]
        assert Draw(0, step, "student", range(4, 6)).bucket(cache) == draw.bucket(cache)
        assert batch.stage == bucket.schedule(base).stages[draw.stage(base, PAPER).index]
        assert batch.real.shape == (4, 4, *batch.stage.target)
        every = cache.latents(list(among), batch.stage.target)
        assert all(any(torch.equal(real, one) for one in every) for real in batch.real)
        seen[bucket.aspect] += 1
    for bucket, among in cache.buckets:
        assert abs(seen[bucket.aspect] / num - len(among) / 6) < 0.07


def test_generated_images_take_buckets_in_turn_and_the_student_trains_on_them(cli, argv, tmp_path):
    cli(*argv("generate", tmp_path, *FLAGS))
    sizes = [Image.open(tmp_path / "images" / f"{i:06d}.png").size for i in range(6)]
    assert sizes == [(48, 48), (56, 40), (32, 64)] * 2
    made_with = json.loads((tmp_path / "images" / "generation.json").read_text())
    assert made_with["size"] == [[12, 12], [10, 14], [16, 8]]
    before = (tmp_path / "images" / "000004.png").read_bytes()
    (tmp_path / "images" / "000004.png").unlink()
    cli(*argv("run", tmp_path, *FLAGS))
    assert (tmp_path / "images" / "000004.png").read_bytes() == before
    assert (tmp_path / "samples" / "comparison.png").is_file()


def test_a_cache_of_other_buckets_is_refused(refused, argv, cache, tmp_path):
    flags = (*FLAGS[:4], "1:2", "4:3")
    assert "made for buckets" in refused(argv("train", tmp_path / "run", *flags))
