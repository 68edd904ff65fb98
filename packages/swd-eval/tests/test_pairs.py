from collections import Counter
from pathlib import Path

from hypothesis import given, strategies as st

from swd_eval.study.pairs import Key, draw_items, draw_pairs
from swd_eval.study.sources import Item


def make_items(num_prompts, repeats=1, num_runs=2):
    return [
        Item(f"{p}-{r}", f"prompt {p}", tuple(Path(f"{run}/{p}-{r}.png") for run in range(num_runs)))
        for p in range(num_prompts)
        for r in range(repeats)
    ]


@given(st.integers(1, 30), st.integers(2, 4), st.integers(0, 2**53))
def test_the_first_run_meets_each_other_once_an_item_on_each_side_equally_often(num_prompts, num_runs, seed):
    pairs = draw_pairs(make_items(num_prompts, num_runs=num_runs), seed, ".png")
    for other in range(1, num_runs):
        mine = [pair for pair in pairs if other in pair.runs]
        assert Counter(pair.item for pair in mine) == Counter(f"{p}-0" for p in range(num_prompts))
        assert all(sorted(pair.runs) == [0, other] for pair in mine)
        assert sum(pair.runs[0] == 0 for pair in mine) == num_prompts // 2
    names = [name for pair in pairs for name in pair.media]
    assert len({pair.id for pair in pairs}) == len(pairs)
    assert len(set(names)) == len(names)


def test_a_seed_gives_the_same_pairs_and_another_seed_others():
    items = make_items(40)
    assert draw_pairs(items, 5, ".png") == draw_pairs(items, 5, ".png")
    sides = [{pair.item: pair.runs for pair in draw_pairs(items, seed, ".png")} for seed in (5, 6)]
    assert sides[0] != sides[1]


def test_at_most_so_many_prompts_and_images_are_drawn():
    items = make_items(200, repeats=3)
    drawn = draw_items(items, 1, 128, 2)
    assert len(drawn) == 256
    assert set(Counter(item.prompt for item in drawn).values()) == {2}
    assert drawn != draw_items(items, 2, 128, 2)
    assert draw_items(make_items(3), 1, 128, 2) == make_items(3)


def test_a_key_comes_back_from_its_file(tmp_path):
    key = Key("study", "image", 2**53 - 1, ("a", "b"), tuple(draw_pairs(make_items(3), 0, ".png")))
    (tmp_path / "key.json").write_text(key.to_json(), encoding="utf-8")
    assert Key.read(tmp_path) == key
