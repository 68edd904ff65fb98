"""The whole way on a random tiny member of each family: all losses, images and videos."""

import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from swd_data import read_frames
from swd_distill.presets import PRESETS
from swd_sample import SwDPipeline

SMALL = ["--data.num-images", "3", "--data.teacher-steps", "2", "--training.iterations", "2", "--recipe.fake-updates"]


PIXELS = {
    "tiny-flux": (40, 48),
    "tiny-wan": (21, 64, 96),
    "tiny-wan22": (21, 64, 96),
    "tiny-sdxl": (64, 96),
    "tiny-flux2": (40, 48),
    "tiny-qwen": (80, 96),
    "tiny-zimage": (40, 48),
}


@pytest.mark.parametrize("name", list(PIXELS))
def test_a_run_of_each_family_generates_encodes_trains_and_samples(cli, tmp_path, name):
    out = tmp_path / name
    assert f"done: see {out}/samples/comparison.png" in cli("run", name, "--out", str(out), *SMALL, "1")
    size, pixels = PRESETS[name].scales.sizes[-1], PIXELS[name]
    if len(size) == 3:
        frames = read_frames(out / "images" / "000002.mp4", pixels[0])
        assert (len(frames), frames[0].size) == (pixels[0], (pixels[2], pixels[1]))
    else:
        assert Image.open(out / "images" / "000002.png").size == pixels[::-1]
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"mmd", "dmd", "gan", "fake/denoising", "fake/discriminator"} <= last.keys()
    with safe_open(out / "lora" / "pytorch_lora_weights.safetensors", framework="pt") as lora:
        assert json.loads(lora.metadata()["swd_schedule"])["sizes"][-1] == list(size)
    samples = SwDPipeline.from_run(out)(["a big red cat"])
    assert (len(samples[0]) == pixels[0]) if len(size) == 3 else (samples[0].size == pixels[::-1])
    for form in ("comfyui", "peft", "kohya", "merged"):
        assert str(out / "export" / form) in cli("export", str(out), "--to", form, "--dtype", "float32")
    student = SwDPipeline.from_run(out)
    for form in ("comfyui", "peft", "kohya"):
        again = SwDPipeline.from_pretrained(PRESETS[name].model, lora=out / "export" / form)
        assert again.schedule == student.schedule
        assert all(map(torch.equal, again.denoiser.state_dict().values(), student.denoiser.state_dict().values()))
