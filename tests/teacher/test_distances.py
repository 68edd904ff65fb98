import numpy as np
import pytest
from PIL import Image, ImageFilter

from benchmarks.teacher.distances import distances, stills
from benchmarks.teacher.score import unseen_prompts
from benchmarks.teacher.worlds import world_of


def test_drawings_are_near_and_blurred_ones_farther():
    captions = unseen_prompts("embedded", 32)
    others = world_of("embedded").draw(captions, 1)
    near = distances(others, captions, "embedded")
    far = distances([image.filter(ImageFilter.GaussianBlur(1)) for image in others], captions, "embedded")
    assert all(near[column] < far[column] for column in near)
    assert near["spectrum"] < 0.5


def test_the_drawings_themselves_are_at_no_distance():
    captions = unseen_prompts("embedded-video", 8)
    clips = [[image] * 3 for image in world_of("embedded-video").draw(captions, 0)]
    found = distances(clips, captions, "embedded-video")
    assert found["spectrum"] == 0
    assert found["fd"] == pytest.approx(0, abs=1e-6)


def test_of_a_video_the_middle_frame_is_taken():
    frames = [Image.fromarray(np.full((4, 4, 3), level, np.uint8)) for level in (0, 1, 2)]
    assert np.asarray(stills([frames])[0]).max() == 1
