import json
import math

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

from benchmarks import overhead
from benchmarks.latency import __main__ as latency
from benchmarks.latency.bench import ratio
from benchmarks.latency.encoders import RandomText
from benchmarks.latency.flops import step_flops
from benchmarks.latency.models import _decode, _decoder_of, from_file, materialise, random_decoder, tiny
from benchmarks.latency.paper import TABLE_4, reckon
from benchmarks.latency.rows import INVENTED, SCALEWISE, TINY, rows, schedules
from benchmarks.latency.timing import Stopwatch
from benchmarks.provenance import data_sheet
from swd_models.autoencoders.taehv import TinyVideoAutoencoder
from swd_models.loading import empty_denoiser
from swd_sample.presets import SOURCES

# TFLOP of one forward at each size of the four steps, counted once outside of this repository.
FORWARDS = {
    "sd35-medium": (2.44, 3.77, 5.59, 11.25),
    "sd35-large": (7.98, 11.79, 16.77, 31.12),
    "flux": (10.35, 21.50, 41.93, 74.38),
    "sdxl": (1.59, 2.49, 3.64, 6.76),
    "wan": (2.99, 14.68, 52.35, 283.0),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_scale_wise_steps_cost_their_share_of_full_scale(name):
    few, many = (sum(step_flops(name, schedules(name)[row])) for row in ("scale-4", "full-4"))
    expected = FORWARDS[name]
    assert few / many == pytest.approx(sum(expected) / (4 * expected[-1]), rel=0.02)
    assert many / 4e12 == pytest.approx(expected[-1], rel=0.02)


@pytest.mark.parametrize("name", TABLE_4)
def test_flops_predict_the_scale_wise_rows_of_table_4(name):
    for row, seconds in reckon(name).items():
        if row.startswith("full"):
            assert seconds == pytest.approx(TABLE_4[name][row], rel=1e-6)  # where the two constants are from
        elif INVENTED.get(name) != row:
            assert seconds == pytest.approx(TABLE_4[name][row], rel=0.12)


@pytest.mark.parametrize("name", [*SCALEWISE, *TINY])
def test_all_rows_of_a_model_end_at_one_size_and_the_teacher_has_more_steps(name):
    found = rows(name)
    assert {row.schedule.sizes[-1] for row in found.values()} == {found["full-4"].schedule.sizes[-1]}
    assert [len(row.schedule.sizes) for row in found.values()] == [4, 2, 6, 4, 4]
    assert found["teacher"].steps > 20
    assert found["teacher"].guidance > 1


# Parameters of text_encoder* on the models' cards: CLIP-L .123, CLIP-G .695, T5-XXL 4.762, UMT5-XXL 5.681 billion.
@pytest.mark.parametrize(("name", "billions"), [("sd35-medium", 5.58), ("flux", 4.89), ("wan", 5.68), ("sdxl", 0.818)])
def test_random_text_encoders_are_of_full_size_and_fit_the_denoiser(name, billions):
    denoiser = empty_denoiser(SOURCES[name].model)
    with torch.device("meta"):
        text = RandomText(denoiser.family, denoiser.cond_shapes)
    assert sum(parameter.numel() for parameter in text.parameters()) / 1e9 == pytest.approx(billions, rel=0.01)
    assert {key: tuple(value.shape[1:]) for key, value in text(2).items()} == denoiser.cond_shapes


def test_what_was_empty_computes_finite_numbers_in_half_precision():
    denoiser = materialise(empty_denoiser("random-flux"), torch.device("cpu"), torch.float16)
    cond = {key: torch.randn(2, *shape) for key, shape in denoiser.cond_shapes.items()}
    assert denoiser.denoise(torch.randn(2, 4, 4, 6), torch.ones(2), cond).isfinite().all()


def test_a_tiny_autoencoder_from_a_file_is_of_the_models_latents(tmp_path):
    path, cpu = tmp_path / "taesd.safetensors", torch.device("cpu")
    save_file(AutoencoderTiny(latent_channels=4).state_dict(), path)
    vae = from_file(path, empty_denoiser("random-sd3"), cpu, torch.float64)
    assert (vae.config.latent_channels, vae.dtype) == (4, torch.float64)
    with pytest.raises(ValueError, match=r"of 16 channels for flux, got 4 in .*: choose its --models"):
        from_file(path, empty_denoiser("black-forest-labs/FLUX.1-dev"), cpu, torch.float32)


def test_a_tiny_autoencoder_of_videos_makes_all_frames_at_once(tmp_path):
    path, cpu = tmp_path / "taew2_1.safetensors", torch.device("cpu")
    save_file(TinyVideoAutoencoder(4).state_dict(), path)
    vae = from_file(path, empty_denoiser("random-wan"), cpu, torch.float32)
    latents = torch.randn(2, 4, 3, 4, 6)
    assert torch.equal(_decode(vae, latents), vae.decode(latents).sample)
    assert _decode(vae, latents[:, :, 0]).shape == (2, 3, 32, 48)
    assert _decoder_of(vae) == list(vae.decoder)


def test_a_random_decoder_makes_a_videos_frames_of_its_latents():
    _, decode = random_decoder(4, torch.device("cpu"), torch.float32)
    assert decode(torch.randn(2, 4, 3, 4, 6)).shape == (2, 3, 9, 32, 48)
    assert decode(torch.randn(2, 4, 4, 6)).shape == (2, 3, 32, 48)
    latents = torch.randn(1, 4, 3, 4, 6)
    frames = decode(latents)
    for frame, latent in ((0, 0), (1, 1), (4, 1), (5, 2), (8, 2)):
        torch.testing.assert_close(frames[:, :, frame], decode(latents[:, :, latent]), rtol=1e-4, atol=1e-5)


def test_compiled_by_block_a_model_predicts_the_same():
    model = tiny("random-sd3")
    x_t, cond = torch.ones(1, 4, 8, 8), model.text(1)
    expected = model.denoiser.denoise(x_t, torch.ones(1), cond)
    model.compile(1, backend="eager")
    torch.testing.assert_close(model.denoiser.denoise(x_t, torch.ones(1), model.text(1)), expected)
    assert all(layer._compiled_call_impl is not None for layer in model.denoiser.layers)
    assert model.denoiser._compiled_call_impl is None


def test_a_devices_data_sheet_is_found_by_its_name():
    assert data_sheet("NVIDIA H100 80GB HBM3").half == 989
    assert data_sheet("NVIDIA GeForce RTX 4090").half == 165
    assert data_sheet("something new") is None
    assert data_sheet("NVIDIA H100 PCIe") is None  # a slower card


def test_spans_of_one_name_add_up_and_are_then_forgotten():
    watch = Stopwatch(torch.device("cpu"))
    with watch.span("all"):
        for _ in range(2):
            with watch.span("part"):
                math.factorial(2000)
    found = watch.seconds()
    assert 0 < found["part"] <= found["all"]
    assert watch.seconds() == {}


def test_the_expected_ratio_is_that_of_flops_with_what_does_not_shrink():
    def row(steps, flops):
        parts = {"text": 1.0, "step 0": steps, "step 1": steps, "decode": 1.0}
        return {"parts": parts, "flops": {"text": 7, "step 0": flops, "step 1": flops}}

    found = ratio(row(2.0, 50), row(4.0, 100), seconds=0.6)
    assert (found["flops"], found["overhead"]) == (0.5, 0.2)
    assert found["expected"] == pytest.approx((2 + 8 * 0.5) / 10)
    assert found["off"] == pytest.approx(0.0)


def test_without_a_gpu_a_tiny_model_is_timed_and_the_page_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    latency.main(["--models", "random-flux", "--runs", "1", "--batch", "2", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "latency-cpu.json").read_text())
    assert record["config"] | {"models": None} == {
        "models": None, "batch": 2, "runs": 1, "compile": False, "device": "cpu", "dtype": "float32",
    }  # fmt: skip
    assert record["seed"] == 0
    assert len(record["commit"].split("-")[0]) in (7, 40)  # "unknown" where the sources are no checkout
    assert set(record["versions"]) == {"python", "torch", "diffusers", "transformers", "peft"}
    assert "cores" in record["machine"]
    found = record["models"]["random-flux"]["rows"]
    assert set(found) == {"full-4", "full-2", "scale-6", "scale-4", "teacher"}
    for row in found.values():
        assert not {"tflops", "share of peak", "host gaps", "peak_gib"} & set(row)  # numbers of a GPU
        assert row["seconds"] >= row["measured"]["median"] > 0
        assert sum(row["flops"].values()) > 0
    page = (tmp_path / "latency-cpu.md").read_text()
    assert capsys.readouterr().out.strip() == page.strip()
    assert "Run without a GPU" in page
    assert "Of the device" not in page


def test_what_sampling_takes_beyond_its_forwards_is_split(tmp_path, capsys):
    overhead.main(["--models", "random-flux", "--presets", "--runs", "2", "--batch", "2", "--out", str(tmp_path)])
    assert "| sampling, random-flux |" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "overhead-cpu.json").read_text())["rows"].values()
    assert set(row["shares"]) == {"resizing", "noise", "arithmetic and python"}
    assert row["over"] > 0
    assert sum(row["shares"].values()) == pytest.approx(row["over"])


def test_a_call_within_a_timed_call_is_timed_once():
    clock = overhead.Clock()
    inner = clock.timed("inner", lambda: math.factorial(3000))
    clock.timed("outer", inner)()
    assert set(clock.spent) == {"outer"}
    inner()
    assert set(clock.spent) == {"outer", "inner"}
