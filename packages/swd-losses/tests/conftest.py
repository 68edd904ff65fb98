import contextlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from jaxtyping import config

Refuses = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def refuses() -> Refuses:
    """Expect our ValueError, also in a run with shapes and types checked, whose own error would come before it."""

    @contextlib.contextmanager
    def expect(message: str) -> Iterator[None]:
        disabled = config.jaxtyping_disable
        config.update("jaxtyping_disable", True)
        try:
            with pytest.raises(ValueError, match=re.escape(message)):
                yield
        finally:
            config.update("jaxtyping_disable", disabled)

    return expect
