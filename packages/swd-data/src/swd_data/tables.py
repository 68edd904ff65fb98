"""Tables: .csv in any of its forms and .tsv, strict in quotes, each row as wide as the header."""

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path

from swd_data.texts import lines_of, read_text

DELIMITERS = ",;\t|"


def read_table(path: Path, wanted: Collection[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows under the first, with the line at which each begins and the header's names in lower case.

    A .csv is split at , ; | or a tab, whichever finds one of the `wanted` columns; a .tsv at tabs.

    Raises:
        ValueError: no wanted column, a column twice, a row of another width, or a quote that does not end.
    """
    text = read_text(path)
    if not text.strip():
        return []
    header, delimiter = _header(text, path, wanted)
    rows = []
    for number, cells in _records(text, delimiter, path):
        if len(cells) != len(header):
            raise ValueError(
                f"expected {len(header)} field(s) split at {delimiter!r} in line {number} of {path}, got {len(cells)}: "
                'put texts that hold it in quotes, "..."'
            )
        rows.append((number, dict(zip(header, cells, strict=True))))
    return rows[1:]


def _header(text: str, path: Path, wanted: Collection[str]) -> tuple[list[str], str]:
    """Return the names of the columns and the delimiter: of those that find a wanted column, the one of the most."""
    found: dict[str, list[str]] = {}
    for delimiter in "\t" if path.suffix.lower() == ".tsv" else DELIMITERS:
        try:
            cells = next((cells for _, cells in _records(text, delimiter, path)), [])
        except ValueError:  # quotes that are none with this one
            continue
        found[delimiter] = [cell.strip().casefold() for cell in cells]
    fitting = {delimiter: names for delimiter, names in found.items() if set(names) & set(wanted)}
    if not fitting:
        first = next(line.strip() for line in lines_of(text) if line.strip())
        best = max(found.values(), key=len, default=[first[:40]])
        raise ValueError(
            f"expected a column named {' or '.join(wanted)} in the first line of {path}, got "
            f"{', '.join(best) or 'no name'}: rename yours, or save prompts alone as .txt"
        )
    delimiter = max(fitting, key=lambda each: len(fitting[each]))
    names = fitting[delimiter]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"expected each column once in the first line of {path}, got {twice!r} twice")
    return names, delimiter


def _records(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of a table that are not empty, with the line at which each begins."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        reader, line = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"expected a table in {path}, got {error} in the record of line {line}") from error
    finally:
        csv.field_size_limit(limit)
