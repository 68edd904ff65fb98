"""A folder for a study: public/ with the page and its media, and beside it the key, the tokens, later the votes."""

import secrets
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from PIL.Image import fromarray

from swd_data import Clip, open_image, whole_folder, write_text, write_video
from swd_data.decoding import is_playable
from swd_data.layout import samples_of
from swd_eval.study.page import render_page
from swd_eval.study.pairs import KEY, PUBLIC, RATERS, Key, draw_items, draw_pairs
from swd_eval.study.sources import Item, kind_of, read_items

SECRET = 0o600
"""For the owner alone: others on the machine could tell the models apart, or vote for raters."""


def build_study(
    runs: Sequence[Path],
    out: Path,
    prompts: Path | None = None,
    *,
    num_prompts: int = 128,
    per_prompt: int = 2,
    num_raters: int = 3,
    seed: int | None = None,
) -> str:
    """Write a study, whole or not at all, and return what to do with it."""
    if out.exists() or out.is_symlink():
        raise ValueError(f"expected a new folder as --out, got {out}, which exists: votes may be in it")
    if min(num_prompts, per_prompt, num_raters) < 1:
        raise ValueError("expected --num-prompts, --per-prompt and --raters of at least 1")
    seed, named, runs = secrets.randbits(53) if seed is None else seed, runs, [samples_of(run) for run in runs]
    items = draw_items(read_items(runs, prompts), seed, num_prompts, per_prompt)
    _names(runs)  # a run and its own samples are one twice
    kind = kind_of(items)
    suffix = ".png" if kind == "image" else items[0].files[0].suffix.lower()
    pairs = draw_pairs(items, seed, suffix)
    key = Key(secrets.token_hex(6), kind, seed, _names(named), tuple(pairs))
    with whole_folder(out, KEY) as temporary:
        _write(temporary, key, items, num_raters)
    return (
        f"{len(pairs)} pairs of {key.runs[0]} against {', '.join(key.runs[1:])}\ntokens: {out / RATERS}\n"
        f"next: swd-eval study serve {out}, or give raters the folder {out / PUBLIC}"
    )


def _write(folder: Path, key: Key, items: Sequence[Item], num_raters: int) -> None:
    media = folder / PUBLIC / "media"
    media.mkdir(parents=True)
    files = {item.name: item.files for item in items}
    for pair in key.pairs:  # in the order shown, so that not even the times of the files tell
        for run, name in zip(pair.runs, pair.media, strict=True):
            _copy(files[pair.item][run], media / name, key.kind)
    (folder / PUBLIC / "index.html").write_text(render_page(key), encoding="utf-8")
    tokens = [secrets.token_urlsafe(9) for _ in range(num_raters)]
    write_text(folder / KEY, key.to_json(), SECRET)
    write_text(folder / RATERS, "\n".join(tokens) + "\n", SECRET)


def _copy(source: Path, target: Path, kind: str) -> None:
    """Save images again, as they look: format, EXIF, text chunks (model names) would tell the models apart.

    Videos are published as they are, or written again where some browser would not play them.
    """
    if kind == "image":
        open_image(source).save(target)
        return
    clip = Clip.open(source)
    if target.suffix == ".webm" or is_playable(source):
        shutil.copyfile(source, target)
    else:
        rate = Fraction(clip.fps).limit_denominator(1001)
        write_video(target, map(fromarray, clip.every()), rate, playable=True)


def _names(runs: Sequence[Path]) -> tuple[str, ...]:
    """Call runs by their folders, with as many parents as tell them apart: a/images, b/images."""
    parts = [run.resolve().parts for run in runs]
    if len(set(parts)) < len(parts):
        raise ValueError(f"expected different folders, got one twice: {', '.join(map(str, runs))}")
    return next(
        names
        for depth in range(1, max(map(len, parts)) + 1)
        for names in [tuple("/".join(part[-depth:]) for part in parts)]
        if len(set(names)) == len(names)
    )
