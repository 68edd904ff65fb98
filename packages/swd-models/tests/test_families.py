"""What holds for every family alike; the pipelines of diffusers are the oracle."""

import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

from swd_models import load_denoiser, load_latents, load_text, share_base
from swd_models.adapters import adapter_parameters
from swd_models.loading import check_fit, cond_shapes, family_of, load_teacher, resolve_model
from swd_models.tiny import TINY, tiny_cond

FAMILIES = list(TINY)
# Latent sizes: a square one, and a rectangle that has another shape after patching.
SIZES = {
    "sd3": [(8, 8), (6, 10)],
    "flux": [(8, 8), (6, 10)],
    "wan": [(3, 8, 8), (2, 6, 10)],
    "sdxl": [(8, 8), (8, 12)],
    "flux2": [(4, 4), (3, 5)],
}
PROMPTS = ["a big red cat", "a small blue dog"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def pipe(family):
    pipe = DiffusionPipeline.from_pretrained(resolve_model(f"random-{family}"))
    if family != "sdxl":
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample_two_steps(pipe, denoiser, latents, size, prompts):
    """Run the stock pipeline; return the latents before and after its last step, and the level of that step."""
    pixels = load_latents(f"random-{denoiser.family}").pixels(size)
    names = ("num_frames", "height", "width")[-len(size) :]
    seen = []

    def note(_pipe, _index, _timestep, tensors):
        seen.append(tensors["latents"].clone())
        return tensors

    options = {"max_sequence_length": 12} if denoiser.family in ("flux", "wan", "flux2") else {}
    options["guidance_scale"] = denoiser.guidance if denoiser.family == "flux" else 1.0
    final = pipe(
        prompt=prompts,
        latents=latents,
        num_inference_steps=2,
        output_type="latent",
        callback_on_step_end=note,
        **dict(zip(names, pixels, strict=True)),
        **options,
    )
    if denoiser.family == "flux2":  # what it returns as latents is the autoencoder's
        return seen
    return seen[0], (final.frames if len(size) == 3 else final.images)


@pytest.mark.parametrize("index", [0, 1])
def test_x0_is_what_the_pipeline_of_diffusers_computes(family, pipe, index):
    size = SIZES[family][index]
    denoiser = load_denoiser(f"random-{family}")
    x = torch.randn(2, denoiser.num_channels, *size, generator=torch.Generator().manual_seed(1))
    if family == "flux":
        from swd_models.families.flux import pack, unpack

        before, x0 = sample_two_steps(pipe, denoiser, pack(x), size, PROMPTS)
        before, x0 = unpack(before, size), unpack(x0, size)
    else:
        before, x0 = sample_two_steps(pipe, denoiser, x, size, PROMPTS)
    if family == "flux2":
        before, x0 = (tokens.transpose(1, 2).unflatten(2, size) for tokens in (before, x0))
    cond = load_text(f"random-{family}")(PROMPTS)
    if family == "sdxl":
        ve = pipe.scheduler.sigmas[1]
        sigma = float(pipe.scheduler.timesteps[1]) / 1000
        before = before / (ve**2 + 1).sqrt()
    else:
        sigma = float(pipe.scheduler.sigmas[1])
    with torch.no_grad():
        ours = denoiser(before, torch.full((2,), sigma), cond).x0
    torch.testing.assert_close(ours, x0, rtol=1e-4, atol=2e-5)


def test_text_is_the_pipelines_own(family, pipe):
    text = load_text(f"random-{family}").to("cpu")
    cond = text(PROMPTS)
    assert {name: value.shape[0] for name, value in cond.items()} == dict.fromkeys(cond, 2)
    assert all(value.shape[0] == 1 for value in text.uncond().values())
    assert text.uncond().keys() == cond.keys()
    assert text.pipe.vae is None


def test_features_are_the_same_with_and_without_the_rest(family):
    denoiser, size = TINY[family](), SIZES[family][1]
    block = denoiser.blocks[0] if family == "sdxl" else 1
    x_t, sigma = torch.randn(2, denoiser.num_channels, *size), torch.tensor([0.9, 0.4])
    cond = tiny_cond(family, 2)
    with torch.no_grad():
        whole = denoiser(x_t, sigma, cond, block=block)
        part = denoiser(x_t, sigma, cond, block=block, stop=True)
        plain = denoiser(x_t, sigma, cond)
    assert part.x0 is None
    assert plain.features is None
    assert torch.equal(whole.features, part.features)
    assert torch.equal(whole.x0, plain.x0)
    assert whole.features.shape[0] == 2
    assert whole.features.shape[2] == denoiser.num_features


def test_gradient_checkpointing_changes_no_gradient(family):
    size, gradients = SIZES[family][0], []
    for count in (0, 2, 99):
        base = TINY[family]()
        base.checkpoint(count)
        student = share_base(base, 2).student
        student.train()
        x_t = torch.randn(2, student.num_channels, *size, generator=torch.Generator().manual_seed(0))
        student(x_t, torch.tensor([0.9, 0.4]), tiny_cond(family, 2)).x0.square().sum().backward()
        gradients.append([parameter.grad for parameter in adapter_parameters(student)])
    for plain, *others in zip(*gradients, strict=True):
        assert all(torch.equal(plain, other) for other in others)


def test_latents_come_back_in_shape_and_pixels_are_counted(family):
    latents, size = load_latents(f"random-{family}"), SIZES[family][1]
    pixels = latents.pixels(size)
    x = torch.rand(1, 3, *pixels) * 2 - 1
    with torch.no_grad():
        z = latents.encode(x)
        assert z.shape == (1, TINY[family]().num_channels, *size)
        assert latents.decode(z).shape == x.shape


def test_the_teacher_samples_with_the_pipelines_own_loop(family):
    size = SIZES[family][0]
    teacher = load_teacher(f"random-{family}")
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    found = teacher(PROMPTS, size=size, num_steps=2, guidance=3.0, generators=generators)
    pixels = teacher.latents.pixels(size)
    assert len(found) == 2
    first = found[0][0] if len(size) == 3 else found[0]
    assert first.size == (pixels[-1], pixels[-2])
    assert len(size) == 2 or len(found[0]) == pixels[0]


def test_the_teachers_pixels_are_those_of_the_pipelines_own_pictures(family):
    size, seeds = SIZES[family][0], range(2)
    teacher = load_teacher(f"random-{family}")
    options = {"size": size, "num_steps": 2, "guidance": 3.0}
    found = teacher(PROMPTS, **options, generators=[torch.Generator().manual_seed(i) for i in seeds])
    names = ("num_frames", "height", "width")[-len(size) :]
    expected = teacher.pipe(
        prompt=PROMPTS, num_inference_steps=2, guidance_scale=3.0, output_type="pil",
        generator=[torch.Generator().manual_seed(i) for i in seeds],
        **dict(zip(names, teacher.latents.pixels(size), strict=True)), **teacher.options,
    )[0]  # fmt: skip
    for ours, theirs in zip(found, expected, strict=True):
        pairs = zip(ours, theirs, strict=True) if len(size) == 3 else [(ours, theirs)]
        assert all(a.tobytes() == b.tobytes() and a.mode == b.mode == "RGB" for a, b in pairs)


def test_a_compiled_teacher_samples_the_same(family):
    size, teacher = SIZES[family][0], load_teacher(f"random-{family}")

    def sample():
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        return teacher.pixels(PROMPTS, size=size, num_steps=1, guidance=3.0, generators=generators)

    before = sample()
    teacher.compile("eager", num_sizes=1)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert torch.equal(sample(), before)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0


def test_what_does_not_fit_is_refused(family):
    model = f"random-{family}"
    check_fit(model, SIZES[family], 0 if family != "sdxl" else 3)
    odd = {"wan": (3, 7, 9), "flux2": (1, 4, 4)}.get(family, (7, 9))  # klein takes any height and width
    with pytest.raises(ValueError, match="expected latent"):
        check_fit(model, [odd])
    with pytest.raises(ValueError, match="expected a block in"):
        check_fit(model, [], 99)
    assert family_of(model).denoiser.family == family


def test_the_stated_shapes_of_text_are_those_of_the_encoders(family):
    stated, found = load_denoiser(f"random-{family}").cond_shapes, cond_shapes(f"random-{family}")
    assert stated.keys() == found.keys()
    for name, shape in stated.items():
        assert shape[-1] == found[name][-1]
        assert len(shape) == len(found[name])
