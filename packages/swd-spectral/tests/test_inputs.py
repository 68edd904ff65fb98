import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from swd_data import write_video
from swd_models import load_latents
from swd_spectral.inputs import read_latents
from swd_spectral.options import Source


@pytest.fixture
def read(tmp_path):
    """Read all latents of some inputs; what is skipped is listed in out/."""

    def call(*inputs, batch=4, **options):
        return list(read_latents([str(path) for path in inputs], Source(**options), tmp_path / "out", batch=batch))

    return call


def write_image(path, width, height, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(path)


def write_frames(path, num_frames):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(num_frames)]
    write_video(path, frames, 16)


def skipped(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]


def test_images_are_cut_square_and_encoded_by_the_family(tmp_path, read):
    write_image(tmp_path / "a.png", 48, 32)
    write_image(tmp_path / "b.png", 32, 40, seed=1)
    latents = torch.cat(read(tmp_path))
    assert latents.shape == (2, 4, 8, 8)
    square = Image.open(tmp_path / "a.png").crop((8, 0, 40, 32))
    pixels = torch.from_numpy(np.asarray(square, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        torch.testing.assert_close(latents[:1], load_latents("embedded").encode(pixels))


def test_a_tiny_autoencoder_encodes_and_its_latents_are_normalised_by_the_data(tmp_path, read):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    vae = AutoencoderTiny(latent_channels=6).eval()
    save_file(vae.state_dict(), tmp_path / "tiny.safetensors")
    for seed in range(3):
        write_image(tmp_path / "images" / f"{seed}.png", 48, 32, seed)
    latents = torch.cat(read(tmp_path / "images", tiny=tmp_path / "tiny.safetensors", pixels=32))
    assert latents.shape == (3, 6, 4, 4)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(latents.std((0, 2, 3), correction=0), torch.ones(6), rtol=1e-4, atol=0)
    square = Image.open(tmp_path / "images" / "0.png").crop((8, 0, 40, 32))
    pixels = torch.from_numpy(np.asarray(square, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        plain = vae.encode(pixels).latents[0]
    scale = (latents[0] - latents[0].mean((1, 2), keepdim=True)).norm(dim=(1, 2)) / (
        plain - plain.mean((1, 2), keepdim=True)
    ).norm(dim=(1, 2))
    shapes = latents[0] - scale.view(-1, 1, 1) * plain  # one number a channel: only mean and scale were changed
    torch.testing.assert_close(shapes, shapes.mean((1, 2), keepdim=True).expand_as(shapes), rtol=1e-3, atol=1e-4)


def test_what_is_no_tiny_autoencoder_is_said_before_anything_is_encoded(tmp_path, read):
    write_image(tmp_path / "images" / "a.png", 32, 32)
    with pytest.raises(ValueError, match="expected a tiny autoencoder's"):
        read(tmp_path / "images", tiny=tmp_path / "nowhere")


def test_videos_are_encoded_frame_by_frame(tmp_path, read):
    write_frames(tmp_path / "a.mp4", 5)
    (latents,) = read(tmp_path / "a.mp4", num_frames=4, pixels=32)
    assert latents.shape == (1, 4, 4, 8, 8)
    assert read(tmp_path / "a.mp4", num_frames=3, fps=8.0)[0].shape == (1, 4, 3, 16, 16)
    with pytest.raises(ValueError, match=r"expected 9 frames at 16 a second in .*a\.mp4, got 5"):
        read(tmp_path, num_frames=9)


def test_pictures_beside_somebodys_manifest_are_read(tmp_path, read):
    for name in ("a.png", "uncond.png", "deeper/b.png"):
        write_image(tmp_path / "photos" / name, 64, 64)
    for folder in ("photos", "photos/deeper"):
        (tmp_path / folder / "manifest.json").write_text('{"name": "my gallery"}')
    assert sum(map(len, read(tmp_path / "photos", model="embedded"))) == 3


def test_of_latent_files_the_largest_size_is_read(tmp_path, read):
    top = torch.randn(70, 4, 8, 8)
    tensors = {"latents.4x4": torch.randn(70, 4, 4, 4), "latents.8x8": top, "cond.a": torch.randn(70, 99, 99)}
    save_file(tensors, tmp_path / "shard-0.safetensors")
    save_file({"a": torch.zeros(1, 3)}, tmp_path / "uncond.safetensors")
    batches = read(tmp_path, batch=2)
    assert len(batches) == 3
    assert torch.equal(torch.cat(batches), top)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16])
def test_narrow_latents_are_read_as_the_numbers_that_they_are(tmp_path, read, dtype):
    x = torch.randn(3, 4, 8, 8).to(dtype)
    save_file({"latents": x}, tmp_path / "a.safetensors")
    (latents,) = read(tmp_path)
    assert torch.equal(latents, x.float())


def test_one_bad_image_of_many_is_left_out_and_listed(tmp_path, read, capsys):
    for index in range(4):
        write_image(tmp_path / "set" / f"{index}.png", 32, 32, seed=index)
    (tmp_path / "set" / "2.png").write_bytes(b"nothing")
    good = torch.cat(read(*(tmp_path / "set" / f"{index}.png" for index in (0, 1, 3))))
    assert not (tmp_path / "out").exists()
    found = torch.cat(read(tmp_path / "set", max_bad=0.25))
    assert torch.equal(found, good)
    (row,) = skipped(tmp_path)
    assert row["file_name"].endswith("2.png")
    assert "cannot be read" in row["reason"]
    assert "1 of 4 samples are bad and left out: see" in capsys.readouterr().err
    write_image(tmp_path / "set" / "3.png", 8, 8)
    for share in (0.0, 0.01, 0.25):
        with pytest.raises(ValueError, match=r"expected an image, got .*2\.png|expected at most 0\.25 of 4 samples"):
            read(tmp_path / "set", max_bad=share)
    read(*(tmp_path / "set" / f"{index}.png" for index in (0, 1)))
    assert not (tmp_path / "out" / "skipped.jsonl").exists()


def test_latents_of_nan_are_left_out_too(tmp_path, read):
    x = torch.randn(10, 4, 8, 8)
    x[7, 2, 3, 3], x[9, 0, 0, 0] = torch.nan, torch.inf
    save_file({"latents": x}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"expected finite latents, got NaN or infinity in .*a\.safetensors\[7\]"):
        read(tmp_path)
    assert torch.equal(torch.cat(read(tmp_path, max_bad=0.2)), x[[*range(7), 8]])
    assert [row["file_name"][-3:] for row in skipped(tmp_path)] == ["[7]", "[9]"]
    save_file({"latents": x[[7, 7]]}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="expected at least one good sample, got none of 2"):
        read(tmp_path, max_bad=1.0)


def test_bad_input_is_one_clear_line(tmp_path, read):
    write_image(tmp_path / "a.png", 32, 32)
    save_file({"x": torch.zeros(1), "y": torch.zeros(1)}, tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    (tmp_path / "d.png").write_bytes(b"nothing")
    (tmp_path / "e.txt").write_text("nothing")
    a, b, c, d, e = (tmp_path / n for n in ("a.png", "b.safetensors", "c.safetensors", "d.png", "e.txt"))
    (tmp_path / "empty").mkdir()
    for inputs, message in (
        ([a, b], "got images, latents"),
        ([tmp_path / "none"], "does not exist"),
        ([tmp_path / "empty"], "got none"),
        ([e], "got .txt files"),
        ([b], "expected a tensor named latents"),
        ([c], "expected a safetensors file"),
        ([d], "cannot be read"),
    ):
        with pytest.raises(ValueError, match=f"^expected .*{message}|^{message}"):
            read(*inputs)
    with pytest.raises(ValueError, match=r"expected 64 pixels a side or more, got 32x32 in .*a\.png"):
        read(a, pixels=64)
    with pytest.raises(ValueError, match="expected a batch of 1 or more, got 0"):
        read(a, batch=0)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8, 8), (64, 15)])
