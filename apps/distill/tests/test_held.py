"""What stages before training hold on a GPU, by hand."""

from dataclasses import replace

import pytest

from swd_distill.planning.before import ROOM, fitting_batch, held
from swd_distill.planning.estimate import Estimate
from swd_distill.presets import PRESETS
from swd_models import placing

GIB = 1 << 30


def estimate(preset, base="bf16", batch=8):
    config = PRESETS[preset]
    data, training = replace(config.data, batch=batch), replace(config.training, base=base)
    return Estimate.of(replace(config, data=data, training=training))


def test_parts_are_together_where_the_code_places_them_together():
    assert placing.ROOM == ROOM


def test_a_pipeline_that_fits_is_there_whole():
    found, numbers = held(estimate("sd35-medium"), "generate", 76.0), estimate("sd35-medium").counts.parameters
    weights = 2 * (numbers["base"] + numbers["text"] + numbers["vae"]) / GIB
    assert weights == pytest.approx(14.7, abs=0.1)  # 2.24, 5.58 and .08 billion parameters
    # Decoding takes most: 1024 x 1024 pixels of 3074 bytes in float32, half of that in bfloat16, for each of 8.
    assert found.gib - weights == pytest.approx(8 * 1024**2 * 3074 / 2 / GIB, rel=0.02)
    assert found.how == ""


def test_else_the_largest_part_decides():
    found = held(estimate("flux", "nf4", batch=2), "generate", 15.2)
    text = 2 * estimate("flux").counts.parameters["text"] / GIB  # T5-XXL is larger than FLUX in four bits
    assert text < found.gib < text + 1
    assert found.how == "one part at a time"


def test_an_autoencoder_decodes_less_at_a_time_where_it_must():
    ways = [held(estimate("sd35-medium"), "generate", gib).how for gib in (12.5, 8.0, 1.0)]
    assert ways == [
        "one part at a time",
        "one part at a time, decoded one by one",
        "one part at a time, decoded in tiles",
    ]


def test_of_two_experts_one_is_there_at_a_time():
    found = estimate("wan22-a14b", batch=1)
    both, base = held(found, "generate", 76.0), found.base_bytes() / GIB
    assert base < both.gib < 2 * base
    assert both.how == "one part at a time"
    assert held(found, "generate", 140.0).gib > 2 * base


def test_text_is_encoded_after_the_images():
    found = estimate("flux")
    numbers, around = found.counts.parameters, found.counts.around
    images = 4 * numbers["vae"] + 8 * around["encode"].peak
    assert held(found, "encode", 76.0).gib == pytest.approx(images / GIB)
    one = replace(found, config=replace(found.config, data=replace(found.config.data, batch=1)))
    text = 4 * numbers["vae"] + 2 * numbers["text"] + around["text"].peak
    assert held(one, "encode", 76.0).gib == pytest.approx(text / GIB)


@pytest.mark.parametrize("gib", [10.0, 15.2, 22.8, 76.0])
def test_the_fitting_batch_is_the_largest_one(gib):
    most = fitting_batch(estimate("qwen-image", "nf4"), gib)
    for batch in (most, most + 1):
        found = estimate("qwen-image", "nf4", batch=max(batch, 1))
        fits = all(held(found, stage, gib).gib <= gib for stage in ("generate", "encode"))
        assert fits == (0 < batch <= most) or batch > 8
