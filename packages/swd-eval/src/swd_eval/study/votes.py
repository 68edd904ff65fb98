"""Votes in SQLite: on disk before they are acknowledged, each counted once however often it is sent."""

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from swd_data import reading
from swd_eval.study.assignment import LEASE_SECONDS, Assignment, choose, may_answer, num_left
from swd_eval.study.criteria import CRITERIA, FIRST, SECOND, TIE

TABLES = """
CREATE TABLE IF NOT EXISTS votes (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, rater TEXT NOT NULL, pair TEXT NOT NULL, criterion TEXT NOT NULL,
  answer INTEGER NOT NULL, received REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS votes_of_rater ON votes (rater, pair, criterion, seq);
CREATE TABLE IF NOT EXISTS assignments (
  pair TEXT NOT NULL, rater TEXT NOT NULL, expires REAL NOT NULL, finished INTEGER NOT NULL, PRIMARY KEY (pair, rater)
) STRICT;
"""
# Of several answers of a rater to a question the last one counts, in the place of the first.
ANSWERS = """
SELECT rater, pair, criterion, answer FROM (
  SELECT rater, pair, criterion, answer, seq, MIN(seq) OVER question AS first, MAX(seq) OVER question AS last FROM votes
  WHERE rater = ?1 OR ?1 IS NULL WINDOW question AS (PARTITION BY rater, pair, criterion)
) WHERE seq = last ORDER BY first
"""
INSERT = """
INSERT INTO votes (id, rater, pair, criterion, answer, received) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING
"""
LEASE = """
INSERT INTO assignments SELECT ?1, ?2, ?3, COUNT(DISTINCT criterion) = ?4 FROM votes WHERE pair = ?1 AND rater = ?2
ON CONFLICT DO UPDATE SET expires = excluded.expires, finished = MAX(finished, excluded.finished)
"""
PART, PAUSE = 5000, 0.05
"""Votes of one transaction, for about a tenth of a second, and seconds after it, in which others have their turn."""
FIELDS = {"id": str, "rater": str, "pair": str, "criterion": str, "answer": int}


class RefusedError(ValueError):
    """A vote that was understood and is not taken."""


@dataclass(frozen=True)
class Vote:
    """One answer of one rater; sending it again under its id changes nothing, another id replaces the answer."""

    id: str
    rater: str
    pair: str
    criterion: str
    answer: int

    @classmethod
    def parse(cls, found: Any) -> "Vote":
        """Read a vote from decoded JSON."""
        if not isinstance(found, dict) or any(type(found.get(name)) is not kind for name, kind in FIELDS.items()):
            raise ValueError(f"expected an object with {', '.join(FIELDS)}")
        vote = cls(**{name: found[name] for name in FIELDS})
        if not 8 <= len(vote.id) <= 64 or not 1 <= len(vote.rater) <= 64:
            raise ValueError("expected an id of 8 to 64 and a rater of 1 to 64 characters")
        if vote.criterion not in {criterion.id for criterion in CRITERIA} or vote.answer not in {TIE, FIRST, SECOND}:
            raise ValueError("expected a known criterion and an answer of 0, 1 or 2")
        return vote


@dataclass(frozen=True)
class Answer:
    """What counts of a rater's votes on one question."""

    rater: str
    pair: str
    criterion: str
    answer: int


