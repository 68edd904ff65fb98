import json
import multiprocessing

import pytest

from swd_distill.files import claim, write_text


def test_a_file_is_replaced_whole(tmp_path):
    write_text(tmp_path / "a", "one")
    write_text(tmp_path / "a", "zwei ä")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "zwei ä"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_claim_is_made_once_and_then_checked(tmp_path):
    path = tmp_path / "deep" / "settings.json"
    claim(path, {"steps": 2, "at": tmp_path}, "images")
    claim(path, {"steps": 2}, "images")
    assert json.loads(path.read_text()) == {"steps": 2, "at": str(tmp_path)}
    with pytest.raises(ValueError, match=r"expected images in .* made with steps 3, got steps 2"):
        claim(path, {"steps": 3}, "images")
    with pytest.raises(ValueError, match="made with later True, got later None"):
        claim(path, {"steps": 2, "later": True}, "images")
    claim(path, {"steps": 2, "later": True}, "images", may_lack=True)


def _claim_at_once(folder, barrier, failures):
    for attempt in range(20):
        barrier.wait()
        try:
            claim(folder / str(attempt) / "settings.json", {"steps": 2}, "images")
        except OSError as error:
            failures.put(repr(error))


def test_processes_that_claim_a_folder_at_once_all_get_it(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, failures = context.Barrier(4), context.SimpleQueue()
    workers = [context.Process(target=_claim_at_once, args=(tmp_path, barrier, failures)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures.empty(), failures.get()
