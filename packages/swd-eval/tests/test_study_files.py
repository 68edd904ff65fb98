"""What a study takes from files: votes of others, keys of any shape, folders that may not be written to."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import swd_eval.study.votes
from swd_data import Clip, cell, write_video as write_clip
from swd_data.decoding import is_playable
from swd_eval.cli import main
from swd_eval.study.build import build_study
from swd_eval.study.criteria import CRITERIA
from swd_eval.study.pairs import Key
from swd_eval.study.report import render_table
from swd_eval.study.tally import tally
from swd_eval.study.votes import PART, Vote, Votes, read_answers


@pytest.fixture
def refused(capsys):
    """Expect exit code 2 and one line; give the line."""

    def call(*argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(["study", *map(str, argv)])
        error = capsys.readouterr().err
        assert stopped.value.code == 2
        assert error.startswith("swd-eval: error: expected ")
        assert error.count("\n") == 1
        return error

    return call


def write_votes(folder, path, raters):
    key = Key.read(folder)
    rows = (
        {"id": f"{rater}-{pair.id}-{criterion.id}", "study": key.study, "rater": rater, "pair": pair.id, "answer": 1}
        | {"criterion": criterion.id}
        for rater in raters
        for pair in key.pairs
        for criterion in CRITERIA
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_of_invented_raters_decides_nothing(make_study, tmp_path, refused):
    folder = make_study(2)
    path = write_votes(folder, tmp_path / "votes.jsonl", ["one", "two", "three", "four"])
    assert "expected the votes of one rater in" in (line := refused("import", folder, path))
    assert "'four', 'one', 'three' and 1 more" in line
    (tmp_path / "none.jsonl").write_text("")
    assert "got none" in refused("import", folder, tmp_path / "none.jsonl")
    assert read_answers(folder / "votes.sqlite") == []


def test_only_raters_of_the_list_are_taken_and_all_are_named(make_study, tmp_path, refused, capsys):
    folder = make_study(1)
    paths = [write_votes(folder, tmp_path / f"{name}.jsonl", [name]) for name in ("anna", "b\x1b[31mob")]
    assert "expected votes of --raters 'anna', 'carl' in" in refused(
        "import", folder, *paths, "--raters", "anna", "carl"
    )
    assert read_answers(folder / "votes.sqlite") == []
    main(["study", "import", str(folder), *map(str, paths)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{paths[0]}: 4 votes of 'anna'", f"{paths[1]}: 4 votes of 'b\\x1b[31mob'", lines[2]]
    assert {answer.rater for answer in read_answers(folder / "votes.sqlite")} == {"anna", "b\x1b[31mob"}


def votes_of_many(num):
    return [Vote(f"vote-{i:08d}", f"rater-{i % 30}", f"pair-{i % 2500}", "relevance", i % 3) for i in range(num)]


def test_many_votes_come_in_parts_between_which_a_server_answers(tmp_path, monkeypatch):
    votes, seen = votes_of_many(4 * PART), []

    def num_votes():
        with closing(sqlite3.connect(tmp_path / "v")) as db:
            return db.execute("SELECT COUNT(*) FROM votes").fetchone()[0]

    with closing(Votes(tmp_path / "v", [])) as store, closing(Votes(tmp_path / "v", ["p0"])) as served:

        def answer(seconds):  # in the pause after a part: it would wait for ever if the file were still locked
            assert seconds > 0
            served.stand("rater-x")
            seen.append(num_votes())

        monkeypatch.setattr(swd_eval.study.votes, "time", SimpleNamespace(sleep=answer))
        assert store.take(votes) == len(votes)
        assert store.take(votes) == 0
    assert seen == [PART, 2 * PART, 3 * PART, 4 * PART]
    assert num_votes() == len(votes)


def test_parts_that_were_taken_before_a_kill_count_once(tmp_path, monkeypatch):
    votes = votes_of_many(3 * PART)
    with closing(Votes(tmp_path / "v", [])) as store:
        with monkeypatch.context() as broken:
            insert, calls = store._insert, []

            def fail(few):
                calls.append(few)
                if len(calls) == 2:
                    raise KeyboardInterrupt
                insert(few)

            broken.setattr(store, "_insert", fail)
            with pytest.raises(KeyboardInterrupt):
                store.take(votes)
        assert store.take(votes) == 2 * PART
        assert len(store.answers()) == len({(v.rater, v.pair, v.criterion) for v in votes})


def test_an_imported_pair_is_finished_once_all_criteria_are_answered(tmp_path):
    with closing(Votes(tmp_path / "v", ["p0"])) as store:
        for name in "ab":
            store.take([Vote(f"{name}-{each.id}-0", name, "p0", each.id, 1) for each in CRITERIA])
        store.take([Vote("c-0000000", "c", "p0", CRITERIA[0].id, 1)])
        finished = {each.rater: each.finished for each in store._assignments()}
    assert finished == {"a": True, "b": True, "c": False}


@pytest.mark.skipif(os.name == "nt", reason="permissions are another matter there")
def test_key_tokens_and_votes_are_for_their_owner_alone(make_study):
    folder = make_study(1)
    Votes(folder / "votes.sqlite", []).close()
    for name in ("key.json", "raters.txt", "votes.sqlite"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name


@pytest.mark.parametrize("data", [b"no database at all", b"SQLite format 3\0" + b"\xff" * 2000, b"SQLite format 3\0"])
def test_a_file_of_another_kind_is_one_line(make_study, tmp_path, refused, data):
    folder = make_study(1)
    (folder / "votes.sqlite").write_bytes(data)
    assert "votes.sqlite" in refused("report", folder)
    assert "votes.sqlite" in refused("serve", folder, "--port", 0)
    assert "votes.sqlite" in refused("import", folder, write_votes(folder, tmp_path / "a.jsonl", ["anna"]))
    assert (folder / "votes.sqlite").read_bytes() == data


def test_a_database_of_another_program_is_one_line_and_stays(make_study, refused):
    folder = make_study(1)
    with closing(sqlite3.connect(folder / "votes.sqlite")) as db:
        db.execute("CREATE TABLE votes (name TEXT)")
    assert "votes.sqlite" in refused("report", folder)
    assert "votes.sqlite" in refused("serve", folder, "--port", 0)


KILLED = """
import os, sys
from swd_eval.study.votes import Vote, Votes
votes = Votes(sys.argv[1], ["p0"])
votes.take([Vote("vote-0001", "anna", "p0", "relevance", 2)])
os._exit(9)
"""


@pytest.mark.parametrize("when", ["closed", "killed", "none"])
def test_a_report_writes_nothing_into_the_study(make_study, tmp_path, when, capsys):
    folder = make_study(1)
    pair = Key.read(folder).pairs[0].id
    if when == "closed":
        with closing(Votes(folder / "votes.sqlite", [pair])) as votes:
            votes.take([Vote("vote-0001", "anna", pair, "relevance", 2)])
    elif when == "killed":
        subprocess.run([sys.executable, "-c", KILLED.replace("p0", pair), folder / "votes.sqlite"])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    folder.chmod(0o500)
    try:
        main(["study", "report", str(folder), "--out", str(tmp_path / "out")])
    finally:
        folder.chmod(0o700)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["votes"] == (0 if when == "none" else 1)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "-shm" not in path.name}
    assert after == {path: data for path, data in before.items() if "-shm" not in path.name}


def test_votes_that_may_not_be_written_to_are_copied_to_be_read(tmp_path, monkeypatch):
    """As root nothing may not be written: the first attempt fails here as it does for others."""
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "v"])
    connect, opened = sqlite3.connect, []

    def fail_once(name, **options):
        opened.append(name)
        if len(opened) == 1:
            raise sqlite3.OperationalError("unable to open database file")
        return connect(name, **options)

    monkeypatch.setattr(sqlite3, "connect", fail_once)
    assert [answer.rater for answer in read_answers(tmp_path / "v")] == ["anna"]
    assert str(tmp_path) not in opened[1]


def change(**fields):
    return lambda key: key | fields


def in_pair(**fields):
    return lambda key: key | {"pairs": [key["pairs"][0] | fields]}


@pytest.mark.parametrize(
    "harm",
    [
        change(pairs={}),
        change(pairs=[1]),
        change(pairs="abc"),
        change(pairs=None),
        change(runs=3),
        change(runs=[1, 2]),
        change(study=7),
        change(seed="x"),
        change(seed=[]),
        change(kind=None),
        in_pair(runs=[0]),
        in_pair(runs=[0, 5]),
        in_pair(runs=[0, 0]),
        in_pair(runs=["0", "1"]),
        in_pair(media=["../key.json", "../raters.txt"]),
        in_pair(media=["0123456789abcdef.png"]),
        in_pair(media=["0123456789abcdef.html", "0123456789abcdef.png"]),
        in_pair(media=[["0123456789abcdef.png"], "0123456789abcdef.png"]),
        in_pair(prompt=None),
        in_pair(id=3),
        lambda key: {name: value for name, value in key.items() if name != "study"},
        lambda key: [key],
        lambda key: "key",
    ],
)
def test_a_key_of_another_shape_is_one_line(make_study, refused, harm):
    folder = make_study(1)
    (folder / "key.json").write_text(json.dumps(harm(json.loads((folder / "key.json").read_text()))))
    for command in (["report", folder], ["serve", folder, "--port", 0]):
        assert "key.json" in refused(*command)


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_port_that_is_none_is_one_line(make_study, refused, port):
    assert "expected --port from 0 to 65535" in refused("serve", make_study(1), "--port", port)


def test_a_port_that_is_taken_is_one_line(make_study, serving, capsys):
    folder = make_study(1)
    with serving(folder) as server, pytest.raises(SystemExit) as stopped:
        main(["study", "serve", str(folder), "--port", server.url.rstrip("/").split(":")[-1]])
    assert stopped.value.code == 2
    assert "in use" in capsys.readouterr().err


def test_names_of_folders_are_no_html_and_no_links_in_a_table(make_study):
    key = Key.read(make_study(1))
    runs = ("<script>alert(1)</script>", "[here](javascript:alert(1))|`x`\n# title")
    key = Key(key.study, key.kind, key.seed, runs, key.pairs)
    table = render_table(key, tally(key, []))
    assert "<script>" not in table
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in table
    assert cell(runs[1]) == "\\[here\\](javascript:alert(1))\\|\\`x\\` # title"
    assert cell(runs[1]) in table
    assert cell("my_model-v1.5") == "my_model-v1.5"


def clips(tmp_path, write_video):
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    for run in "ab":
        write_video(tmp_path / run / "1.mp4", frames)
    (tmp_path / "prompts.txt").write_text("a wave\n")
    return [tmp_path / "a", tmp_path / "b"]


def test_a_study_publishes_clips_that_every_browser_plays(tmp_path, write_video):
    runs = clips(tmp_path, write_video)  # one in RGB, one as swd-sample writes them: 4:4:4
    frames = [Image.effect_noise((64, 64), 20).convert("RGB") for _ in range(3)]
    write_clip(tmp_path / "b" / "1.mp4", frames, 16)
    build_study(runs, tmp_path / "study", tmp_path / "prompts.txt")
    published = sorted((tmp_path / "study" / "public" / "media").iterdir())
    assert len(published) == 2
    assert all(map(is_playable, published))
    assert sorted(Clip.open(path).num_frames for path in published) == [2, 3]
    assert {round(Clip.open(path).fps) for path in published} == {8, 16}
    write_clip(tmp_path / "a" / "1.mp4", frames, 16, playable=True)
    build_study(runs, tmp_path / "again", tmp_path / "prompts.txt")
    whole = (tmp_path / "a" / "1.mp4").read_bytes()
    assert whole in [path.read_bytes() for path in (tmp_path / "again" / "public" / "media").iterdir()]


def test_a_study_publishes_no_file_that_is_no_clip(tmp_path, write_video):
    runs = clips(tmp_path, write_video)
    (tmp_path / "b" / "1.mp4").write_text("a password")
    with pytest.raises(ValueError, match=r"expected a video, got .*1.mp4"):
        build_study(runs, tmp_path / "study", tmp_path / "prompts.txt")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("target", ["/etc/hostname", "../private.mp4"])
def test_a_study_publishes_nothing_that_a_link_leads_to(tmp_path, write_video, target):
    runs = clips(tmp_path, write_video)
    (tmp_path / "private.mp4").write_bytes((tmp_path / "a" / "1.mp4").read_bytes())
    (tmp_path / "b" / "1.mp4").unlink()
    (tmp_path / "b" / "1.mp4").symlink_to(target)
    with pytest.raises(ValueError, match=r"expected files within .*b, got .*1.mp4, which leads to"):
        build_study(runs, tmp_path / "study", tmp_path / "prompts.txt")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("name", ["../private.png", "/etc/hostname", "deep/../../private.png"])
def test_a_study_publishes_nothing_that_metadata_names_outside(tmp_path, write_run, name):
    a, b = (write_run(tmp_path / run, ["x"], ["a cat"]) for run in "ab")
    Image.new("RGB", (8, 8)).save(tmp_path / "private.png")
    (b / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "a cat"}) + "\n")
    with pytest.raises(ValueError, match="expected a name within the folder"):
        build_study([a, b], tmp_path / "study")
    assert not Path(tmp_path / "study").exists()
