import numpy as np
import pytest

from benchmarks.teacher.parts import NUM_TOKENS, build_tokenizer
from benchmarks.teacher.scenes import COLORS, HELD_OUT, PIXELS, Item, Scene, draw, random_scene


def _nearest_color(pixel):
    return min(COLORS, key=lambda name: np.linalg.norm(np.asarray(COLORS[name]) - pixel))


@pytest.mark.parametrize(
    ("where", "first", "second"),
    [("left of", (17, 32), (47, 32)), ("below", (32, 47), (32, 17))],
)
def test_a_relation_puts_the_items_where_the_caption_says(where, first, second):
    scene = Scene((Item("big", "red", "circle"), Item("big", "white", "square")), where, "green")
    for seed in range(20):
        image = draw(scene, np.random.default_rng(seed))
        assert _nearest_color(image[first[1], first[0]]) == "red"
        assert _nearest_color(image[second[1], second[0]]) == "white"
        assert _nearest_color(image[1, 1]) == "green"


def test_big_covers_more_than_small_and_images_are_in_range():
    def covered(size):
        scene = Scene((Item(size, "black", "circle"),), "middle", "white")
        return (draw(scene, np.random.default_rng(0)).mean(-1) < 0.5).sum()

    assert covered("big") == pytest.approx(np.pi * 12**2, rel=0.25)
    assert covered("small") == pytest.approx(np.pi * 7**2, rel=0.25)


def test_drawing_is_a_function_of_scene_and_generator():
    scene = random_scene(np.random.default_rng(3))
    images = [draw(scene, np.random.default_rng(4)) for _ in range(2)]
    assert images[0].shape == (PIXELS, PIXELS, 3)
    assert images[0].min() >= 0
    assert images[0].max() <= 1
    np.testing.assert_array_equal(*images)


def test_training_never_draws_a_held_out_combination_and_the_other_set_always_does():
    rng = np.random.default_rng(0)
    for _ in range(300):
        assert not any((i.color, i.shape) in HELD_OUT for i in random_scene(rng, held_out=False).items)
        assert any((i.color, i.shape) in HELD_OUT for i in random_scene(rng, held_out=True).items)


def test_an_item_never_has_the_colour_of_the_background():
    rng = np.random.default_rng(0)
    for scene in (random_scene(rng, held_out=None) for _ in range(300)):
        assert scene.background not in {item.color for item in scene.items}


def test_every_caption_fits_the_text_encoder_a_token_a_word():
    rng = np.random.default_rng(0)
    captions = [random_scene(rng, held_out=None).caption for _ in range(500)]
    tokenizer = build_tokenizer(captions)
    lengths = [len(ids) for ids in tokenizer(captions).input_ids]
    assert lengths == [len(caption.replace(",", " ,").split()) + 2 for caption in captions]
    assert max(lengths) <= NUM_TOKENS
    assert (
        tokenizer.decode(tokenizer("Zebra quux!", add_special_tokens=False).input_ids).replace(" ", "") == "zebraquux!"
    )
