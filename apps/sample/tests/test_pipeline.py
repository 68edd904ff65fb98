import pytest
import torch
from PIL import ImageChops

import swd_sample
from swd_models import load_denoiser
from swd_sample import SwDPipeline
from swd_sample.media import to_media
from swd_sample.pipeline import model_of
from swd_schedules import ScaleSchedule, presets, sample_scalewise

CIRCLE, CROSS = "a big red circle at the left, green background", "a small blue cross, white background"


def _furthest(one, other):
    return max(high for _, high in ImageChops.difference(one, other).getextrema())


def test_a_run_brings_model_lora_and_schedule(run, pipe):
    assert model_of(run) == "embedded"
    assert pipe.schedule == presets.TINY_4
    same = SwDPipeline.from_pretrained("embedded", lora=run / "lora", device="cpu")
    assert same([CIRCLE])[0].tobytes() == pipe([CIRCLE])[0].tobytes()


def test_merged_and_apart_the_lora_gives_the_same_image(run, pipe):
    apart = SwDPipeline.from_run(run, merge=False)
    names = [name for name, _ in apart.denoiser.named_parameters()]
    assert any(".lora_A." in name for name in names)
    assert not any("lora" in name for name, _ in pipe.denoiser.named_parameters())
    assert _furthest(apart([CIRCLE])[0], pipe([CIRCLE])[0]) <= 1


def test_compiled_blocks_give_the_same_image(run, pipe):
    compiled = SwDPipeline.from_run(run)
    assert compiled.compile("eager") == 2 * len(compiled.schedule.sizes) * 2  # kinds of blocks
    assert _furthest(compiled([CIRCLE])[0], pipe([CIRCLE])[0]) <= 1


def test_a_device_that_is_not_there_is_refused(run):
    with pytest.raises(ValueError, match="expected a device of this machine, got cuda:99"):
        SwDPipeline.from_run(run, device="cuda:99")


def test_the_lora_changes_the_image(pipe):
    undistilled = SwDPipeline.from_pretrained("embedded", schedule=presets.TINY_4)
    assert _furthest(undistilled([CIRCLE])[0], pipe([CIRCLE])[0]) > 1


def test_an_image_depends_on_its_own_seed_and_not_on_the_batch(pipe):
    together = pipe([CIRCLE, CROSS, CIRCLE], seed=5)
    for i, prompt in enumerate([CIRCLE, CROSS, CIRCLE]):
        assert _furthest(together[i], pipe([prompt], seed=5 + i)[0]) <= 1
    assert _furthest(together[0], together[2]) > 1


def test_the_global_generator_is_neither_read_nor_moved(pipe):
    torch.manual_seed(1)
    first, state = pipe([CIRCLE])[0], torch.get_rng_state()
    torch.manual_seed(2)
    assert pipe([CIRCLE])[0].tobytes() == first.tobytes()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_stage_is_seen_at_its_size(pipe):
    seen = []
    media = pipe([CIRCLE, CROSS], callback_on_step_end=lambda *step: seen.append(step))
    assert [index for _, index, _, _ in seen] == [0, 1, 2, 3]
    assert [timestep for _, _, timestep, _ in seen] == pytest.approx(presets.TINY_4.timesteps)
    assert [step["latents"].shape for *_, step in seen] == [(2, 4, side, side) for side in (8, 10, 12, 16)]
    stages = list(pipe.stages([CIRCLE, CROSS]))
    assert [stage for stage, _ in stages] == list(presets.TINY_4.stages)
    assert all(torch.equal(x0, step["latents"]) for (_, x0), (*_, step) in zip(stages, seen, strict=True))
    assert [image.tobytes() for image in pipe.decode(stages[-1][1])] == [image.tobytes() for image in media]


def test_memory_is_cleared_before_prompts_and_before_decoding_whose_whole_batch_is_counted(pipe, monkeypatch):
    """A use of parts that come one at a time may have been given up, with the denoiser on the device."""
    seen = []
    monkeypatch.setattr(pipe, "_clear", lambda: seen.append("clear"))
    monkeypatch.setattr("swd_sample.pipeline.decode_in_tiles", lambda *given: seen.append(given[1:]))
    text = pipe.text
    monkeypatch.setattr(pipe, "text", lambda prompts: (seen.append("text"), text(prompts))[1])
    pipe([CIRCLE, CROSS])
    assert seen == ["clear", "text", "clear", ((16, 16), pipe.device, 2), "clear"]


