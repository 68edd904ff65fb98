"""The page of a study: one HTML file with its style, script and data inside."""

import hashlib
import json
from base64 import b64encode
from importlib.resources import files

from swd_eval.study.criteria import CRITERIA
from swd_eval.study.pairs import Key


def render_page(key: Key) -> str:
    """Return the HTML, which holds prompts and media names, and nothing of the key."""
    assets = files("swd_eval.study") / "assets"
    html, style, script = ((assets / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    data = {
        "id": key.study,
        "kind": key.kind,
        "criteria": [
            {"id": c.id, "name": c.name, "question": c.question.format(noun=key.kind), "hint": c.hint} for c in CRITERIA
        ],
        "pairs": [{"id": pair.id, "prompt": pair.prompt, "media": pair.media} for pair in key.pairs],
    }
    # In a script element only `<` could end the data early; in JSON it may be written so.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    parts = {
        "{{script-hash}}": _hash(script),
        "{{style-hash}}": _hash(style),
        "{{noun}}": key.kind,
        "{{Noun}}": key.kind.capitalize(),
        "{{style}}": style,
        "{{script}}": script,
        "{{study}}": text,  # last: no mark in a prompt is replaced
    }
    for mark, value in parts.items():
        html = html.replace(mark, value)
    return html


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
