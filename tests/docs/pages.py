"""The pages that people read, as what they tell to type: blocks of commands and of Python, in order.

A comment above a block says why it is not run here, or by which test it is:

    <!-- not run here: needs a GPU -->

A comment `<!-- given: runs/tiny -->` at the top of a page says what is there before its first block.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUTSIDE = {".venv", ".nox", "runs", "build", "results", "node_modules"}
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*.md")
    if not OUTSIDE & set(parts := path.relative_to(ROOT).parts) and not any(part.startswith(".") for part in parts)
)
REASONS = {
    "needs a GPU", "needs the hub", "needs a network", "needs ComfyUI", "serves until stopped", "takes hours",
    "needs weights", "needs several machines", "needs raters' votes", "this is what CI runs",
}  # fmt: skip
BLOCK = re.compile(
    r"(?:<!-- not run here: (?P<reason>[^\n]*?) -->\n\n?)?^(?P<indent> *)```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
GIVEN = re.compile(r"<!-- given: (.*?) -->")


@dataclass(frozen=True)
class Block:
    """A block of a page."""

    kind: str
    text: str
    reason: str | None
    line: int

    @property
    def commands(self) -> list[str]:
        """Return its command lines, each whole."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of a page."""
    found = []
    for match in BLOCK.finditer(text):
        lines = [line.removeprefix(match["indent"]) for line in match["text"].splitlines()]
        place = text.count("\n", 0, match.start()) + 1
        found.append(Block(match["kind"], "\n".join(lines) + "\n", match["reason"], place))
    return found


def given(text: str) -> list[str]:
    """Return what a page says is there before it begins."""
    return [name for match in GIVEN.findall(text) for name in match.split()]