def test_a_string_is_one_prompt_and_one_may_have_several_images(pipe):
    (one,) = pipe(CIRCLE, seed=4)
    assert one.tobytes() == pipe([CIRCLE], seed=4)[0].tobytes()
    several = pipe([CIRCLE, CROSS], num_images_per_prompt=2, seed=3)
    assert len(several) == 4
    assert _furthest(several[1], one) <= 1
    assert _furthest(several[2], pipe(CROSS, seed=5)[0]) <= 1


def test_generators_may_be_given_as_to_diffusers(pipe):
    own = pipe(CIRCLE, generator=torch.Generator().manual_seed(9))
    assert own[0].tobytes() == pipe(CIRCLE, seed=9)[0].tobytes()
    with pytest.raises(ValueError, match="expected 1 generators, got 2"):
        pipe(CIRCLE, generator=[torch.Generator()] * 2)


@pytest.mark.parametrize(
    ("prompt", "options", "line"),
    [
        ([], {}, "expected a prompt, or several, as text, got none"),
        ([CIRCLE, 3], {}, "expected a prompt, or several, as text, got 3"),
        (CIRCLE, {"num_images_per_prompt": 0}, "expected num_images_per_prompt of at least 1, got 0"),
    ],
)
def test_what_is_no_prompt_is_one_line(pipe, prompt, options, line):
    with pytest.raises(ValueError, match=line):
        pipe(prompt, **options)


def test_another_schedule_can_be_given_for_a_call_or_for_good(run, pipe):
    short = ScaleSchedule.square((1000.0, 700.0), (8, 12))
    assert pipe([CIRCLE], schedule=short)[0].size == (48, 48)
    assert pipe.schedule == presets.TINY_4
    other = SwDPipeline.from_pretrained("embedded", lora=run / "lora", schedule=short)
    assert other([CIRCLE])[0].tobytes() == pipe([CIRCLE], schedule=short)[0].tobytes()


def test_images_need_not_be_square(pipe):
    wide = ScaleSchedule((1000.0, 700.0), ((6, 8), (8, 16)))
    assert pipe([CIRCLE], schedule=wide)[0].size == (64, 32)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@torch.no_grad()
def test_guidance_extrapolates_from_the_empty_prompt(pipe, guidance):
    cond, empty = pipe.text([CIRCLE]), pipe.text([""])
    denoiser, seen = pipe.denoiser, []

    def denoise(x_t, sigma):
        without = denoiser.denoise(x_t, sigma, empty)
        return without + guidance * (denoiser.denoise(x_t, sigma, cond) - without)

    generator = [torch.Generator().manual_seed(0)]
    expected = sample_scalewise(denoise, presets.TINY_4, (1, 4), generator=generator)
    pipe([CIRCLE], guidance_scale=guidance, callback_on_step_end=lambda *step: seen.append(step[-1]["latents"]))
    torch.testing.assert_close(seen[-1], expected, rtol=1e-3, atol=1e-3)


def test_without_any_schedule_the_model_is_refused():
    with pytest.raises(ValueError, match="expected a schedule, got none"):
        SwDPipeline.from_pretrained("embedded")


def test_a_schedule_that_the_model_cannot_take_is_refused():
    with pytest.raises(ValueError, match="at most 16, got 32x32"):
        SwDPipeline.from_pretrained("embedded", schedule=ScaleSchedule.square((1000.0,), (32,)))


def test_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected a run folder with config\.json"):
        SwDPipeline.from_run(tmp_path)


def test_pixels_are_rounded_and_clipped():
    images = torch.tensor([-1.5, -1.0, 0.0, 1.0, 2.0]).expand(1, 3, 1, 5)
    assert list(to_media(images)[0].tobytes()[::3]) == [0, 0, 128, 255, 255]


def test_the_package_offers_the_pipeline_and_nothing_else(pipe):
    assert swd_sample.__all__ == ["SwDPipeline"]
    assert isinstance(pipe, swd_sample.SwDPipeline)
    assert type(pipe.denoiser) is type(load_denoiser("embedded"))
    with pytest.raises(AttributeError, match="No swd_sample attribute Pipeline"):
        _ = swd_sample.Pipeline
