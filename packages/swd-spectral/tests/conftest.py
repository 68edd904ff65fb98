import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from jaxtyping import TypeCheckError

Refuses = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def refuses() -> Refuses:
    """Expect our ValueError, or, in a run with shapes and types checked, that check's own error before it."""

    @contextlib.contextmanager
    def expect(message: str) -> Iterator[None]:
        with pytest.raises((ValueError, TypeCheckError)) as caught:
            yield
        if caught.type is ValueError:
            assert message in str(caught.value)
        else:
            assert isinstance(caught.value, TypeCheckError)

    return expect
