import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read when hugging face's hub is first imported: no test asks the network

FLAGS = (
    "--data.num-images", "6", "--data.teacher-steps", "2", "--data.batch", "4",
    "--training.iterations", "3", "--training.batch", "2",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Run the longest first: beside others, not after them."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


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


@pytest.fixture
def two_workers():
    """Run a command as two processes of one launch, a thread each; give what each wrote to stderr.

    Fresh interpreters, as a launcher starts them: a fork of this one would hang in torch's thread pool.
    """

    def call(*command):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launch = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, *map(str, command)]
        workers = [subprocess.Popen(command, env=os.environ | launch | rank, **pipes) for rank in ranks]
        try:
            errors = [worker.communicate(timeout=240)[1] for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
        assert [worker.returncode for worker in workers] == [0, 0], errors
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
