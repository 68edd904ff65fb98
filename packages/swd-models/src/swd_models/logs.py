"""What other libraries say while they are imported, load and encode: once, and only what a user can make use of."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_IMPORTED = ("bitsandbytes", "diffusers.quantizers", "torch.utils._pytree", "transformers.utils.import_utils")
"""They warn of each other, whatever is computed. What a base needs of them, `check_base` tells."""
_LOADING = ("diffusers", "transformers")
_ONCE = ("warning_once", "warning_advice")
_lock = threading.Lock()
_within: list[tuple[bool, bool]] = []
"""How bars were before the first of those who load now, in whatever thread."""


class Once(logging.Filter):
    """Let each warning of a library through once, whatever it is about: by the line of code that says it.

    Errors are no repetitions. What libraries themselves say once has its text to tell it by, not its line.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said: set[tuple[str, int] | str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether it is said for the first time."""
        if record.levelno > logging.WARNING:
            return True
        once = record.funcName in _ONCE
        place = record.getMessage() if once else (record.pathname, record.lineno)
        new = place not in self.said
        self.said.add(place)
        return new


def hush_imports() -> None:
    """Silence what libraries say while they are imported; before that."""
    for name in _IMPORTED:
        logging.getLogger(name).setLevel(logging.ERROR)


def quiet() -> None:
    """Silence loading bars and repetitions of diffusers and transformers, for commands that show bars of their own."""
    hush_imports()
    _set_bars(False, False)
    for name in _LOADING:
        for handler in logging.getLogger(name).handlers:
            if not any(isinstance(each, Once) for each in handler.filters):
                handler.addFilter(Once())


@contextmanager
def without_bars() -> Iterator[None]:
    """Load without bars, which come one for each part; those of downloads stay."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    with _lock:
        now = diffusers_logging.is_progress_bar_enabled(), transformers_logging.is_progress_bar_enabled()
        _within.append(_within[0] if _within else now)
        _set_bars(False, False)
    try:
        yield
    finally:
        with _lock:
            before = _within.pop()
            if not _within:
                _set_bars(*before)


def _set_bars(diffusers: bool, transformers: bool) -> None:
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils import _tqdm as hub
    from transformers.utils import logging as transformers_logging

    downloads = dict(hub.progress_bar_states)
    (diffusers_logging.enable_progress_bar if diffusers else diffusers_logging.disable_progress_bar)()
    with warnings.catch_warnings(action="ignore"):  # of a variable of the hub's, which has priority
        (transformers_logging.enable_progress_bar if transformers else transformers_logging.disable_progress_bar)()
    hub.progress_bar_states.clear()  # transformers has set these too
    hub.progress_bar_states.update(downloads)
