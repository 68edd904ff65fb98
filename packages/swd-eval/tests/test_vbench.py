import json

import pytest

from swd_eval.cli import main
from swd_eval.vbench import DIMENSIONS, category_means, read_videos

# Table 10 of the paper: total and categories, then the dimensions in its order.
ORDER = (
    "Human_Anatomy", "Human_Clothes", "Human_Identity", "Composition", "Diversity", "Mechanics", "Material",
    "Thermotics", "Multi-View_Consistency", "Dynamic_Spatial_Relationship", "Dynamic_Attribute",
    "Motion_Order_Understanding",
    "Human_Interaction", "Complex_Landscape", "Complex_Plot", "Camera_Motion", "Motion_Rationality",
    "Instance_Preservation",
)  # fmt: skip
TABLE_10 = {
    "Wan 2.1": (
        (51.59, 53.75, 57.06, 22.65, 83.03, 41.45),
        (87.00, 91.24, 70.85, 42.56, 64.94, 59.16, 36.58, 57.89, 12.15, 26.08, 15.01, 21.21, 46.33, 19.77, 11.02, 19.13,
         28.16, 85.96),
    ),
    "SwD": (
        (53.50, 44.78, 61.40, 22.80, 91.93, 46.61),
        (92.69, 99.10, 84.02, 48.05, 41.52, 54.33, 52.04, 60.14, 19.96, 33.81, 14.28, 15.15, 56.33, 17.55, 8.94, 13.58,
         32.75, 90.05),
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", TABLE_10)
def test_category_means_and_total_are_table_10s(model):
    (total, *categories), values = TABLE_10[model]
    means = category_means(dict(zip(ORDER, values, strict=True)))
    assert list(means) == ["Creativity", "Commonsense", "Controllability", "Human Fidelity", "Physics"]
    assert list(means.values()) == pytest.approx(categories, abs=0.01)  # the paper cuts, or rounds
    assert sum(means.values()) / 5 == pytest.approx(total, abs=0.011)


def test_results_of_several_files_become_a_table(tmp_path, capsys):
    scores = dict(zip(ORDER, TABLE_10["SwD"][1], strict=True))
    for name, value in scores.items():
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        row = {name: [value / 100, [{"video_path": "a.mp4", "video_results": 1}]]}
        (folder / f"{name}_eval_results.json").write_text(json.dumps(row))
    main(["vbench", "collect", str(tmp_path / "results"), "--out", str(tmp_path / "out")])
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert table.startswith("| Total | Creativity | Commonsense")
    cells = [float(cell) for cell in table.splitlines()[2].strip("|").split("|")]
    assert cells[:6] == pytest.approx(TABLE_10["SwD"][0], abs=0.011)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["dimensions"]["Complex_Plot"] == pytest.approx(8.94)


def test_a_missing_or_impossible_score_is_refused(tmp_path, capsys):
    file, out = tmp_path / "one_eval_results.json", tmp_path / "out"
    for change, message in (({"Material": None}, "got 17, without Material"), ({"Material": 52.0}, "from 0 to 1")):
        scores = dict.fromkeys(DIMENSIONS, 0.5) | change
        file.write_text(json.dumps({name: [value] for name, value in scores.items() if value is not None}))
        with pytest.raises(SystemExit) as stop:
            main(["vbench", "collect", str(file), "--out", str(out)])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert not out.exists()


def test_videos_are_named_as_vbench_looks_for_them(tmp_path, capsys):
    prompts, out = tmp_path / "prompts", tmp_path / "videos"
    prompts.mkdir()
    long = "word " * 60
    (prompts / "Diversity.txt").write_text("A cat.\n")
    (prompts / "Mechanics.txt").write_text(f"{long}\nA cat.\n\n")
    main(["vbench", "prepare", str(prompts), "--out", str(out)])
    rows = [json.loads(line) for line in (out / "videos.jsonl").read_text().splitlines()]
    names = [row["file_name"] for row in rows]
    assert names[:20] == [f"Diversity/A cat.-{index}.mp4" for index in range(20)]
    assert names[20:23] == [f"Mechanics/{long[:180]}-{index}.mp4" for index in range(3)]
    assert rows[20]["text"] == long.strip()
    assert len(rows) == 26
    assert "0 of 26 videos are in" in capsys.readouterr().out
    (out / names[0]).write_bytes(b"clip")
    main(["vbench", "prepare", str(prompts), "--out", str(out)])
    assert "1 of 26 videos are in" in capsys.readouterr().out


def test_the_list_of_all_prompts_in_one_file_gives_the_same_videos(tmp_path):
    info = [{"prompt_en": "A cat.", "dimension": ["Diversity"]}, {"prompt_en": "A dog.", "dimension": ["Mechanics"]}]
    (tmp_path / "VBench2_full_info.json").write_text(json.dumps(info))
    videos = read_videos(tmp_path / "VBench2_full_info.json")
    assert [videos[0].file_name, videos[20].file_name] == ["Diversity/A cat.-0.mp4", "Mechanics/A dog.-0.mp4"]
    assert len(videos) == 23


def test_prompts_that_would_share_a_file_are_refused(tmp_path):
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "Mechanics.txt").write_text("x" * 180 + " a\n" + "x" * 180 + " b\n")
    with pytest.raises(ValueError, match="prompts that name files"):
        read_videos(prompts)
    (prompts / "Mechanics.txt").write_text("")
    with pytest.raises(ValueError, match="got none"):
        read_videos(prompts)
