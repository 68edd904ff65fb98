"""What other libraries say while they are imported, load and encode: once, and only what a user can make use of."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_IMPORTED = ("bitsandbytes", "diffusers.quantizers", "torch.utils._pytree")
"""They warn of each other, whatever is computed. What a base needs of them, `check_base` tells."""
_LOADING = ("diffusers", "transformers")


class Once(logging.Filter):
    """Let each warning of a library through once, whatever it is about: by the line of code that says it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[tuple[str, int]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether it is said for the first time."""
        place = (record.pathname, record.lineno)
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

    before = diffusers_logging.is_progress_bar_enabled(), transformers_logging.is_progress_bar_enabled()
    _set_bars(False, False)
    try:
        yield
    finally:
        _set_bars(*before)


def _set_bars(diffusers: bool, transformers: bool) -> None:
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils import _tqdm as hub
    from transformers.utils import logging as transformers_logging

    downloads = not hub.are_progress_bars_disabled()
    (diffusers_logging.enable_progress_bar if diffusers else diffusers_logging.disable_progress_bar)()
    (transformers_logging.enable_progress_bar if transformers else transformers_logging.disable_progress_bar)()
    (hub.enable_progress_bars if downloads else hub.disable_progress_bars)()  # which transformers sets too
