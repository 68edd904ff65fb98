"""Words that a model which ships has never seen: it was trained on captions of few words."""

import logging
import re
import sys
from collections.abc import Iterable, Sequence

from swd_models.loading import shipped_prompts

MOST = 8


def unknown_words(model: str, prompts: Iterable[str]) -> list[str]:
    """Return the words of prompts that none of a model's own has, in their order; none of a model that ships none."""
    unseen = shipped_prompts(model, unseen=True)
    known = {word for prompt in [*shipped_prompts(model), *unseen] for word in _words(prompt)}
    found = (word for prompt in prompts for word in _words(prompt) if word not in known)
    return list(dict.fromkeys(found)) if unseen else []


def tell_unknown(model: str, prompts: Sequence[str]) -> None:
    """Say on stderr which words a model does not know; CLIP, to which they are many letters, then says no more."""
    if words := unknown_words(model, prompts):
        shown = ", ".join(words[:MOST]) + ", ..." * (len(words) > MOST)
        like = shipped_prompts(model, unseen=True)[0]
        print(f"{model} knows the words of its own captions alone, not {shown}: try {like!r}", file=sys.stderr)
        for name in ("diffusers", "transformers"):
            logging.getLogger(name).setLevel(logging.ERROR)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())
