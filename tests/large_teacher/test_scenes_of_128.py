from typing import get_args

import numpy as np
import pytest
import torch

from benchmarks.large_teacher import drawing
from benchmarks.large_teacher.checker import check, read
from benchmarks.large_teacher.drawing import draw
from benchmarks.large_teacher.pipeline import LARGE
from benchmarks.large_teacher.scenes import COUNTS, HELD_OUT, MOST, PIXELS, SHAPES, TEXTURES, parse, random_scene
from benchmarks.teacher.export import distinct_captions
from benchmarks.teacher.parts import build_tokenizer
from benchmarks.teacher.scenes import Split

CAPTION = "two big red striped circles above one small blue checked square on a dotted white background"


def drawn(captions, seed=0):
    rows = torch.tensor([parse(caption).row for caption in captions])
    images = draw(rows, torch.Generator().manual_seed(seed)).permute(0, 2, 3, 1)
    return ((images * 255).round() / 255).numpy()


def test_a_caption_parses_back_to_its_scene():
    rng = np.random.default_rng(0)
    for scene in (random_scene(rng, None) for _ in range(500)):
        assert parse(scene.caption) == scene
        assert 2 <= sum(COUNTS[group.count] for group in scene.groups) <= MOST
        assert scene.color not in {group.color for group in scene.groups}
    for wrong in ("a cat", CAPTION.replace("circles", "circle"), CAPTION.replace("dotted", "wavy")):
        with pytest.raises(ValueError, match=r"expected .*, got"):
            parse(wrong)


def test_training_draws_neither_held_out_combinations_nor_held_out_captions():
    rng = np.random.default_rng(0)
    scenes = {split: [random_scene(rng, split) for _ in range(200)] for split in get_args(Split)}
    for split, found in scenes.items():
        pairs = [{(g.color, g.shape) for g in s.groups} | {(g.texture, g.shape) for g in s.groups} for s in found]
        unseen = [bool(pair & HELD_OUT) for pair in pairs]
        assert all(unseen) if split == "combinations" else not any(unseen)
    assert not {scene.caption for scene in scenes["train"]} & {scene.caption for scene in scenes["captions"]}


def test_every_caption_fits_the_text_encoder_a_token_a_word():
    captions = distinct_captions(random_scene, 1000, ["train"], seed=0)
    tokenizer = build_tokenizer(captions, LARGE)
    lengths = [len(ids) for ids in tokenizer(captions).input_ids]
    assert lengths == [len(caption.split()) + 2 for caption in captions]
    assert max(lengths) <= LARGE.num_tokens


def test_drawing_is_a_function_of_scenes_and_generator():
    captions = distinct_captions(random_scene, 8, ["train"], seed=1)
    images = drawn(captions)
    assert images.shape == (8, PIXELS, PIXELS, 3)
    assert images.min() >= 0
    assert images.max() <= 1
    np.testing.assert_array_equal(images, drawn(captions))
    assert (images != drawn(captions, seed=1)).mean() > 0.9


def test_drawn_scenes_are_read_right_and_shuffled_captions_are_not():
    captions = distinct_captions(random_scene, 200, ["train", "captions", "combinations"], seed=2)
    images = np.concatenate([drawn(captions[start : start + 50], start) for start in range(0, 200, 50)])
    right = [check(image, caption).all_right for image, caption in zip(images, captions, strict=True)]
    others = captions[1:] + captions[:1]
    shuffled = [check(image, caption).all_right for image, caption in zip(images, others, strict=True)]
    assert np.mean(right) >= 0.99  # .9987 of 1,500
    assert not any(shuffled)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (("big", "small"), {"size"}),
        (("red", "orange"), {"color"}),
        (("striped", "plain"), {"texture"}),
        (("checked", "dotted"), {"texture"}),
        (("square", "cross"), {"shape"}),
        (("above", "below"), {"color", "size", "texture", "shape"}),  # and with other counts the place too
        (("dotted", "checked"), {"ground_texture"}),
        (("white", "black"), {"background"}),
        (("two big red striped circles", "three big red striped circles"), None),
    ],
)
def test_each_attribute_is_told_apart(change, wrong):
    [image] = drawn([CAPTION])
    assert check(image, CAPTION).all_right
    verdict = check(image, CAPTION.replace(*change))
    found = {name for name, right in vars(verdict).items() if not right}
    assert found >= (wrong or {"count"})
    assert "background" not in found or change[1] == "black"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "image",
    [
        np.zeros((PIXELS, PIXELS, 3)),
        np.ones((PIXELS, PIXELS, 3)),
        np.random.default_rng(0).random((PIXELS, PIXELS, 3)),
        np.random.default_rng(0).random((PIXELS // 4, PIXELS // 4, 3)).repeat(4, 0).repeat(4, 1),
        np.pad(np.ones((PIXELS - 10, PIXELS - 10, 3)), ((5, 5), (5, 5), (0, 0))),
        np.tile(np.linspace(0, 1, PIXELS)[:, None, None], (1, PIXELS, 3)),
    ],
    ids=["black", "white", "noise", "blocks", "frame", "ramp"],
)
def test_what_is_no_scene_is_wrong_and_no_error(image):
    assert not check(image.astype(np.float32), CAPTION).all_right


@pytest.mark.parametrize("texture", TEXTURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_caption_leaves_open_is_measured_too(shape, texture):
    # An independent look: blue pixels.
    caption = f"one big blue {texture} {shape} left of one big red plain circle on a plain white background"
    images = drawn([caption, caption.replace("white", "yellow")], seed=5)
    for image in images:
        _, _, found = read(image)
        left = min(found, key=lambda item: item.x)
        assert (left.color, left.texture, left.shape, left.size) == ("blue", texture, shape, "big")
        half = image[:, : PIXELS // 2]
        blue = (half[..., 2] > 1.5 * half[..., 0]) & (half[..., 2] > 1.5 * half[..., 1])
        ys, xs = np.nonzero(blue)
        assert left.x == pytest.approx(xs.mean() - (PIXELS - 1) / 2, abs=1.5)
        assert left.y == pytest.approx(ys.mean() - (PIXELS - 1) / 2, abs=1.5)
        assert 14 < left.radius < 17.5
        assert (left.tilt is None) == (shape == "circle")


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "circle"])
def test_tilts_are_measured(shape, monkeypatch):
    tilts, turned = [], drawing._turned

    def watched(x, y, angle):
        if angle.abs().max() <= 0.3:
            tilts.append(angle)
        return turned(x, y, angle)

    monkeypatch.setattr(drawing, "_turned", watched)
    caption = f"one big blue plain {shape} left of one big red plain circle on a plain white background"
    images = drawn([caption] * 24)
    seen = np.array([min(read(image)[2], key=lambda item: item.x).tilt for image in images])
    expected = tilts[0].numpy()  # of the first shape of the first group
    assert min(np.abs(seen - expected).max(), np.abs(seen + expected).max()) < 0.06
