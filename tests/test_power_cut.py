"""A power cut at any moment leaves a state that resumes: what is on the disk then is modelled from each flush.

Two kinds of disk are modelled. The strict one has of a file what its last flush had, and of a folder the names of its
last flush. The eager one has all names at once, and the contents only as they were flushed: a renamed file that was not
is empty. File systems are somewhere between.
"""

import hashlib
import json
import os
import shutil
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from swd_data import claim, read_json, read_object, write_json, write_text
from swd_distill.data import encode as encode_module
from swd_distill.data.cache import Cache
from swd_distill.data.encode import encode, fitting
from swd_distill.presets import PRESETS
from swd_distill.train import build_trainer
from swd_distill.training.checkpoints import newest_whole, save_checkpoint
from swd_distill.training.log import Log
from swd_models import load_denoiser, save_lora, share_base
from swd_models.adapters import adapter_parameters
from swd_models.loading import empty_denoiser
from swd_models.lora.files import FILES, read_lora
from swd_sample.folder import sample_folder
from swd_schedules import ScaleSchedule

EVENTS = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir")


class Disk:
    """What a folder would be after a power cut, before each change to its names and each flush, and at the end."""

    def __init__(self, root):
        self.root, self.states, self.notes = root, {}, []
        self.contents, self.names = {}, {}
        self.lock = threading.RLock()  # a state is of one moment: no other thread changes a name while it is looked at
        for path in (root, *root.rglob("*")):
            self._flushed(path)

    @contextmanager
    def recording(self):
        """Record what happens in a block."""
        with pytest.MonkeyPatch.context() as patch:
            for name in EVENTS:
                patch.setattr(os, name, self._watched(name, getattr(os, name)))
            yield self
            self._cut()

    def note(self, value):
        """Note a promise that was given: states from here on have to keep it."""
        self.notes.append(value)

    def _watched(self, name, call):
        def watched(*args, **options):
            with self.lock:
                self._cut()
                if name == "fsync":
                    self._flushed(Path(f"/proc/self/fd/{args[0]}").readlink())
                return call(*args, **options)

        return watched

    def _flushed(self, path):
        if path.is_dir():
            self.names[path.stat().st_ino] = {each.name: (each.stat().st_ino, each.is_dir()) for each in path.iterdir()}
        elif path.is_file():
            self.contents[path.stat().st_ino] = path.read_bytes()

    def _cut(self):
        for state in (self._strict(self.root.stat().st_ino), self._eager()):
            digest = hashlib.sha256(repr(sorted(state.items())).encode()).hexdigest()
            self.states[digest] = (state, list(self.notes))

    def _strict(self, folder, prefix=""):
        state = {prefix: None}
        for name, (inode, is_folder) in self.names.get(folder, {}).items():
            if is_folder:
                state |= self._strict(inode, f"{prefix}{name}/")
            else:
                state[f"{prefix}{name}"] = self.contents.get(inode, b"")
        return state

    def _eager(self):
        state = {}
        for folder, _, files in os.walk(self.root):  # reads a folder once: what lies in it has its folder in the state
            prefix = "" if Path(folder) == self.root else f"{Path(folder).relative_to(self.root).as_posix()}/"
            state[prefix] = None
            for name in files:
                with suppress(FileNotFoundError):  # what a library in Rust writes and renames unseen, in another thread
                    state[f"{prefix}{name}"] = self.contents.get(Path(folder, name).stat().st_ino, b"")
        return state

    def each(self, folder):
        """Yield a folder for each state that a cut may leave, with what had been promised by then."""
        for state, notes in self.states.values():
            shutil.rmtree(folder, ignore_errors=True)
            for name, content in sorted(state.items()):
                path = folder / name
                if content is None:
                    path.mkdir(parents=True, exist_ok=True)
                else:
                    path.write_bytes(content)
            yield folder, notes


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "live").mkdir()
    return Disk(tmp_path / "live")


def test_the_model_of_a_disk_loses_what_was_not_flushed(disk, tmp_path):
    """Written without a flush, a file may come back empty, or not at all: else no test here could fail."""
    with disk.recording():
        (disk.root / "new").write_text("text")
        (disk.root / "new").replace(disk.root / "a")
    files = (folder / "a" for folder, _ in disk.each(tmp_path / "cut"))
    found = [file.read_bytes() if file.exists() else None for file in files]
    assert set(found) == {None, b""}


def test_texts_are_old_or_new_and_new_once_they_are_written(disk, tmp_path):
    with disk.recording():
        for number in range(3):
            write_json(disk.root / "deep" / "a.json", number) if number else claim(disk.root / "deep/a.json", {}, "x")
            disk.note(number)
    assert len(disk.states) > 5
    for folder, notes in disk.each(tmp_path / "cut"):
        path = folder / "deep" / "a.json"
        found = (read_json(path) or 0) if path.exists() else None
        assert found in (None, 0, 1, 2)
        assert not notes or (found is not None and found >= notes[-1])


