"""Two processes, or one after the other: the same files, and an end for all where one fails."""

import multiprocessing
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("accelerate")
pytest.importorskip("efficientnet_lite_pytorch")
NUM = 21


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Noise, of another seed in each folder, and prompts of the first."""
    tmp_path = tmp_path_factory.mktemp("processes")
    for seed, name in enumerate(("fake", "real")):
        (tmp_path / name).mkdir()
        for index in range(NUM):
            pixels = np.random.default_rng([seed, index]).integers(0, 255, (160, 160, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    (tmp_path / "prompts.txt").write_text("".join(f"prompt {index}\n" for index in range(7)))
    return tmp_path


# As text, for pytest's modules have no names by which another process could import them.
WORK = """
import os, torch
from swd_eval.cli import main
os.environ.update(environment)
torch.set_num_threads(1)
for name, number in (("stdout", 1), ("stderr", 2)):
    os.dup2(os.open(f"{files}.{name}", os.O_WRONLY | os.O_CREAT), number)
main(args)
"""


@pytest.fixture(scope="module")
def start(folders, tmp_path_factory):
    """Start processes of one launch, each with one thread, as a launcher does.

    They are forks of a process that has imported what they need and done nothing else.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["swd_eval.cli", "accelerate", "efficientnet_lite_pytorch", "swd_eval.runs.evaluate"]
    )
    started = []

    def call(out, num, *argv):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launch = {"WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        given = ("--ref", folders / "real", "--prompts", folders / "prompts.txt", "--device", "cpu", "--batch", "2")
        args = [str(word) for word in ("images", folders / "fake", "--out", folders / out, *given, *argv)]
        workers = []
        for rank in range(num):
            environment = launch | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            names = {"files": str(tmp_path_factory.mktemp("worker") / "its"), "environment": environment, "args": args}
            worker = context.Process(target=exec, args=(WORK, names))
            worker.written = names["files"]
            worker.start()
            workers.append(worker)
        started.extend(workers)
        return workers

    yield call
    for worker in started:
        worker.kill()


def wait(worker):
    """Wait; give its exit code and what it wrote to stdout and stderr."""
    worker.join(240)
    return worker.exitcode, *(Path(f"{worker.written}.{name}").read_text() for name in ("stdout", "stderr"))


def end(workers, code):
    """Wait for all; give what each wrote to stdout and stderr."""
    ended = [wait(worker) for worker in workers]
    assert [each[0] for each in ended] == [code] * len(workers), ended
    return [each[1:] for each in ended]


def errors(written):
    return [[line for line in error.splitlines() if "error" in line or "Traceback" in line] for _, error in written]


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def of_one(folders, start):
    """Give the files that one process writes."""
    end(start("one", 1), 0)
    return files(folders / "one")


def test_two_processes_write_the_files_of_one(folders, start, of_one):
    (main, _), (other, _) = end(start("two", 2), 0)
    found = files(folders / "two")
    assert {"results.json", "table.md", "samples.jsonl", "lite0.f32", "tone.jsonl"} <= found.keys()
    assert found == of_one
    assert found["table.md"].decode() in main
    assert "fd-lite0" not in other


def test_a_launch_of_which_one_is_killed_goes_on_with_another_number(folders, start, of_one):
    workers = start("killed", 2)
    parts = folders / "killed" / "lite0.parts"
    while not list(parts.glob("*.f32")):
        assert [worker.exitcode for worker in workers] == [None, None]
        time.sleep(0.005)
    workers[1].kill()
    code, _, error = wait(workers[0])
    assert code == 2
    assert "Traceback" not in error
    [line] = [line for line in error.splitlines() if line.startswith("swd-eval: error: ")]
    assert "got one that is gone" in line
    assert 0 < len(list(parts.glob("*.f32"))) < 11
    assert not (folders / "killed" / "lite0.f32").exists()
    end(start("killed", 1), 0)
    assert files(folders / "killed") == of_one


def test_what_fails_in_one_process_ends_all_with_one_line(folders, start, of_one):
    """Batch 1, of images 2 and 3, belongs to the process that does not speak."""
    broken = folders / "fake" / "3.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60].ljust(len(whole), b"\0"))
    main, other = errors(end(start("broken", 2), 2))
    assert other == []
    assert len(main) == 1
    assert "expected an image, got" in main[0]
    assert "3.png" in main[0]
    broken.write_bytes(whole)
    end(start("broken", 2), 0)
    assert files(folders / "broken") == of_one


def test_what_is_wrong_in_all_processes_is_said_once(start):
    main, other = errors(end(start("out", 2, "--metrics", "fid"), 2))
    assert other == []
    assert len(main) == 1
    assert "expected --metrics of" in main[0]


def test_what_cannot_be_read_is_left_out_by_all_alike(folders, start):
    """Images 3 and 8 belong to different processes."""
    broken = [folders / "fake" / "3.png", folders / "fake" / "8.png"]
    whole = [path.read_bytes() for path in broken]
    for path, data in zip(broken, whole, strict=True):
        path.write_bytes(data[:60].ljust(len(data), b"\0"))
    end(start("bad-one", 1, "--max-bad", "0.1"), 0)
    end(start("bad-two", 2, "--max-bad", "0.1"), 0)
    main, other = errors(end(start("too-many", 2, "--max-bad", "0.05"), 2))
    for path, data in zip(broken, whole, strict=True):
        path.write_bytes(data)
    found = files(folders / "bad-two")
    assert found == files(folders / "bad-one")
    assert found["skipped.jsonl"].count(b"\n") == 2
    assert other == []
    assert "expected at most 0.05 of 21 samples to be bad, got 2" in main[0]
