import random
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from swd_eval.study.assignment import LEASE_SECONDS
from swd_eval.study.criteria import CRITERIA
from swd_eval.study.votes import RefusedError, Vote, Votes

PAIRS = ["p0", "p1", "p2"]


@pytest.fixture
def votes(tmp_path):
    with closing(Votes(tmp_path / "votes.sqlite", PAIRS)) as store:
        yield store


def vote(number, rater, pair, criterion="relevance", answer=1):
    return Vote(f"vote-{number:04d}", rater, pair, criterion, answer)


def test_a_vote_sent_again_counts_once_and_says_the_same(votes):
    pair = votes.stand("a")["pair"]
    first, again = (votes.add(vote(1, "a", pair)) for _ in range(2))
    assert first == again == {"pair": pair, "left": 3, "wait": False}
    assert len(votes.answers()) == 1
    with pytest.raises(RefusedError, match="another vote came under the id"):
        votes.add(vote(1, "a", pair, answer=2))


def test_a_changed_answer_replaces_and_an_old_one_that_comes_late_does_not(votes):
    pair = votes.stand("a")["pair"]
    votes.add(vote(1, "a", pair, answer=1))
    votes.add(vote(2, "a", pair, "defects"))
    votes.add(vote(3, "a", pair, answer=2))
    votes.add(vote(1, "a", pair, answer=1))
    assert [(found.criterion, found.answer) for found in votes.answers("a")] == [("relevance", 2), ("defects", 1)]


def test_the_next_pair_comes_after_four_answers_and_none_after_all(votes):
    seen, number = [], 0
    while (pair := votes.stand("a")["pair"]) is not None:
        for criterion in CRITERIA:
            assert votes.stand("a")["pair"] == pair
            number += 1
            stand = votes.add(vote(number, "a", pair, criterion.id))
        seen.append(pair)
    assert sorted(seen) == PAIRS
    assert stand == {"pair": None, "left": 0, "wait": False}


def test_votes_on_pairs_of_others_are_refused(votes):
    pair = votes.stand("a")["pair"]
    other = next(name for name in PAIRS if name != pair)
    for name in (other, "unknown"):
        with pytest.raises(RefusedError, match="given to others"):
            votes.add(vote(1, "a", name))
    assert votes.answers() == []


def test_a_rater_who_has_to_wait_is_told_so_and_served_once_a_place_is_free(tmp_path):
    now = [0.0]
    with closing(Votes(tmp_path / "votes.sqlite", ["p0"], clock=lambda: now[0])) as votes:
        for rater in "abc":
            assert votes.stand(rater)["pair"] == "p0"
        assert votes.stand("d") == {"pair": None, "left": 1, "wait": True}
        now[0] = LEASE_SECONDS + 1
        assert votes.stand("d") == {"pair": "p0", "left": 1, "wait": False}


def test_the_store_survives_its_process_and_takes_two(tmp_path):
    with closing(Votes(tmp_path / "v", PAIRS)) as one, closing(Votes(tmp_path / "v", PAIRS)) as two:
        pair = one.stand("a")["pair"]
        assert two.stand("a")["pair"] == pair
        two.add(vote(1, "a", pair))
    with closing(Votes(tmp_path / "v", PAIRS)) as later:
        assert [answer.pair for answer in later.answers()] == [pair]


def test_what_is_no_vote_is_refused():
    good = {"id": "vote-0001", "rater": "a", "pair": "p", "criterion": "relevance", "answer": 0}
    assert Vote.parse(good | {"more": 1}) == Vote(**good)
    bad = [[], "vote", {}, good | {"answer": 3}, good | {"answer": True}, good | {"answer": "1"}, good | {"id": 7}]
    bad += [good | {"criterion": "beauty"}, good | {"id": "short"}, good | {"id": "x" * 65}, good | {"rater": ""}]
    for found in bad:
        with pytest.raises(ValueError, match="expected"):
            Vote.parse(found)


