"""Two experts as one denoiser, as Wan2.2-T2V-A14B has them; the pipeline of diffusers is the oracle."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

from swd_models import load_denoiser, load_latents, load_lora, load_text, placing, save_lora, share_base
from swd_models.adapters import adapter_parameters
from swd_models.loading import empty_denoiser, experts_of, first_device, load_teacher, resolve_model
from swd_models.lora.files import FILES, read_lora, write_lora
from swd_models.placing import place
from swd_models.tiny import tiny_cond
from swd_schedules import ScaleSchedule, sample_scalewise

MODEL = "random-wan22-a14b"
PROMPTS = ["a big red cat", "a small blue dog a big cat"]
SIZES = [(3, 8, 8), (2, 6, 10), (1, 12, 8)]
SCHEDULE = ScaleSchedule.parse("1000:1x4x4,896:2x4x6,737:2x6x6,602:3x6x8")


def with_boundary(folder, boundary):
    """Return the model with another boundary."""
    source = Path(resolve_model(MODEL))
    for part in source.iterdir():
        (folder / part.name).symlink_to(part)
    index = json.loads((source / "model_index.json").read_text())
    (folder / "model_index.json").unlink()
    (folder / "model_index.json").write_text(json.dumps(index | {"boundary_ratio": boundary}))
    return str(folder)


def steps_of(pipe, x, num_steps, **options):
    """Run the stock pipeline from noise; return x_t, sigma and x0 of each of its steps."""
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    pipe.set_progress_bar_config(disable=True)
    pixels = dict(zip(("num_frames", "height", "width"), load_latents(MODEL).pixels(x.shape[2:]), strict=True))
    seen = [x]

    def note(_pipe, _index, _timestep, tensors):
        seen.append(tensors["latents"].clone())
        return tensors

    options = {"guidance_scale": 1.0} | options
    pipe(
        prompt=PROMPTS, latents=x, num_inference_steps=num_steps, max_sequence_length=12, output_type="latent",
        callback_on_step_end=note, **pixels, **options,
    )  # fmt: skip
    sigmas = pipe.scheduler.sigmas.tolist()
    for i in range(num_steps):
        velocity = (seen[i + 1] - seen[i]) / (sigmas[i + 1] - sigmas[i])
        yield seen[i], sigmas[i], seen[i] - sigmas[i] * velocity


@pytest.mark.parametrize("size", SIZES)
def test_x0_is_what_the_pipeline_computes_on_both_sides_of_the_boundary(size):
    denoiser, cond = load_denoiser(MODEL), load_text(MODEL)(PROMPTS)
    assert [each.expert.name for each in denoiser.experts] == ["high-noise", "low-noise"]
    x, used = torch.randn(2, denoiser.num_channels, *size, generator=torch.Generator().manual_seed(1)), []
    for each in denoiser.experts:
        each.register_forward_pre_hook(lambda part, _: used.append(part.expert.name))
    for x_t, sigma, x0 in steps_of(DiffusionPipeline.from_pretrained(resolve_model(MODEL)), x, 8):
        with torch.no_grad():
            ours = denoiser(x_t, torch.full((2,), sigma), cond).x0
        torch.testing.assert_close(ours, x0, rtol=1e-4, atol=1e-4)
    assert used == ["high-noise"] + ["low-noise"] * 7  # the second step is at .857


def test_a_step_on_the_boundary_is_the_high_noise_experts(tmp_path):
    model = with_boundary(tmp_path, 0.5005)
    denoiser, cond = load_denoiser(model), load_text(model)(PROMPTS)
    x = torch.randn(2, denoiser.num_channels, *SIZES[0], generator=torch.Generator().manual_seed(1))
    (_, (x_t, sigma, x0), _) = steps_of(DiffusionPipeline.from_pretrained(model), x, 3)
    assert sigma == pytest.approx(0.5005)
    with torch.no_grad():
        torch.testing.assert_close(denoiser(x_t, torch.full((2,), sigma), cond).x0, x0, rtol=1e-4, atol=1e-4)
        low = denoiser.experts[1](x_t, torch.full((2,), sigma), cond).x0
    assert (low - x0).norm() > 0.01 * x0.norm()


def test_a_pass_has_one_expert():
    denoiser = load_denoiser(MODEL)
    with pytest.raises(ValueError, match=r"noise levels of one expert in a pass, got 0\.5 to 0\.9"):
        denoiser(torch.zeros(2, 4, *SIZES[0]), torch.tensor([0.9, 0.5]), tiny_cond("wan", 2))


@pytest.mark.parametrize("boundary", [0, 1.5, "a", True, [0.5]])
def test_a_boundary_that_is_none_is_one_line(tmp_path, boundary):
    model = with_boundary(tmp_path, boundary)
    with pytest.raises(ValueError, match="expected a boundary_ratio above 0 and below 1 in the pipeline's index, got"):
        load_denoiser(model)


def test_models_of_one_denoiser_are_as_they_were():
    (expert,) = experts_of("random-wan")
    assert (expert.name, expert.levels) == ("", (0.0, 1.0))
    denoiser = load_denoiser("random-wan")
    assert denoiser.experts == (denoiser,)
    assert denoiser.folder == "transformer"


def test_the_teacher_is_the_stock_pipeline():
    options = {"size": SIZES[0], "num_steps": 4, "guidance": 3.0}
    ours = load_teacher(MODEL).pixels(PROMPTS[:1], generators=[torch.Generator().manual_seed(7)], **options)
    pipe = DiffusionPipeline.from_pretrained(resolve_model(MODEL))
    pipe.set_progress_bar_config(disable=True)
    frames = pipe(
        PROMPTS[0], num_frames=9, height=64, width=64, num_inference_steps=4, guidance_scale=3.0, output_type="pt",
        generator=torch.Generator().manual_seed(7), max_sequence_length=12,
    ).frames  # fmt: skip
    assert (ours - (frames * 255).movedim(2, -1)).abs().max() < 0.6  # rounding, and that of fused norms


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    """A folder with a random LoRA of each expert."""
    folder = tmp_path_factory.mktemp("loras")
    for seed, expert in enumerate(experts_of(MODEL)):
        student = share_base(load_denoiser(MODEL, expert=expert), 3, fake=False, seed=seed).student
        with torch.no_grad():
            for parameter in adapter_parameters(student):
                parameter.normal_(std=0.2)
        save_lora(student, folder / expert.name, schedule=SCHEDULE)
    return folder


def test_both_loras_load_into_stock_diffusers_with_equal_output(loras):
    pipe = DiffusionPipeline.from_pretrained(resolve_model(MODEL))
    pipe.load_lora_weights(loras / "high-noise", adapter_name="high")
    pipe.load_lora_weights(loras / "low-noise", adapter_name="low", load_into_transformer_2=True)
    denoiser, cond = load_denoiser(MODEL), load_text(MODEL)(PROMPTS)
    assert load_lora(denoiser, loras, merge=True) == SCHEDULE
    x = torch.randn(2, denoiser.num_channels, *SIZES[0], generator=torch.Generator().manual_seed(1))
    for x_t, sigma, x0 in steps_of(pipe, x, 4):
        with torch.no_grad():
            torch.testing.assert_close(denoiser(x_t, torch.full((2,), sigma), cond).x0, x0, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", ["comfyui", "peft"])
def test_other_forms_are_exact_and_back(loras, tmp_path, form):
    empty = empty_denoiser(MODEL)
    for name in ("high-noise", "low-noise"):
        before = read_lora(loras / name, empty)
        after = read_lora(write_lora(before, empty, tmp_path / name, form), empty)
        assert after.state.keys() == before.state.keys()
        assert all(torch.equal(after.state[key], before.state[key]) for key in before.state)


def test_a_lora_for_one_expert_alone_is_one_line(loras, tmp_path):
    denoiser = load_denoiser(MODEL)
    for path in (loras / "high-noise", loras / "high-noise" / FILES["diffusers"], tmp_path):
        with pytest.raises(ValueError, match="expected a folder with high-noise and low-noise, a LoRA in each, got"):
            load_lora(denoiser, path)


def test_sampling_hands_over_at_the_boundary(loras):
    """The experts one by one, each with its LoRA and its stages, give what both as one do."""
    cond, both = tiny_cond("wan", 2), load_denoiser(MODEL)
    load_lora(both, loras, merge=True)
    options = {"shape": (2, 4), "process": both.process}
    generator, x0 = torch.Generator().manual_seed(3), None
    for expert in experts_of(MODEL):
        one = load_denoiser(MODEL, expert=expert)
        load_lora(one, loras, merge=True)
        with torch.no_grad():
            x0 = sample_scalewise(
                lambda x_t, sigma, one=one: one.denoise(x_t, sigma, cond), SCHEDULE, generator=generator,
                levels=expert.levels, start=x0, **options,
            )  # fmt: skip
    with torch.no_grad():
        whole = sample_scalewise(
            lambda x_t, sigma: both.denoise(x_t, sigma, cond),
            SCHEDULE,
            generator=torch.Generator().manual_seed(3),
            **options,
        )
    assert torch.equal(x0, whole)


def test_experts_that_do_not_fit_together_come_one_at_a_time(monkeypatch):
    monkeypatch.setattr(placing, "free_bytes", lambda device: 1000)
    device = torch.device("meta")
    assert first_device(MODEL, "bf16", device) == "cpu"
    assert first_device("random-wan", "bf16", device) == first_device(MODEL, "nf4", device) == device
    denoiser, moves = load_denoiser(MODEL), []
    place(denoiser.experts, device)
    for part in denoiser.experts:
        part.to = lambda where, part=part: moves.append((part.expert.name, torch.device(where).type)) or part
        part._hf_hook.pre_forward(part)
    assert moves == [("high-noise", "meta"), ("low-noise", "meta")]


def test_roles_are_shared_over_one_expert():
    with pytest.raises(ValueError, match="expected one denoiser, got two experts: load each with `expert=`"):
        share_base(load_denoiser(MODEL), 2)


def test_recomputing_reaches_both_experts():
    denoiser = load_denoiser(MODEL)
    denoiser.checkpoint(2)
    assert [each.checkpointed for each in denoiser.experts] == [2, 2]
