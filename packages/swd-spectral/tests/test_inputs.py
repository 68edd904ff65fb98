import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from swd_models import load_latents
from swd_models.video import write_video
from swd_spectral.inputs import read_latents


def write_image(path, width, height, seed=0):
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(path)


def write_frames(path, num_frames):
    rng = np.random.default_rng(0)
    write_video(path, [Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(num_frames)])


def test_images_are_cut_square_and_encoded_by_the_family(tmp_path):
    write_image(tmp_path / "a.png", 48, 32)
    write_image(tmp_path / "b.png", 32, 40, seed=1)
    latents = torch.cat(list(read_latents([str(tmp_path)])))
    assert latents.shape == (2, 4, 8, 8)
    square = Image.open(tmp_path / "a.png").crop((8, 0, 40, 32))
    pixels = torch.from_numpy(np.asarray(square, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        torch.testing.assert_close(latents[:1], load_latents("embedded").encode(pixels))


def test_videos_are_encoded_frame_by_frame(tmp_path):
    write_frames(tmp_path / "a.mp4", 5)
    (latents,) = read_latents([str(tmp_path / "a.mp4")], num_frames=4, pixels=32)
    assert latents.shape == (1, 4, 4, 8, 8)
    with pytest.raises(ValueError, match="expected 9 frames or more, got 5"):
        list(read_latents([str(tmp_path)], num_frames=9))


def test_of_latent_files_the_largest_size_is_read(tmp_path):
    top = torch.randn(70, 4, 8, 8)
    tensors = {"latents.4x4": torch.randn(70, 4, 4, 4), "latents.8x8": top, "cond.a": torch.randn(70, 99, 99)}
    save_file(tensors, tmp_path / "shard-0.safetensors")
    save_file({"a": torch.zeros(1, 3)}, tmp_path / "uncond.safetensors")
    batches = list(read_latents([str(tmp_path)], batch=2))
    assert len(batches) == 3
    assert torch.equal(torch.cat(batches), top)


def test_bad_input_is_one_clear_line(tmp_path):
    write_image(tmp_path / "a.png", 32, 32)
    save_file({"x": torch.zeros(1), "y": torch.zeros(1)}, tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    (tmp_path / "d.png").write_bytes(b"nothing")
    (tmp_path / "e.txt").write_text("nothing")
    a, b, c, d, e = (str(tmp_path / f"{n}") for n in ("a.png", "b.safetensors", "c.safetensors", "d.png", "e.txt"))
    for inputs, message in (
        ([a, b], "got images, latents"),
        ([str(tmp_path / "none")], "does not exist"),
        ([e], "got .txt files"),
        ([b], "expected a tensor named latents"),
        ([c], "expected a safetensors file"),
        ([d], "cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            list(read_latents(inputs))
    with pytest.raises(ValueError, match="expected images of 64 px or more, got 32"):
        list(read_latents([a], pixels=64))
