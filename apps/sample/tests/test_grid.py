from itertools import pairwise

import pytest
from PIL import Image

from swd_sample.grid import CELL, MARGIN, grid, grid_of

COLOURS = ["red", "lime", "blue"]
PIXELS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def _images(size=(64, 64)):
    return [Image.new("RGB", size, colour) for colour in COLOURS]


def _pixels(picture):
    channels = [channel.tobytes() for channel in picture.split()]
    return zip(*channels, strict=True)


def _box(picture, colour):
    """Find the box of a pure colour."""
    mask = Image.frombytes("L", picture.size, bytes(255 * (pixel == colour) for pixel in _pixels(picture)))
    return mask.getbbox()


def test_rows_and_columns_are_where_their_names_say():
    picture = grid({"first": _images(), "second": _images()[::-1]}, ["a", "b", "c"])
    top, bottom = picture.crop((0, 0, picture.width, picture.height - CELL - MARGIN)), picture
    lefts = [_box(top, colour)[0] for colour in PIXELS]
    assert [second - first for first, second in pairwise(lefts)] == [CELL + MARGIN] * 2
    left, upper, right, lower = _box(bottom, PIXELS[1])  # in the middle of both rows
    assert (right - left, lower - upper) == (CELL, 2 * CELL + MARGIN)
    assert picture.getpixel((picture.width - MARGIN - 2, lower - 2)) == PIXELS[0]  # the second row is reversed


@pytest.mark.parametrize("size", [(64, 64), (160, 160), (1024, 1024)])
def test_images_of_every_size_fill_a_cell(size):
    picture = grid({"": _images(size)}, ["a", "b", "c"])
    for colour in PIXELS:
        left, upper, right, lower = _box(picture, colour)
        assert (right - left, lower - upper) == (CELL, CELL)


def test_images_that_are_not_square_keep_their_shape():
    left, upper, right, lower = _box(grid({"": _images((64, 32))}, ["a", "b", "c"]), PIXELS[0])
    assert (right - left, lower - upper) == (CELL, CELL // 2)


def test_names_and_captions_take_room_and_leave_ink():
    plain = grid({"": _images()}, ["", "", ""])
    named = grid({"the teacher": _images()}, ["", "", ""])
    captioned = grid({"": _images()}, ["a long caption that has to be wrapped over some lines", "b", "c"])
    assert named.width > plain.width
    assert captioned.height > plain.height
    dark = [sum(max(pixel) < 100 for pixel in _pixels(picture)) for picture in (plain, named, captioned)]
    assert dark[0] == 0
    assert min(dark[1:]) > 20


def test_sources_are_left_as_they_are():
    images = _images()
    grid({"": images}, ["a", "b", "c"])
    assert [image.size for image in images] == [(64, 64)] * 3


def test_a_row_of_videos_shows_their_first_middle_and_last_frames():
    video = [Image.new("RGB", (8, 8), colour) for colour in (*COLOURS, "black", "white")]
    picture = grid({"mine": [video, video]}, ["a", "b"])
    tops = [_box(picture, colour)[1] for colour in (PIXELS[0], PIXELS[2])]
    assert tops[1] - tops[0] == CELL + MARGIN
    assert _box(picture, PIXELS[1]) is None
    assert picture.height > 3 * CELL


def test_videos_side_by_side_are_a_video():
    video = [Image.new("RGB", (8, 8), colour) for colour in COLOURS]
    frames = grid_of([video, video], ["a", "b"])
    assert len(frames) == 3
    assert [_box(frame, pixel) is not None for frame, pixel in zip(frames, PIXELS, strict=True)] == [True] * 3
    assert grid_of(_images(), ["a", "b", "c"]).tobytes() == grid({"": _images()}, ["a", "b", "c"]).tobytes()
