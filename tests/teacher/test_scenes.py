from typing import get_args

import numpy as np
import pytest

from benchmarks.teacher.parts import EMBEDDED, build_tokenizer
from benchmarks.teacher.scenes import COLORS, HELD_OUT, PIXELS, Item, Scene, Split, draw, random_scene


def _nearest_color(pixel):
    return min(COLORS, key=lambda name: np.linalg.norm(np.asarray(COLORS[name]) - pixel))


@pytest.mark.parametrize(
    ("where", "first", "second"),
    [("left of", (17, 32), (47, 32)), ("below", (32, 47), (32, 17))],
)
def test_a_relation_puts_the_items_where_the_caption_says(where, first, second):
    scene = Scene((Item("big", "red", "circle"), Item("big", "white", "triangle")), where, "green")
    for seed in range(20):
        image = draw(scene, np.random.default_rng(seed))
        assert _nearest_color(image[first[1], first[0]]) == "red"
        assert _nearest_color(image[second[1], second[0]]) == "white"
        assert _nearest_color(image[1, 1]) == "green"


def test_big_covers_more_than_small_and_images_are_in_range():
    def covered(size):
        scene = Scene((Item(size, "black", "circle"),), "middle", "white")
        return (draw(scene, np.random.default_rng(0)).mean(-1) < 0.5).sum()

    assert covered("big") == pytest.approx(np.pi * 12.5**2, rel=0.25)
    assert covered("small") == pytest.approx(np.pi * 8.5**2, rel=0.25)


def test_drawing_is_a_function_of_scene_and_generator():
    scene = random_scene(np.random.default_rng(3))
    images = [draw(scene, np.random.default_rng(4)) for _ in range(2)]
    assert images[0].shape == (PIXELS, PIXELS, 3)
    assert images[0].min() >= 0
    assert images[0].max() <= 1
    np.testing.assert_array_equal(*images)


def test_training_draws_neither_held_out_combinations_nor_held_out_captions():
    rng = np.random.default_rng(0)
    scenes = {split: [random_scene(rng, split) for _ in range(300)] for split in get_args(Split)}
    for split, drawn in scenes.items():
        unseen = [any((item.color, item.shape) in HELD_OUT for item in scene.items) for scene in drawn]
        assert all(unseen) if split == "combinations" else not any(unseen)
    assert not {scene.caption for scene in scenes["train"]} & {scene.caption for scene in scenes["captions"]}
    # An eighth of the sentences is kept back, of one item as of two.
    drawn = [scene for scene in (random_scene(rng, None) for _ in range(4000)) if scene.split != "combinations"]
    for num_items in (1, 2):
        kept = [scene.split == "captions" for scene in drawn if len(scene.items) == num_items]
        assert np.mean(kept) == pytest.approx(1 / 8, abs=0.03)


def test_spectra_fall_like_a_power_law_up_to_the_highest_frequencies():
    rng = np.random.default_rng(1)
    images = np.stack([draw(random_scene(rng), rng).mean(-1) for _ in range(200)])
    power = (np.abs(np.fft.fft2(images - images.mean((1, 2), keepdims=True))) ** 2).mean(0)
    frequency = np.hypot(np.fft.fftfreq(PIXELS)[:, None], np.fft.fftfreq(PIXELS)[None])
    low, middle, high = (power[(frequency > f / 1.3) & (frequency < f * 1.3)].mean() for f in (0.05, 0.15, 0.45))
    slopes = np.log(middle / low) / np.log(3), np.log(high / middle) / np.log(3)
    assert all(-3.5 < slope < -1.5 for slope in slopes)  # photographs have about -2


def test_an_item_never_has_the_colour_of_the_background():
    rng = np.random.default_rng(0)
    for scene in (random_scene(rng, None) for _ in range(300)):
        assert scene.background not in {item.color for item in scene.items}


def test_every_caption_fits_the_text_encoder_a_token_a_word():
    rng = np.random.default_rng(0)
    captions = [random_scene(rng, None).caption for _ in range(500)]
    tokenizer = build_tokenizer(captions)
    lengths = [len(ids) for ids in tokenizer(captions).input_ids]
    assert lengths == [len(caption.replace(",", " ,").split()) + 2 for caption in captions]
    assert max(lengths) <= EMBEDDED.num_tokens
    assert (
        tokenizer.decode(tokenizer("Zebra quux!", add_special_tokens=False).input_ids).replace(" ", "") == "zebraquux!"
    )
