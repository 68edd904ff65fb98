"""How long a device waits for this machine in `encode` and `generate` at 1024 px: the goal is at most 5 % on 2 cores.

`python -m benchmarks.feeding` writes feeding.json and .md. The real commands run on PNG files of photographs; of SD3.5
Medium's networks there are stand-ins without data, on a device without arithmetic that takes as long as an H100 would.
`--before RECORD` puts what the same benchmark wrote of earlier code beside it.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.encoding import empty_vae
from benchmarks.photographs import PHOTOGRAPHS
from benchmarks.provenance import of, provenance, write
from swd_distill.config import Config
from swd_distill.encode import encode
from swd_distill.encoder import Encoder
from swd_distill.generate import generate
from swd_distill.presets import PRESETS
from swd_models.loading import empty_denoiser
from swd_models.parts import ImageLatents, Size, Teacher

PRESET = PRESETS["sd35-medium"]
GOAL, CORES, SIDE, BATCH = 0.05, 2, 1024, 8
RATE = 494e12 / 2
"""FLOP/s of the autoencoder: half of what an H100 can in TF32."""
FORWARD = 0.188
"""Seconds of the transformer for a batch at full scale, by FLOPs and bytes; guidance takes two."""


class Device:
    """What computes nothing, but as long as it should, one thing after the other while its caller goes on."""

    def __init__(self) -> None:
        self.waited = self.busy = self.free = 0.0
        self._began: float | None = None

    def compute(self, seconds: float) -> None:
        """Take work."""
        now = time.perf_counter()
        if self._began is None:
            self._began = self.free = now
        self.waited += max(0.0, now - self.free)
        self.free = max(now, self.free) + seconds
        self.busy += seconds

    def wait(self, until: float) -> None:
        """Let the caller sleep until work is done."""
        time.sleep(max(0.0, until - time.perf_counter()))

    def row(self, batches: int) -> dict[str, float]:
        """Return the share of waiting up to the last batch, and seconds: of a batch, and after the last."""
        each, now = self.busy / batches, time.perf_counter()
        return {
            "batches": batches,
            "busy": each,
            "waited": self.waited / (self.waited + self.busy - each),
            "after": now - self.free,
        }

    @contextmanager
    def holds_meta(self) -> Iterator[None]:
        """Let tensors without data be those of this device: a copy of one comes when it is computed."""
        cpu, to, device = Tensor.cpu, Tensor.to, self

        class Event:
            def __init__(self, _: torch.device) -> None:
                pass

            def record(self) -> None:
                self._time = device.free

            def synchronize(self) -> None:
                device.wait(self._time)

        def copy(tensor: Tensor) -> Tensor:
            if not tensor.is_meta:
                return cpu(tensor)
            device.wait(device.free)
            return torch.zeros(tensor.shape, dtype=tensor.dtype)

        def start_copy(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if not tensor.is_meta or args != ("cpu",):
                return to(tensor, *args, **kwargs)
            return torch.zeros(tensor.shape, dtype=tensor.dtype)

        with patch.multiple(Tensor, cpu=copy, to=start_copy), patch("torch.Event", Event):
            yield


class StandInLatents(ImageLatents):
    """An autoencoder without data, on a device that takes its time."""

    def __init__(self, device: Device) -> None:
        with torch.device("meta"):
            super().__init__(empty_vae(empty_denoiser(PRESET.model)))
        self._device = device
        self._flops = {size: self._count(size) for size in map(self.pixels, PRESET.scales.sizes)}

    def encode(self, pixels: Tensor) -> Tensor:
        """Take as long as the FLOPs of this size."""
        self._device.compute(len(pixels) * self._flops[tuple(pixels.shape[2:])] / RATE)
        shape = (len(pixels), self.vae.config.latent_channels, *(side // self.factor for side in pixels.shape[2:]))
        return torch.empty(shape, device="meta")

    def _count(self, size: Size) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.vae.encode(torch.empty(1, 3, *size, device="meta"))
        return int(counter.get_total_flops())


class StandInEncoder(Encoder):
    """An encoder whose device computes without data."""

    def __init__(self, device: Device) -> None:
        self.device, self.dtype = torch.device("meta"), torch.bfloat16
        self.latents = StandInLatents(device)
        self.text: Any = StandInText()

    def stack(self, pixels: Sequence[Tensor]) -> Tensor:
        """Stack samples, in memory of any kind."""
        return torch.stack(list(pixels))


class StandInText:
    """Embeddings of no size to speak of."""

    def __call__(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Encode prompts."""
        return {"prompt_embeds": torch.zeros(len(prompts), 1, 1)}

    def uncond(self) -> dict[str, Tensor]:
        """Encode none."""
        return self([""])


