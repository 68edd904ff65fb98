"""Two machines train one run: two network namespaces, a cable between them, a folder that both see.

What docs/cluster.md is about, on CPUs and over gloo: they generate, encode and train; one dies; and on it goes.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir

import pytest
from safetensors.torch import load_file

from swd_distill.cli import main

SETTINGS = [
    "--data.num-images", "16", "--data.teacher-steps", "2", "--data.batch", "4", "--training.iterations", "8",
    "--training.batch", "4", "--training.rank", "2", "--training.save-every", "2", "--device", "cpu",
]  # fmt: skip
DEADLINE = 400.0  # seconds for what takes some ten


def ip(*args):
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout


def kill(name):
    """Kill all that runs on a machine."""
    for process in map(int, ip("netns", "pids", name).split()):
        os.kill(process, signal.SIGKILL)


@pytest.fixture
def nodes():
    """Make two machines; give the address of each by its name."""
    if not shutil.which("ip"):
        pytest.skip("iproute2 is not installed")
    names, made = [f"swd-{os.getpid()}-{i}" for i in range(2)], []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
        addresses = dict(zip(names, ("10.77.0.1", "10.77.0.2"), strict=True))
        for name, address in addresses.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        yield addresses
    finally:
        for name in made:
            kill(name)
            ip("netns", "del", name)


def start(nodes, command, place):
    """Start a command of swd-distill on each node, which prints into a file; return the launchers."""
    (first, *_), launchers = nodes.values(), []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "eth0"}
    for rank, name in enumerate(nodes):
        words = ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
        words += ["--node-rank", str(rank), "--nproc-per-node", "1", "--master-addr", first, "--master-port", "29500"]
        words += ["-m", "swd_distill", *command, *SETTINGS]
        with (place / f"node-{rank}.log").open("w") as log:
            launchers.append(subprocess.Popen(words, env=environment, cwd=place, stdout=log, stderr=log))
    return launchers


def printed(place):
    return "\n".join(path.read_text() for path in sorted(place.glob("node-*.log")))


def test_two_nodes_train_what_one_does_and_go_on_where_one_died(nodes, tmp_path):
    (tmp_path / "prompts.txt").write_text("".join(f"a big red circle at the left, prompt {i}\n" for i in range(16)))
    shared, run = tmp_path / "shared", ["run", "tiny", "--data.prompts", "prompts.txt", "--out"]
    launchers, end = start(nodes, [*run, str(shared)], tmp_path), time.monotonic() + DEADLINE
    while not list((shared / "checkpoints").glob("step-*")):
        assert all(launcher.poll() is None for launcher in launchers), printed(tmp_path)
        assert time.monotonic() < end, printed(tmp_path)
        time.sleep(0.01)
    kill([*nodes][1])  # the second machine is gone, launcher and all
    assert launchers[0].wait(DEADLINE) != 0  # the first one ends then, and says so
    assert not (shared / "lora").exists()
    again = start(nodes, [*run, str(shared)], tmp_path)
    assert [launcher.wait(DEADLINE) for launcher in again] == [0, 0], printed(tmp_path)

    with chdir(tmp_path):
        main([*run, "alone", *SETTINGS])
    images = sorted((shared / "images").glob("*.png"))
    assert len(images) == 16
    for image in images:
        assert image.read_bytes() == (tmp_path / "alone" / "images" / image.name).read_bytes()
    lora = "lora/pytorch_lora_weights.safetensors"
    one, two = load_file(tmp_path / "alone" / lora), load_file(shared / lora)
    assert one.keys() == two.keys()
    for name, tensor in one.items():  # up to rounding, which Adam turns into steps while a weight is young
        assert float((two[name] - tensor).norm()) <= 1e-3 * float(tensor.norm())
