"""Votes that raters saved from the page without a server."""

from collections.abc import Sequence
from pathlib import Path

from swd_data import read_rows
from swd_eval.study.pairs import VOTES, Key
from swd_eval.study.votes import RefusedError, Vote, Votes


def import_votes(folder: Path, paths: Sequence[Path], raters: Sequence[str] = ()) -> str:
    """Take the votes of all files, or of none if a line is broken; votes that are there already are skipped.

    A file holds those of one rater, as the page saves it; whose they are is said. With `raters` no others are taken.
    """
    key = Key.read(folder)
    by_file = {path: _read(path, key) for path in paths}
    names = {path: _rater_of(path, votes, raters) for path, votes in by_file.items()}
    found = [vote for votes in by_file.values() for vote in votes]
    votes = Votes(folder / VOTES, [pair.id for pair in key.pairs])
    try:
        new = votes.take(found)
    except RefusedError as error:
        raise ValueError(
            f"expected votes that were not changed in {', '.join(map(str, paths))}, got: {error}"
        ) from error
    finally:
        votes.close()
    lines = [f"{path}: {len(by_file[path])} votes of {name}" for path, name in names.items()]
    return "\n".join([*lines, f"{new} new votes of {len(set(names.values()))} raters, {len(found) - new} known before"])


def _rater_of(path: Path, votes: Sequence[Vote], raters: Sequence[str]) -> str:
    found = sorted({vote.rater for vote in votes})
    if len(found) != 1:
        raise ValueError(f"expected the votes of one rater in {path}, got {_few(found)}: one person may have made them")
    if raters and found[0] not in raters:
        raise ValueError(f"expected votes of --raters {_few(raters)} in {path}, got those of {found[0]!r}")
    return ascii(found[0])


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(ascii, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "none"


def _read(path: Path, key: Key) -> list[Vote]:
    if path.suffix.lower() != ".jsonl":
        raise ValueError(f"expected votes as the page saves them (.jsonl), got {path}")
    known, votes = {pair.id for pair in key.pairs}, []
    for number, row in read_rows(path):
        try:
            vote = Vote.parse(row)
        except ValueError as error:
            raise ValueError(f"expected a vote in line {number} of {path}, got {str(row)[:60]}: {error}") from error
        if row.get("study") != key.study:
            raise ValueError(
                f"expected votes of the study {key.study}, got those of another, {row.get('study')}, in line "
                f"{number} of {path}: import them into their own study"
            )
        if vote.pair not in known:
            raise ValueError(
                f"expected pairs of the study {key.study}, got {vote.pair!r:.40}, which it does not have, in line "
                f"{number} of {path}: get the file from the rater again"
            )
        votes.append(vote)
    return votes