class Votes:
    """The votes and assignments of one study, for many threads, and for other processes at the same file."""

    def __init__(self, path: Path, pairs: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        """Open a file, which is made if there is none, for its owner alone.

        Raises:
            ValueError: it is no file of votes, or cannot be written.
        """
        self.pairs, self.clock, self._lock = pairs, clock, Lock()
        with reading(path, "a file of votes that can be written", sqlite3.Error):
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(TABLES)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(self, vote: Vote) -> dict[str, Any]:
        """Take a vote; return where its rater stands, once all is on disk.

        Raises:
            RefusedError: the pair is not this rater's, or other votes came under this id.
        """
        with self._transaction():
            if not self._is_repeated(vote):
                assignments = self._assignments()
                if not may_answer(assignments, vote.pair, vote.rater, self.clock()):
                    raise RefusedError("this pair was given to others")
                self._insert([vote])
            return self._stand(vote.rater)

    def stand(self, rater: str) -> dict[str, Any]:
        """Give a rater a pair, and return it, how many are left at most, and whether to wait for others."""
        with self._transaction():
            return self._stand(rater)

    def take(self, votes: Sequence[Vote]) -> int:
        """Take votes given elsewhere, on whichever pairs; return how many are new.

        In parts, so that a server beside it does not wait: after a kill take them again.

        Raises:
            RefusedError: other votes came under one of the ids; then none is taken.
        """
        with self._lock:
            rows = self._db.execute(f"SELECT {', '.join(FIELDS)} FROM votes")
            known = {row[0]: Vote(*row) for row in rows}
        new = []
        for vote in votes:
            if vote.id not in known:
                new.append(vote)
            elif known[vote.id] != vote:
                raise RefusedError(f"another vote came under the id {vote.id}")
            known[vote.id] = vote
        for start in range(0, len(new), PART):
            with self._transaction():
                self._insert(new[start : start + PART])
            time.sleep(PAUSE)
        return len(new)

    def answers(self, rater: str | None = None) -> list[Answer]:
        """Return the answers that count, of one rater or all, in the order in which they were first given."""
        with self._lock:
            return _answers(self._db, rater)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _is_repeated(self, vote: Vote) -> bool:
        query = f"SELECT {', '.join(FIELDS)} FROM votes WHERE id = ?"
        row = self._db.execute(query, (vote.id,)).fetchone()
        if row and row != astuple(vote):
            raise RefusedError(f"another vote came under the id {vote.id}")
        return row is not None

    def _insert(self, votes: Sequence[Vote]) -> None:
        now = self.clock()
        self._db.executemany(INSERT, [(*astuple(vote), now) for vote in votes])
        self._lease({(vote.pair, vote.rater) for vote in votes})

    def _stand(self, rater: str) -> dict[str, Any]:
        assignments = self._assignments()
        pair = choose(self.pairs, assignments, rater, self.clock())
        left = num_left(self.pairs, assignments, rater)
        if pair is not None:
            self._lease([(pair, rater)])
        return {"pair": pair, "left": left, "wait": pair is None and left > 0}

    def _lease(self, places: Iterable[tuple[str, str]]) -> None:
        expires = self.clock() + LEASE_SECONDS
        self._db.executemany(LEASE, [(pair, rater, expires, len(CRITERIA)) for pair, rater in places])

    def _assignments(self) -> list[Assignment]:
        rows = self._db.execute("SELECT pair, rater, expires, finished FROM assignments").fetchall()
        return [Assignment(pair, rater, expires, bool(finished)) for pair, rater, expires, finished in rows]


def read_answers(path: Path) -> list[Answer]:
    """Return the answers that count of all raters, as `Votes.answers`; none without a file. Nothing is written.

    Raises:
        ValueError: it is no file of votes.
    """
    if not path.exists():
        return []
    with reading(path, "a file of votes", sqlite3.Error):
        try:
            return _read(path)
        except sqlite3.OperationalError:  # votes that a killed server left in the log need a folder to be written to
            with tempfile.TemporaryDirectory() as folder:
                for each in (path, path.with_name(f"{path.name}-wal")):
                    if each.exists():
                        shutil.copyfile(each, Path(folder) / each.name)
                return _read(Path(folder) / path.name)


def _read(path: Path) -> list[Answer]:
    # Without a log nobody has it open: then not even SQLite's own files need to be made beside it.
    how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{how}", timeout=30, uri=True)) as db:
        return _answers(db, None)


def _answers(db: sqlite3.Connection, rater: str | None) -> list[Answer]:
    return [Answer(*row) for row in db.execute(ANSWERS, (rater,))]
