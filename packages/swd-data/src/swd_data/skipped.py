"""Bad samples of a long work: skipped, counted, listed, until there are too many of them."""

import json
from pathlib import Path
from threading import Lock

from swd_data.errors import reason_of
from swd_data.files import write_text
from swd_data.whole import make_folder

FILE = "skipped.jsonl"


class Skipped:
    """Notes each bad sample and its reason in a file, a JSON line each, and says when it is enough.

    Threads may share it. Processes have one each, and files of their own.
    """

    def __init__(self, path: Path, total: int, share: float | int = 0.01) -> None:
        """Take the number of all samples, and the share of them that may be bad; 0: none."""
        self.path, self.total, self.share = path, total, share
        self.reasons: dict[str, str] = {}
        """By name; for reading."""
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, name: str, error: Exception) -> None:
        """Note a sample; one that was noted before counts once.

        Raises:
            ValueError: more than the share are bad; the first is named.
        """
        name, reason = _written(name), _written(reason_of(error))
        with self._lock:
            if name not in self.reasons:
                self._write(json.dumps({"file_name": name, "reason": reason}, ensure_ascii=False) + "\n")
                self.reasons[name] = reason
        if len(self) > self.share * self.total:
            first = next(iter(self.reasons.values()))
            if len(self) == 1:
                raise ValueError(first) from error
            raise ValueError(
                f"expected at most {self.share:.3g} of {self.total} samples to be bad, got {len(self)}, listed in "
                f"{self.path}: mend them, or allow more by --max-bad (swd-distill: --data.max-bad); the first: {first}"
            ) from error

    def _write(self, line: str) -> None:
        """Begin the file with the first line, and append the others: there may be many."""
        if not self.reasons:
            make_folder(self.path.parent)
            write_text(self.path, line)
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(line)

    def __str__(self) -> str:
        return f"{len(self)} of {self.total} samples are bad and left out: see {self.path}"


def _written(text: str) -> str:
    """Return a text that UTF-8 can hold, whatever the name of a file was made of."""
    return text.encode(errors="backslashreplace").decode()
