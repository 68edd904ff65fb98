import logging

import pytest
from diffusers.utils import logging as diffusers_logging
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging as transformers_logging

from swd_models.logs import Once, quiet, without_bars


@pytest.fixture
def libraries(monkeypatch):
    """Leave the libraries' loggers as they were."""
    for name in ("diffusers", "transformers"):
        for handler in logging.getLogger(name).handlers:
            monkeypatch.setattr(handler, "filters", list(handler.filters))
    with without_bars():
        yield


def test_a_library_repeats_no_warning_whatever_it_is_about(libraries, monkeypatch):
    lines = []
    (handler, *_) = logging.getLogger("diffusers").handlers
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(record.getMessage()))
    quiet()
    quiet()  # of which one filter comes
    logger = diffusers_logging.get_logger("diffusers.pipelines.x")
    for text in ("a", "b"):
        logger.warning(f"was cut: {text}")
    logger.warning("another")
    for _ in range(2):
        logger.error("an error")
    assert lines == ["was cut: a", "another", "an error", "an error"]
    assert sum(isinstance(each, Once) for each in handler.filters) == 1


def test_what_transformers_says_once_is_told_by_its_text(libraries, monkeypatch):
    lines = []
    (handler, *_) = logging.getLogger("transformers").handlers
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(record.getMessage()))
    quiet()
    logger = transformers_logging.get_logger("transformers.models.x")
    for text in ("one of these", "one of these", "two of these"):
        logger.warning_once(text)
    assert lines == ["one of these", "two of these"]


def test_bars_come_back_when_the_last_has_loaded():
    before = diffusers_logging.is_progress_bar_enabled()
    first, second = without_bars(), without_bars()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not diffusers_logging.is_progress_bar_enabled()
    second.__exit__(None, None, None)
    assert diffusers_logging.is_progress_bar_enabled() == before


def test_bars_of_loading_are_off_within_and_as_before_after_and_those_of_downloads_stay():
    def bars():
        return diffusers_logging.is_progress_bar_enabled(), transformers_logging.is_progress_bar_enabled()

    before, downloads = bars(), are_progress_bars_disabled()
    with without_bars():
        assert bars() == (False, False)
        assert are_progress_bars_disabled() == downloads
    assert bars() == before
    assert are_progress_bars_disabled() == downloads
