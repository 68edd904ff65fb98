import importlib.util
import sys
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[1] / "examples" / "mixture_2d.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("mixture_2d", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    # On so small tensors a second thread only waits for the first.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        torch.set_num_threads(threads)
        del sys.modules[spec.name]


def test_student_beats_its_teacher_at_the_same_number_of_steps(example):
    distance = example.run(example.RECIPES["released"], teacher_steps=400, student_steps=150)
    assert distance["teacher, 50 Euler steps"] < 0.1
    assert distance["student, 2 steps"] < 0.25 * distance["teacher, 2 steps"]
    assert distance["student, 2 steps"] < 0.6 * distance["teacher, 2 Euler steps"]