class Pipe:
    """Makes a picture of its seed and prompt, as a pipeline does."""

    fps = None

    def __call__(self, prompts, *, seed, schedule):
        return [Image.new("RGB", (8, 8), (seed + i, len(prompt), 0)) for i, prompt in enumerate(prompts)]


def test_a_folder_of_samples_goes_on(disk, tmp_path):
    prompts, schedule = ["a", "bb", "ccc", "dddd", "eeeee"], ScaleSchedule.square((1000.0,), (8,))
    options = {"schedule": schedule, "seed": 3, "batch": 2, "made_with": {"model": "m"}}
    with disk.recording():
        sample_folder(Pipe(), prompts, disk.root / "out", **options)
    whole = {path.name: path.read_bytes() for path in (disk.root / "out").iterdir()}
    for folder, _ in disk.each(tmp_path / "cut"):
        for path in folder.rglob("*.png"):
            if not any(part.startswith(".") for part in path.relative_to(folder).parts):
                assert path.read_bytes() == whole[path.name]  # whole or absent
        sample_folder(Pipe(), prompts, folder / "out", **options)
        found = {path.name: path.read_bytes() for path in (folder / "out").iterdir() if "swd-tmp" not in path.name}
        assert found == whole


def config_of(out, images):
    preset = PRESETS["tiny"]
    data = replace(preset.data, images=images, batch=4)
    training = replace(preset.training, iterations=3, batch=2, rank=2)
    return replace(preset, out=out, data=data, training=training)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(5):
        Image.effect_noise((64, 64), 50 + i).convert("RGB").save(folder / f"{i}.png")
        write_text(folder / f"{i}.txt", f"noise {i}")
    return folder


def test_a_cache_opens_once_it_is_finished_and_goes_on_before(disk, tmp_path, images, monkeypatch):
    monkeypatch.setattr(encode_module, "SHARD_SAMPLES", 3)
    encoder = encode_module.Encoder(PRESETS["tiny"])
    monkeypatch.setattr(encode_module, "Encoder", lambda model: encoder)
    with disk.recording():
        config = config_of(disk.root / "run", images)
        encode(config)
        disk.note("finished")
    whole = {path.name: path.read_bytes() for path in config.cache.iterdir()}
    assert len(disk.states) > 20
    for folder, notes in disk.each(tmp_path / "cut"):
        config = config_of(folder / "run", images)
        if (config.cache / "manifest.json").exists():
            assert len(Cache.open(config.cache, fitting(config))) == 5
        assert not notes or (config.cache / "manifest.json").exists()
        encode(config)
        found = {path.name: path.read_bytes() for path in config.cache.iterdir() if "swd-tmp" not in path.name}
        assert found == whole


def test_checkpoints_and_metrics_go_on_from_the_last_that_was_saved(disk, tmp_path, images):
    config = config_of(tmp_path / "run", images)
    encode(config)
    trainer = build_trainer(config, Cache.open(config.cache, fitting(config)))
    out = replace(config, out=disk.root / "run")
    with disk.recording():
        claim(out.out / "config.json", {"a": 1}, "a run", writes=())
        with Log(out, 0) as log:
            for step in range(1, 5):
                log.write(step, {"mmd": 1.0 / step, "stage": 0.0})
                log.flush()
                save_checkpoint(out.out / "checkpoints", trainer, step)
                disk.note(step)
    assert len(disk.states) > 50
    latest = []
    for folder, notes in disk.each(tmp_path / "cut"):
        run = folder / "run"
        name = newest_whole(run / "checkpoints") if (run / "checkpoints").is_dir() else None
        step = int(name[5:]) if name else 0
        assert step >= (notes[-1] if notes else 0)
        if step:
            rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[:step]]
            assert [row["step"] for row in rows] == list(range(1, step + 1))
            assert read_object(run / "config.json") == {"a": 1}
        latest.append(step)
    assert set(latest) == {0, 1, 2, 3, 4}


def test_a_lora_is_old_or_new(disk, tmp_path):
    student = share_base(load_denoiser("embedded"), 2, fake=False).student
    empty, values = empty_denoiser("embedded"), (0.25, 0.5)
    with disk.recording():
        for value in values:
            with torch.no_grad():
                for parameter in adapter_parameters(student):
                    parameter.fill_(value)
            save_lora(student, disk.root / "lora", schedule=None)
            disk.note(value)
    for folder, notes in disk.each(tmp_path / "cut"):
        file = folder / "lora" / FILES["diffusers"]
        if not file.exists():
            assert not notes
            continue
        found = {float(tensor.flatten()[0]) for tensor in load_file(file).values()}
        assert found in [{value} for value in values[len(notes) - 1 :]] or not notes
        assert read_lora(folder / "lora", empty).layers