def test_whole_studies_end_with_three_answers_each(tmp_path):
    rng, pairs = random.Random(0), [f"p{index}" for index in range(12)]
    with closing(Votes(tmp_path / "v", pairs)) as votes:
        raters, number = list("abcdef"), 0
        while raters:
            rater = rng.choice(raters)
            stand = votes.stand(rater)
            if stand["pair"] is None:
                raters = [name for name in raters if name != rater or stand["wait"]]
                continue
            criterion = CRITERIA[sum(answer.pair == stand["pair"] for answer in votes.answers(rater))]
            number += 1
            votes.add(vote(number, rater, stand["pair"], criterion.id))
        assert len(votes.answers()) == number == 12 * 3 * len(CRITERIA)


def test_raters_at_several_processes_wait_for_each_other(tmp_path):
    pairs = [f"p{index}" for index in range(6)]

    def rate(rater):
        with closing(Votes(tmp_path / "v", pairs)) as votes:  # a connection each, as a process has
            while (pair := votes.stand(rater)["pair"]) is not None:
                for criterion in CRITERIA:
                    votes.add(Vote(f"{rater}-{pair}-{criterion.id}", rater, pair, criterion.id, 1))

    Votes(tmp_path / "v", pairs).close()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(rate, [f"rater-{number}" for number in range(8)]))
    with closing(Votes(tmp_path / "v", pairs)) as votes:
        places = Counter((answer.pair, answer.criterion) for answer in votes.answers())
    assert max(places.values()) == 3


def test_a_power_cut_at_any_byte_of_the_log_keeps_every_vote_that_was_acknowledged(tmp_path):
    """What is flushed when a vote is acknowledged is the log up to there; of the rest anything may be on the disk."""
    (tmp_path / "live").mkdir()
    path, ends, rng = tmp_path / "live" / "v", [], random.Random(0)
    with closing(Votes(path, PAIRS)) as votes:
        assert votes._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: the log is flushed at each commit
        assert votes._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        for number in range(8):
            votes.take([vote(number, f"rater-{number}", "p0")])
            ends.append((tmp_path / "live" / "v-wal").stat().st_size)
        data, log = path.read_bytes(), (tmp_path / "live" / "v-wal").read_bytes()
    cuts = [cut for end in ends for cut in (end - 1, end, end + 1, rng.randint(0, len(log)))] + [0, len(log)]
    for number, cut in enumerate(cut for cut in cuts if cut <= len(log)):
        for rest in (b"", bytes(len(log) - cut), rng.randbytes(len(log) - cut)):
            folder = tmp_path / f"cut-{number}-{rest[:1].hex()}"
            folder.mkdir(exist_ok=True)
            (folder / "v").write_bytes(data)
            (folder / "v-wal").write_bytes(log[:cut] + rest)
            with closing(Votes(folder / "v", PAIRS)) as found:
                raters = [answer.rater for answer in found.answers()]
            assert raters == [f"rater-{i}" for i in range(len(raters))]
            assert len(raters) >= sum(end <= cut for end in ends)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")
def test_a_vote_is_flushed_before_it_is_acknowledged(tmp_path):
    code = """
import sys
from swd_eval.study.votes import Vote, Votes
votes = Votes(sys.argv[1], ["p0"])
for number in range(3):
    votes.take([Vote(f"vote-{number:04d}", f"rater-{number}", "p0", "relevance", 1)])
    print("acknowledged", flush=True)
"""
    calls = "trace=fsync,fdatasync,pwrite64,write"
    command = ["strace", "-f", "-y", "-e", calls, "-o", tmp_path / "trace", sys.executable, "-c", code, tmp_path / "v"]
    traced = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if traced.returncode:
        pytest.skip(f"strace may not trace here: {traced.stderr.strip()[-100:]}")
    events = []
    for line in (tmp_path / "trace").read_text().splitlines():
        if "v-wal>" in line:
            events.append("flush" if "sync(" in line else "write")
        elif '"acknowledged' in line:
            events.append("acknowledged")
    assert events.count("acknowledged") == 3
    for place, event in enumerate(events):
        if event == "acknowledged":
            before = [each for each in events[:place] if each != "acknowledged"]
            assert before[-1] == "flush"
            assert "write" in before
