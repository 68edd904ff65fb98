"""Votes that raters saved from the page without a server."""

from collections.abc import Sequence
from pathlib import Path

from swd_data import read_rows
from swd_eval.study.pairs import VOTES, Key
from swd_eval.study.votes import RefusedError, Vote, Votes


def import_votes(folder: Path, paths: Sequence[Path]) -> str:
    """Take the votes of all files, or of none if a line is broken; votes that are there already are skipped."""
    key = Key.read(folder)
    found = [vote for path in paths for vote in _read(path, key)]
    votes = Votes(folder / VOTES, [pair.id for pair in key.pairs])
    try:
        new = votes.take(found)
    except RefusedError as error:
        raise ValueError(
            f"expected votes that were not changed in {', '.join(map(str, paths))}, got: {error}"
        ) from error
    finally:
        votes.close()
    return f"{new} new votes of {len({vote.rater for vote in found})} raters, {len(found) - new} known before"


def _read(path: Path, key: Key) -> list[Vote]:
    if path.suffix.lower() != ".jsonl":
        raise ValueError(f"expected votes as the page saves them (.jsonl), got {path}")
    known, votes = {pair.id for pair in key.pairs}, []
    for number, row in read_rows(path):
        try:
            vote = Vote.parse(row)
        except ValueError as error:
            raise ValueError(f"expected a vote in line {number} of {path}, got {str(row)[:60]}: {error}") from error
        if row.get("study") != key.study or vote.pair not in known:
            raise ValueError(f"expected votes of the study {key.study}, got {row.get('study')} in {path}")
        votes.append(vote)
    return votes
