import json

import numpy as np
import pytest
import torch
from PIL import Image

from swd_eval.geneval.detectors import load_detector
from swd_eval.geneval.run import read_folder, score_samples
from swd_eval.geneval.score import TASKS, Detection, crop, judge, keep, overall, relations

IMAGE = Image.new("RGB", (100, 100), (250, 0, 0))


def at(x, y, name="cat", score=0.95, size=10):
    return Detection(name, score, (x - size / 2, y - size / 2, x + size / 2, y + size / 2))


def wants(*include, tag="single_object", exclude=()):
    return {"tag": tag, "include": [{"count": 1} | each for each in include], "exclude": list(exclude)}


def red(crops, name):
    return ["red"] * len(crops)


def test_an_object_counts_from_its_tasks_threshold_on():
    seen = [at(20, 20, score=0.31), at(50, 50, score=0.3)]
    assert judge(IMAGE, seen, wants({"class": "cat"}), red) == ""
    assert judge(IMAGE, seen, wants({"class": "cat", "count": 2}), red) == "expected 2 cat, found 1"
    assert judge(IMAGE, seen, wants({"class": "cat"}, tag="counting"), red) == "expected 1 cat, found 0"
    assert judge(IMAGE, seen, wants({"class": "dog"}), red) == "expected 1 dog, found 0"


def test_more_objects_than_a_count_are_too_many():
    three = [at(20, 20), at(50, 50), at(80, 80)]
    exactly_two = wants({"class": "cat", "count": 2}, tag="counting", exclude=[{"class": "cat", "count": 3}])
    assert judge(IMAGE, three, exactly_two, red) == "expected fewer than 3 cat, found 3"
    assert judge(IMAGE, three[:2], exactly_two, red) == ""


def test_at_most_sixteen_objects_of_a_class_are_kept_the_surest_first():
    many = [at(5 * index, 5, score=0.4 + 0.02 * index) for index in range(20)] + [at(1, 1, "dog")]
    kept = keep(many, "position")
    assert [round(each.score, 2) for each in kept["cat"][:2]] == [0.78, 0.76]
    assert [len(kept["cat"]), len(kept["dog"])] == [16, 1]


def test_directions_follow_the_offset_of_centres():
    middle = at(50, 50)
    assert relations(at(10, 50), middle) == {"left of"}
    assert relations(at(90, 55), middle) == {"right of"}
    assert relations(at(50, 10), middle) == {"above"}
    assert relations(at(90, 90), middle) == {"right of", "below"}
    assert relations(at(51, 49), middle) == set()  # within a tenth of both extents


def test_a_position_is_to_the_objects_matched_before():
    metadata = wants({"class": "dog"}, {"class": "cat", "position": ["left of", 0]}, tag="position")
    assert judge(IMAGE, [at(80, 50, "dog"), at(20, 50)], metadata, red) == ""
    assert "found it elsewhere" in judge(IMAGE, [at(20, 50, "dog"), at(80, 50)], metadata, red)
    assert "not there" in judge(IMAGE, [at(20, 50)], metadata, red)


def test_colours_are_named_on_crops():
    crops = []

    def name_colours(images, name):
        crops.extend(images)
        return ["red", "blue"]

    two = [at(20, 20), at(60, 60, size=20)]
    assert judge(IMAGE, two, wants({"class": "cat", "count": 2, "color": "red"}), name_colours) == (
        "expected 2 red cat, found red, blue"
    )
    assert [image.size for image in crops] == [(10, 10), (20, 20)]


def test_a_crop_shows_the_object_on_grey():
    mask = np.zeros((100, 100), dtype=bool)
    mask[20:30, 20:30] = True
    cut = crop(IMAGE, Detection("cat", 1.0, (20.0, 20.0, 40.0, 30.0), mask))
    assert cut.size == (20, 10)
    assert cut.getpixel((5, 5)) == (250, 0, 0)
    assert cut.getpixel((15, 5)) == (0x99, 0x99, 0x99)


def test_the_score_is_the_mean_of_tasks_not_of_images():
    correct = {task: [True] * 2 for task in TASKS} | {"counting": [True, False, False, False]}
    assert overall(correct)["geneval"] == pytest.approx((5 + 0.25) / 6)
    with pytest.raises(ValueError, match="none of counting"):
        overall(correct | {"counting": []})


@pytest.fixture
def folder(tmp_path):
    """Six prompts, one a task, of two images each: the first wholly red, the second blue."""
    for index, task in enumerate(TASKS):
        samples = tmp_path / "images" / f"{index:05d}" / "samples"
        samples.mkdir(parents=True)
        include = [{"class": "cat", "count": 1, "color": "red"}]
        metadata = {"tag": task, "include": include, "prompt": f"a red cat {index}"}
        (samples.parent / "metadata.jsonl").write_text(json.dumps(metadata))
        for number, colour in enumerate(("red", "blue")):
            Image.new("RGB", (20, 20), colour).save(samples / f"{number:04d}.png")
    return tmp_path / "images"


def test_a_folder_is_judged_image_by_image_and_goes_on(folder, tmp_path):
    seen = []

    def detect(image):
        seen.append(image)
        return [at(10, 10)]

    def name_colours(crops, name):
        return ["red" if crop.getpixel((0, 0)) == (255, 0, 0) else "blue" for crop in crops]

    for _ in range(2):
        table = score_samples(read_folder(folder), tmp_path / "out", lambda: (detect, name_colours), {}, "mine")
    assert len(seen) == 12
    assert table.startswith("| Model | geneval ↑ | geneval-single_object ↑")
    assert "| mine | 0.5 | 0.5 |" in table
    lines = [json.loads(line) for line in (tmp_path / "out" / "geneval.jsonl").read_text().splitlines()]
    assert [(line["file_name"], line["correct"]) for line in lines[:2]] == [
        ("00000/samples/0000.png", 1.0),
        ("00000/samples/0001.png", 0.0),
    ]


def test_folders_of_another_form_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="expected folders 00000"):
        read_folder(tmp_path)
    (folder / "00003" / "samples" / "0000.png").unlink()
    (folder / "00003" / "samples" / "0001.png").unlink()
    with pytest.raises(ValueError, match=r"expected images in .*00003"):
        read_folder(folder)
    (folder / "00002" / "metadata.jsonl").write_text('{"tag": "other"}')
    with pytest.raises(ValueError, match="got other"):
        read_folder(folder)


def test_transformers_mask2former_gives_names_boxes_and_masks_in_pixels(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_layers=1,
        decoder_layers=2, num_attention_heads=2, dim_feedforward=16, encoder_feedforward_dim=16, num_queries=5,
        id2label={0: "cat", 1: "remote"},
    )  # fmt: skip
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    model.class_predictor.bias.data = torch.tensor([0.0, 9.0, -9.0])  # sure of all it sees
    model.save_pretrained(tmp_path)
    transformers.Mask2FormerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    image = Image.effect_noise((80, 60), 90).convert("RGB")
    found = load_detector(tmp_path, "cpu")(image)
    assert found
    for each in found:
        assert each.name == "tv remote"
        assert each.mask.shape == (60, 80)
        left, top, right, bottom = map(int, each.box)
        assert each.mask.sum() == each.mask[top:bottom, left:right].sum() > 0
        assert each.mask[top].any()
        assert each.mask[:, right - 1].any()
