"""Two machines train one run: two network namespaces, a cable between them, a folder that both see.

As docs/cluster.md tells it, on CPUs and over gloo: they generate, encode and train; one dies; and on it goes.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir
from itertools import count

import pytest
import torch
from safetensors.torch import load_file

from swd_distill.cli import main

PORTS = count(29500)
SETTINGS = [
    "--data.num-images", "16", "--data.teacher-steps", "2", "--data.batch", "4", "--training.iterations", "8",
    "--training.batch", "4", "--training.rank", "2", "--training.save-every", "2", "--device", "cpu",
]  # fmt: skip


def ip(*args):
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def nodes():
    """Make two machines; give the name and address of each."""
    if not shutil.which("ip"):
        pytest.skip("iproute2 is not installed")
    names = [f"swd-{os.getpid()}-{i}" for i in range(2)]
    addresses = ["10.77.0.1", "10.77.0.2"]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
        ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for name, address in zip(names, addresses, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        yield dict(zip(names, addresses, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def start(nodes, command, place):
    """Start a command of swd-distill on each node; return the launchers."""
    (first, *_), port = nodes.values(), next(PORTS)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "eth0"}
    launchers = []
    for rank, name in enumerate(nodes):
        torchrun = ["--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1", "--master-addr", first]
        words = ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", *torchrun]
        words += ["--master-port", str(port), "-m", "swd_distill", *command, *SETTINGS]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        launchers.append(subprocess.Popen(words, env=environment, cwd=place, **pipes))
    return launchers


def finish(launchers):
    """Wait for all; return what they printed."""
    printed = [launcher.communicate(timeout=400)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], "\n".join(printed)
    return printed


def test_two_nodes_train_what_one_does_and_go_on_where_one_died(nodes, tmp_path):
    (tmp_path / "prompts.txt").write_text("".join(f"a big red circle at the left, prompt {i}\n" for i in range(16)))
    shared, run = tmp_path / "shared", ["run", "tiny", "--data.prompts", "prompts.txt", "--out"]
    launchers = start(nodes, [*run, str(shared)], tmp_path)
    while not list((shared / "checkpoints").glob("step-*")):
        assert all(launcher.poll() is None for launcher in launchers)
        time.sleep(0.01)
    for process in map(int, ip("netns", "pids", list(nodes)[1]).stdout.split()):
        os.kill(process, signal.SIGKILL)  # the second machine is gone, launcher and all
    assert [launcher.wait(timeout=400) for launcher in launchers] != [0, 0]
    assert not (shared / "lora").exists()
    finish(start(nodes, [*run, str(shared)], tmp_path))

    with chdir(tmp_path):
        main([*run, "alone", *SETTINGS])
    for image in sorted((shared / "images").glob("*.png")):
        assert image.read_bytes() == (tmp_path / "alone" / "images" / image.name).read_bytes()
    one, two = (
        load_file(tmp_path / name / "lora" / "pytorch_lora_weights.safetensors") for name in ("alone", "shared")
    )
    assert one.keys() == two.keys()
    for name, tensor in one.items():  # up to rounding, which Adam turns into steps while a weight is young
        assert float((two[name] - tensor).norm()) <= 1e-3 * float(tensor.norm())
        assert torch.isfinite(two[name]).all()
