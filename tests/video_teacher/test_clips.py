import numpy as np
import pytest

from benchmarks.teacher.scenes import COLORS, HELD_OUT
from benchmarks.video_teacher.checker import check, parse
from benchmarks.video_teacher.clips import MOTIONS, NUM_FRAMES, PIXELS, SPLITS, Clip, all_clips, draw, unseen_captions
from benchmarks.video_teacher.parts import NUM_TOKENS, build_tokenizer


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(5)
    kinds = [clip for split in SPLITS for clip in all_clips(split)]
    return [(clip, draw(clip, rng)) for clip in kinds]


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_shape_moves_where_the_caption_says(motion):
    for seed in range(10):
        frames = draw(Clip("black", "circle", motion, "white"), np.random.default_rng(seed))
        weight = frames.mean(-1) < 0.5
        path = [np.argwhere(mask).mean(0)[::-1] for mask in weight]
        step = np.diff(path, axis=0).mean(0) * (NUM_FRAMES - 1)
        along, across = step @ MOTIONS[motion], step @ np.asarray(MOTIONS[motion])[::-1]
        assert 12 < along < 16
        assert abs(across) < 0.5
        assert all(0.75 < mask.sum() / (np.pi * 6.5**2) < 1.25 for mask in weight)


def test_splits_are_disjoint_and_held_out_combinations_are_in_one():
    splits = {split: all_clips(split) for split in SPLITS}
    together = [clip.caption for clips in splits.values() for clip in clips]
    assert len(set(together)) == len(together) == len(COLORS) * (len(COLORS) - 1) * 3 * len(MOTIONS)
    for split, clips in splits.items():
        assert all(((clip.color, clip.shape) in HELD_OUT) == (split == "combinations") for clip in clips)
    unseen = [parse(caption).split for caption in unseen_captions()]
    assert unseen == ["captions", "combinations"] * (len(unseen) // 2)
    # What is held out is known in parts: every word of it stands in a training caption.
    words = {word for clip in splits["train"] for word in clip.caption.split()}
    assert {word for caption in together for word in caption.split()} == words


def test_drawn_clips_are_read_right_and_shuffled_captions_are_not(clips):
    assert clips[0][1].shape == (NUM_FRAMES, PIXELS, PIXELS, 3)
    assert all(parse(clip.caption) == clip for clip, _ in clips)
    right = np.mean([check(frames, clip.caption).all_right for clip, frames in clips])
    others = [clip.caption for clip, _ in clips[7:] + clips[:7]]
    shuffled = np.mean([check(frames, caption).all_right for caption, (_, frames) in zip(others, clips, strict=True)])
    assert right >= 0.99
    assert shuffled < 0.05
    with pytest.raises(ValueError, match="expected a caption of a clip"):
        parse("a cat")


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (("red", "blue"), {"color"}),
        (("circle", "triangle"), {"shape"}),
        (("left", "right"), {"motion"}),
        (("left", "up"), {"motion"}),
        (("green", "white"), {"background"}),
    ],
)
def test_each_attribute_is_told_apart(change, wrong):
    caption = "a red circle moving left, green background"
    frames = draw(parse(caption), np.random.default_rng(0))
    verdict = check(frames, caption.replace(*change))
    assert {name for name, right in vars(verdict).items() if not right} == wrong


def test_an_object_that_stands_still_jumps_or_vanishes_is_wrong():
    caption = "a red circle moving left, green background"
    frames = draw(parse(caption), np.random.default_rng(0))
    assert not check(np.repeat(frames[:1], NUM_FRAMES, 0), caption).motion
    assert not check(frames[[*range(0, 17, 4), *range(0, 17, 4), *range(10, 17)]], caption).motion
    gone = frames.copy()
    gone[8] = frames[0, 0, 0]
    assert not check(gone, caption).count


def test_each_word_of_a_caption_is_one_token():
    tokenizer = build_tokenizer(clip.caption for clip in all_clips("train"))
    ids = tokenizer(all_clips("combinations")[0].caption).input_ids
    assert len(ids) == 9  # eight words and signs, the end
    assert ids[-1] == tokenizer.eos_token_id
    assert len(ids) <= NUM_TOKENS
    assert tokenizer("").input_ids == [tokenizer.eos_token_id]