def test_small_images_are_named(tmp_path, read, width, height):
    write_image(tmp_path / "a.png", width, height)
    with pytest.raises(ValueError, match=rf"expected 16 pixels a side or more, got {width}x{height} in .*a\.png"):
        read(tmp_path)
    write_image(tmp_path / "b.png", 33, 40)
    assert read(tmp_path, max_bad=0.5)[0].shape[-2:] == (8, 8)  # the small one lowers no resolution


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(4, 8, 8), r"got \(4, 8, 8\) in latents of .*a\.safetensors: save a batch"),
        (torch.zeros(2, 0, 8, 8), r"got \(2, 0, 8, 8\) in latents"),
        (torch.zeros(0, 4, 8, 8), "expected at least one sample of latents, got none"),
        (torch.zeros(2, 4, 8, 8, dtype=torch.int64), "expected latents of floats, got I64"),
        (torch.zeros(2, 4, 8, 8, dtype=torch.bool), "expected latents of floats, got BOOL"),
        (torch.zeros(2, 4, 1, 8), "expected latents of 2x2 or more, got 1x8"),
    ],
)
def test_tensors_that_are_no_latents_are_named(tmp_path, read, tensor, message):
    save_file({"latents": tensor}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=f"^expected .*{message}|^{message}"):
        read(tmp_path)


def test_latents_of_several_sizes_and_files_of_none_are_named(tmp_path, read):
    for index, size in enumerate((8, 16)):
        save_file({"latents": torch.randn(2, 4, size, size)}, tmp_path / f"{index}.safetensors")
    with pytest.raises(ValueError, match=r"got 4x8x8 in .*0\.safetensors and 4x16x16 in .*1\.safetensors"):
        read(tmp_path)
    save_file({}, tmp_path / "0.safetensors")
    with pytest.raises(ValueError, match=r"expected a tensor named latents in .*0\.safetensors, got none"):
        read(tmp_path / "0.safetensors")
