"""Votes that raters saved from the page without a server."""

import json
from collections.abc import Sequence
from pathlib import Path

from swd_eval.study.pairs import VOTES, Key
from swd_eval.study.votes import Vote, Votes


def import_votes(folder: Path, paths: Sequence[Path]) -> str:
    """Take the votes of all files, or of none if a line is broken; votes that are there already are skipped."""
    key = Key.read(folder)
    found = [vote for path in paths for vote in _read(path, key)]
    votes = Votes(folder / VOTES, [pair.id for pair in key.pairs])
    new = votes.take(found)
    votes.close()
    return f"{new} new votes of {len({vote.rater for vote in found})} raters, {len(found) - new} known before"


def _read(path: Path, key: Key) -> list[Vote]:
    known, votes = {pair.id for pair in key.pairs}, []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            vote = Vote.parse(row)
        except ValueError as error:
            raise ValueError(f"expected a vote in line {number} of {path}, got {line[:60]!r}: {error}") from error
        if row.get("study") != key.study or vote.pair not in known:
            raise ValueError(f"expected votes of the study {key.study}, got {row.get('study')} in {path}")
        votes.append(vote)
    return votes
