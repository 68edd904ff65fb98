import contextlib
import io
import json
import os
import shutil
import sys

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # read when hugging face's hub is first imported: no test asks the network


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Make a run folder as swd-distill leaves it: config.json, and a LoRA that is no longer zero."""
    from swd_models import load_denoiser, save_lora, share_base
    from swd_models.adapters import adapter_parameters
    from swd_schedules import presets

    folder = tmp_path_factory.mktemp("runs") / "mine"
    student = share_base(load_denoiser("embedded"), 4, fake=False).student
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter_parameters(student):
            parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    save_lora(student, folder / "lora", schedule=presets.TINY_4)
    (folder / "config.json").write_text(json.dumps({"model": "embedded", "recipe": {}}))
    return folder


@pytest.fixture
def copied(run, tmp_path):
    """Copy the run folder, to be harmed."""
    return shutil.copytree(run, tmp_path / "copied")


@pytest.fixture(scope="session")
def pipe(run):
    from swd_sample import SwDPipeline

    return SwDPipeline.from_run(run)


@pytest.fixture
def cli(monkeypatch):
    """Run a command line in this process and return what it printed."""
    from swd_sample.cli import main

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["swd-sample", *map(str, args)])
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            main()
        return printed.getvalue()

    return call


@pytest.fixture
def refused(cli, capsys):
    """Expect exit code 2 and one line on stderr; give the line."""

    def call(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli(*args)
        error = capsys.readouterr().err
        assert caught.value.code == 2
        assert error.startswith("swd-sample: error: ")
        assert error.count("\n") == 1
        return error

    return call