class StandInPipeline:
    """A pipeline that samples photographs in [0, 1], on a device that takes its time."""

    def __init__(self, device: Device) -> None:
        self._device = device
        pixels = [torch.from_numpy(np.array(each)) for each in islice(cycle(photographs()), BATCH)]
        self._images = torch.stack(pixels).movedim(-1, 1).float() / 255

    def __call__(self, prompt: list[str], num_inference_steps: int, output_type: str, **_: Any) -> SimpleNamespace:
        """Sample."""
        self._device.compute(2 * FORWARD * num_inference_steps * len(prompt) / BATCH)
        self._device.wait(self._device.free)
        images, to = self._images[: len(prompt)], VaeImageProcessor
        return SimpleNamespace(images=images if output_type == "pt" else to.numpy_to_pil(to.pt_to_numpy(images)))

    def to(self, device: torch.device) -> None:
        """Stay."""

    def set_progress_bar_config(self, **_: Any) -> None:
        """Show none."""


def photographs() -> Iterator[Image.Image]:
    """Give photographs, each the middle enlarged to SIDE."""
    for load in PHOTOGRAPHS.values():
        image = Image.fromarray(load())
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        yield image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def encoding(config: Config, images: Path, batches: int) -> dict[str, float]:
    """Measure `encode` on so many batches of PNG files."""
    files = [images / f"{index}.png" for index in range(len(PHOTOGRAPHS))]
    for file, image in zip(files, photographs(), strict=True):
        image.save(file, compress_level=1)
    rows = [{"file_name": file.name, "text": "a photograph"} for file in islice(cycle(files), batches * BATCH)]
    (images / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    device = Device()
    with device.holds_meta(), patch("swd_distill.encode.Encoder", lambda model: StandInEncoder(device)):
        encode(replace(config, data=replace(config.data, images=images)))
    return device.row(batches)


def generating(config: Config, batches: int) -> dict[str, float]:
    """Measure `generate`."""
    (config.out / "prompts.txt").write_text("a photograph\n")
    device = Device()
    teacher: Any = Teacher(StandInPipeline(device), StandInLatents(device), layers=())
    data = replace(config.data, prompts=config.out / "prompts.txt", num_images=batches * BATCH)
    with patch("swd_distill.generate.load_teacher", lambda *_, **__: teacher):
        generate(replace(config, data=data))
    return device.row(batches)


def page(record: Mapping[str, Any]) -> str:
    """Lay out a record, and that of before if it has one."""
    records = {"before": record["before"], "now": record} if "before" in record else {"now": record}
    lines = [
        f"| {command} | {when} | {row['batches']} | {row['busy']:.2f} | {row['waited']:.1%} "
        f"| {'yes' if row['waited'] <= GOAL else 'no'} | {row['after']:.1f} |"
        for command in record["rows"]
        for when, each in records.items()
        for row in [each["rows"][command]]
    ]
    sources = "\n".join(f"- {when}: {of(each)}" for when, each in records.items())
    return f"""# Feeding

`python -m benchmarks.feeding`. `encode` and `generate` of SD3.5 Medium at {SIDE} px in batches of {BATCH}, on {CORES}
cores, from and to PNG files of photographs. The device is a stand-in that takes as long as an H100 would: the FLOPs of
the autoencoder in float32 at the schedule's sizes at {RATE / 1e12:.0f} TFLOP/s (half of TF32's peak), or
{FORWARD * 1000:.0f} ms a forward, two a step. It is handed work ahead, as a GPU is, and a copy from it comes when what
is copied is computed. It waits where it has done all that it was handed; reckoned up to its last batch.

{sources}

| | | batches | device, s a batch | it waits | at most {GOAL:.0%} | s after its last batch |
|---|---|---|---|---|---|---|
""" + "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encode", type=int, default=160, help="batches; a shard of the cache is 128")
    parser.add_argument("--generate", type=int, default=4, help="batches")
    parser.add_argument("--before", type=Path, help="record of earlier code")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(CORES)
    record = provenance({"encode": args.encode, "generate": args.generate, "steps": PRESET.data.teacher_steps})
    with TemporaryDirectory() as folder:
        out, images = Path(folder) / "run", Path(folder) / "images"
        out.mkdir()
        images.mkdir()
        config = replace(PRESET, out=out)
        rows = {"encode": encoding(config, images, args.encode), "generate": generating(config, args.generate)}
    before = {"before": json.loads(args.before.read_text())} if args.before else {}
    record |= {"rows": rows} | before
    write(record, page(record), args.out / "feeding")


if __name__ == "__main__":
    main()
