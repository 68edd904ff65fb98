import contextlib
import io
import multiprocessing
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read when hugging face's hub is first imported: no test asks the network

FLAGS = (
    "--data.num-images", "6", "--data.teacher-steps", "2", "--data.batch", "4",
    "--training.iterations", "3", "--training.batch", "2",
)  # fmt: skip


LONG = ("test_processes", "test_interruptions"), ("test_cost",)


def pytest_collection_modifyitems(items):
    """Begin each half with long ones: two processes take one each, and what a module shares is made in one alone."""
    first, second = ([item for item in items if item.path.stem in names] for names in LONG)
    second += [item for item in items if item.get_closest_marker("slow") and item not in first + second]
    rest = [item for item in items if item not in {*first, *second}]
    middle = max(0, len(items) // 2 - len(first))
    items[:] = [*first, *rest[:middle], *second, *rest[middle:]]


def _argv(command, out, *flags):
    return [command, "tiny", "--out", str(out), *FLAGS, *map(str, flags)]


@pytest.fixture(scope="session")
def argv():
    """Build the command line of a small run."""
    return _argv


@pytest.fixture(scope="session")
def cli():
    """Run a command line in this process and return what it printed."""
    from swd_distill.cli import main

    def call(*args):
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()):
            main(args)
        return printed.getvalue()

    return call


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, cli):
    """Run the preset once, small, for all tests, which leave it as it is; give the folder and what was printed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, cli(*_argv("run", folder))


@pytest.fixture(scope="session")
def finished(finished_run):
    return finished_run[0]


@pytest.fixture
def copied(finished, tmp_path):
    """Copy the finished run, to be harmed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def encoded(finished, tmp_path):
    """Make a run folder that holds a cache and nothing else."""
    shutil.copytree(finished / "cache", tmp_path / "run" / "cache")
    return tmp_path / "run"


@pytest.fixture
def refused(capsys):
    """Expect exit code 2 and one line on stderr; give the line. `late`: progress was shown before."""
    from swd_distill.cli import main

    def call(args, late=False):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(args)
        printed = capsys.readouterr()
        lines = printed.err.splitlines()
        assert caught.value.code == 2
        assert printed.out == ""
        assert lines[-1].startswith("swd-distill: error: ")
        assert late or len(lines) == 1
        return lines[-1]

    return call


# As text, for pytest's modules have no names by which another process could import them.
WORK = """
import os, sys, torch
from swd_distill.cli import main
os.environ.update(environment)
torch.set_num_threads(1)
for name, number in (("stdout", 1), ("stderr", 2)):
    os.dup2(os.open(f"{files}.{name}", os.O_WRONLY | os.O_CREAT), number)
exec(prepare)
main(args)
"""


@pytest.fixture
def worker(tmp_path_factory):
    """Start a command in a process, with one thread; give it, and where it writes stderr.

    It is a fork of a process that has imported it and done nothing else: one of this would hang in torch's threads.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["swd_distill.run"])

    def call(args, prepare="", **environment):
        files = tmp_path_factory.mktemp("worker") / "std"
        names = {
            "args": list(map(str, args)),
            "prepare": prepare,
            "environment": {"CUDA_VISIBLE_DEVICES": ""} | environment,
            "files": str(files),
        }
        process = context.Process(target=exec, args=(WORK, names))
        process.start()
        return process, files.with_suffix(".stderr")

    return call


@pytest.fixture
def two_workers(worker):
    """Run a command as two processes of one launch; give what each wrote to stderr."""

    def call(args, prepare=""):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launch = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2))
        both = [worker(args, prepare, **launch, **rank) for rank in ranks]
        for process, _ in both:
            process.join(240)
        codes = [process.exitcode for process, _ in both]
        for process, _ in both:
            process.kill()
        errors = [stderr.read_text() for _, stderr in both]
        assert codes == [0, 0], errors
        return errors

    return call


@pytest.fixture(scope="session")
def snapshot():
    """Give the bytes and times of every file of a folder."""
    return lambda folder: {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def configure():
    """Build the config of a small run from the preset."""
    from swd_distill.presets import PRESETS

    def build(out, recipe=None, **training):
        preset = PRESETS["tiny"]
        data = replace(preset.data, num_images=6, teacher_steps=2, batch=4)
        sizes = {"iterations": 3, "batch": 2, "rank": 4} | training
        training = replace(preset.training, **sizes)
        return replace(preset, out=out, data=data, training=training, recipe=recipe or preset.recipe)

    return build


@pytest.fixture(scope="session")
def open_cache(finished, configure):
    """Open the finished run's cache."""
    from swd_distill.data.cache import Cache
    from swd_distill.data.encode import fitting

    return lambda: Cache.open(finished / "cache", fitting(configure(finished)))


@pytest.fixture(scope="session")
def stock_pipe():
    """Load the embedded teacher as its users do, without this project."""
    from diffusers import StableDiffusion3Pipeline

    from swd_models.loading import resolve_model

    def load():
        return StableDiffusion3Pipeline.from_pretrained(
            resolve_model("embedded"), text_encoder_3=None, tokenizer_3=None
        )

    return load
