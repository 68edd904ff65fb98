import sys

import pytest
import torch
from jaxtyping import config
from torch._dynamo.utils import counters


@pytest.fixture
def graphs():
    """Count compiled graphs from nothing, of what users run: checks of types at run time would be compiled as well.

    Nor is coverage measured meanwhile: a compiler's own lines are most of what would be traced.
    """
    before, coverage = config.jaxtyping_disable, sys.modules.get("coverage")
    measured = coverage.Coverage.current() if coverage else None
    if measured:
        measured.stop()
    config.update("jaxtyping_disable", True)
    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()
    config.update("jaxtyping_disable", before)
    if measured:
        measured.start()
