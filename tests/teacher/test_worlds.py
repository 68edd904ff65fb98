import numpy as np
import pytest

from benchmarks.large_teacher.pipeline import TRAINED
from benchmarks.large_teacher.scenes import random_scene
from benchmarks.teacher.distances import distances, power_by_cycles
from benchmarks.teacher.export import distinct_captions
from benchmarks.teacher.score import score, unseen_prompts
from benchmarks.teacher.spread import FREE, spread_of_drawings
from benchmarks.teacher.worlds import world_of


@pytest.fixture
def captions():
    return {
        "embedded": unseen_prompts("embedded", 16),
        str(TRAINED): distinct_captions(random_scene, 16, ["captions", "combinations"], seed=3),
    }


@pytest.mark.parametrize("model", ["embedded", str(TRAINED)])
def test_drawings_of_a_world_are_right_and_as_drawn(model, captions):
    few = captions[model]
    world = world_of(model)
    images = world.draw(few, 0)
    assert images == world.draw(few, 0)
    scores = score(images, few, model)
    assert scores["all_right"] >= 0.9
    assert scores["fd"] == pytest.approx(0, abs=1e-5)
    assert set(power_by_cycles(images, few, model)["dB"]) == {0.0}
    assert distances(world.draw(few, 1), few, model)["spectrum"] < 1.5
    verdict = world.check(np.asarray(images[0], np.float32) / 255, few[1])
    assert not verdict.all_right


def test_shapes_of_a_group_are_found_in_the_order_of_their_row(captions):
    world = world_of(str(TRAINED))
    caption = "three big red plain circles above two small blue plain squares on a plain white background"
    [image] = world.draw([caption], 0)
    found = world.find(np.asarray(image, np.float32) / 255, caption)
    assert [item.color for item in found] == ["red"] * 3 + ["blue"] * 2
    assert found[0].x < found[1].x < found[2].x
    assert found[3].x < found[4].x
    drawn = spread_of_drawings([caption] * 6, str(TRAINED))
    assert all(drawn[name] > 0 for name in (*FREE, "features"))
