import numpy as np
import pytest
from PIL import Image

from benchmarks.teacher.checker import find, parse
from benchmarks.teacher.scenes import draw
from benchmarks.teacher.spread import FREE, PROMPTS, SEEDS, repeated, spread, spread_of_drawings
from benchmarks.teacher.worlds import world_of

CAPTIONS = [
    "a big red cross left of a small blue triangle, white background",
    "a big green circle at the top, black background",
]


@pytest.mark.parametrize("shape", ["cross", "triangle"])
def test_what_is_free_is_measured(shape):
    scene = parse(f"a big red {shape} at the middle, white background")
    tilts, radii = [], []

    class Watched(np.random.Generator):
        def uniform(self, low=0.0, high=1.0, size=None):
            value = super().uniform(low, high, size)
            if (low, high) == (-0.35, 0.35):
                tilts.append(value)
            if (low, high) == (0.92, 1.08):
                radii.append(12.5 * value)
            return value

    found = [find(draw(scene, Watched(np.random.PCG64(seed))), scene.caption)[0] for seed in range(12)]
    measured = np.array([each.tilt for each in found])
    # Drawn clockwise or not, and from whatever upright is: the differences are the drawn ones.
    apart = measured - measured[0]
    assert np.abs(np.abs(apart) - np.abs(np.subtract(tilts, tilts[0]))).max() < 0.04
    assert [each.radius for each in found] == pytest.approx(radii, rel=0.06)
    assert all(abs(each.x) < 6 and abs(each.y) < 6 for each in found)


def test_one_image_again_and_again_has_no_spread_and_drawings_have():
    captions = repeated(CAPTIONS)
    assert len(captions) == len(CAPTIONS) * SEEDS <= PROMPTS * SEEDS
    drawn = spread_of_drawings(captions, "embedded")
    assert all(drawn[name] > 0 for name in (*FREE, "features"))
    images = [world_of("embedded").draw([caption], 0)[0] for caption in captions]  # the same seed each time
    same = spread(images, captions, "embedded")
    assert all(same[name] == pytest.approx(0, abs=1e-6) for name in (*FREE, "features"))


def test_what_nothing_has_is_no_number():
    blank = spread([Image.new("RGB", (64, 64), "white")] * 4, CAPTIONS[:1] * 4, "embedded")
    assert np.isnan(blank["tilt"])
    assert blank["features"] == pytest.approx(0, abs=1e-6)
