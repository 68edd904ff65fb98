"""Threads beside the device: order, bounds, errors, and that they end."""

import threading
from contextlib import closing
from itertools import count

import pytest

from swd_distill.data import ahead as ahead_module
from swd_distill.data.ahead import ahead, behind

SECONDS = 30  # a test that waits longer than this has hung


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.setattr(ahead_module, "THREADS", 2)


def _alive():
    return [each.name for each in threading.enumerate() if each.name.startswith(("ahead", "items", "behind"))]


def test_results_come_in_order_whichever_is_ready_first():
    done = threading.Event()

    def read(item):
        if item == 0:
            assert done.wait(SECONDS)
        else:
            done.set()
        return 10 * item

    assert list(ahead(range(5), read, 3)) == [0, 10, 20, 30, 40]
    assert list(ahead([], read, 3)) == []
    assert not _alive()


def test_so_many_are_read_ahead_and_none_before_the_first_is_asked_for():
    taken = []

    def items():
        for item in count():
            taken.append(item)
            yield item

    read = threading.Semaphore(0)
    with closing(ahead(items(), lambda item: (read.release(), item)[1], 3)) as results:
        assert not taken
        for number in range(1, 6):
            assert next(results) == number - 1
            assert len(taken) <= number + 3
        for _ in range(5 + 3):
            assert read.acquire(timeout=SECONDS)  # those ahead are read without being asked for
    assert len(taken) == 5 + 3
    assert not _alive()


def test_items_come_from_one_thread_as_a_stream_does():
    found = set()

    def items():
        for item in range(20):
            found.add(threading.current_thread())
            yield item

    assert list(ahead(items(), str, 4)) == [str(item) for item in range(20)]
    assert len(found) == 1
    assert threading.current_thread() not in found


@pytest.mark.parametrize("where", ["items", "read"])
def test_an_error_is_raised_at_its_place(where):
    def fail(item, at):
        if (where, item) == (at, 2):
            raise ValueError("expected another, got 2")
        return item

    results, found = ahead((fail(item, "items") for item in range(6)), lambda item: fail(item, "read"), 4), []
    with pytest.raises(ValueError, match="got 2"):
        found.extend(results)
    assert found == [0, 1]
    assert not _alive()


def test_threads_of_one_behind_another_end_too_when_the_consumer_stops_early():
    def pairs(items):
        with closing(items):
            for item in items:
                yield item, next(items)

    with closing(ahead(pairs(ahead(count(), int, 4)), tuple, 1)) as results:
        assert next(results) == (0, 1)
    assert not _alive()


def test_calls_run_behind_up_to_a_limit_and_all_are_done_at_the_end():
    go, done = threading.Event(), []

    def call(item):
        assert go.wait(SECONDS)
        done.append(item)

    with behind(2, 3) as run:
        for item in range(3):
            run(call, item)
        assert not done
        threading.Timer(0.05, go.set).start()
        run(call, 3)  # waits for one
        assert done
    assert sorted(done) == [0, 1, 2, 3]
    assert not _alive()


def test_an_error_behind_ends_the_calls_or_what_made_them():
    def fail():
        raise OSError("disk full")

    def make(number):
        with behind(1, 1) as run:
            for _ in range(number):
                run(fail)

    for number in (1, 3):
        with pytest.raises(OSError, match="disk full"):
            make(number)
    assert not _alive()


def test_calls_are_finished_where_something_else_fails():
    done = []

    def make():
        with behind(1, 2) as run:
            run(done.append, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make()
    assert done == [1]
