import time

import pytest
import torch

from swd_eval.latency import measure


def test_seconds_are_per_image_and_leave_the_warm_up_out():
    pauses = iter([0.2, 0.2, 0.01, 0.01, 0.04])
    calls = []

    def step():
        calls.append(time.sleep(next(pauses)))

    latency = measure(step, warmup=2, runs=3, batch=2, device="cpu")
    assert len(calls) == 5
    assert 0.01 <= latency.mean < 0.03
    assert 0.005 <= latency.median < latency.mean
    assert latency.std > 0.004
    assert (latency.runs, latency.batch, latency.device) == (3, 2, "cpu")


def test_the_papers_protocol_is_the_default():
    calls = []
    latency = measure(lambda: calls.append(1), device="cpu")
    assert len(calls) == 110
    assert (latency.runs, latency.batch) == (100, 8)


def test_a_gpu_that_is_not_the_current_one_is_timed_on_its_own_stream(monkeypatch):
    seen = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            seen.append(stream)

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return 2000.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: seen.append(f"waits for {device}"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr("swd_eval.latency.device_name", str)
    found = measure(lambda: seen.append("step"), warmup=0, runs=1, batch=1, device="cuda:1")
    assert seen == ["waits for cuda:1", "stream of cuda:1", "step", "stream of cuda:1"]
    assert found.mean == 2.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_time_is_that_of_the_work_not_of_its_launch():
    x = torch.randn(4096, 4096, device="cuda")

    def work():
        for _ in range(20):
            torch.mm(x, x)

    launch = time.perf_counter()
    work()
    launch = time.perf_counter() - launch
    torch.cuda.synchronize()
    measured = measure(work, warmup=3, runs=5, batch=1, device="cuda").mean
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    assert measured == pytest.approx(time.perf_counter() - start, rel=0.3)
    assert measured > launch


def test_no_runs_are_refused():
    with pytest.raises(ValueError, match="runs and batch of 1 or more"):
        measure(lambda: None, runs=0, device="cpu")
