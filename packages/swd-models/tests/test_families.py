"""What holds for every family alike; the pipelines of diffusers are the oracle."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from swd_models import load_denoiser, load_latents, load_text, share_base
from swd_models.adapters import adapter_parameters
from swd_models.families.flux import pack, unpack
from swd_models.loading import check_fit, cond_shapes, facts_of, family_of, load_teacher, resolve_model
from swd_models.tiny import SIZES, TINY, tiny_cond

FAMILIES = list(TINY)
PROMPTS = ["a big red cat", "a small blue dog a big cat"]


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


def sample_two_steps(pipe, denoiser, x, prompts, guidance=None):
    """Run the stock pipeline; return the latents before and after its last step, and the level of that step."""
    family, size = denoiser.family, x.shape[2:]
    pixels = load_latents(f"random-{family}").pixels(size)
    names = ("num_frames", "height", "width")[-len(size) :]
    packed = family in ("flux", "qwen")
    seen = []

    def note(_pipe, _index, _timestep, tensors):
        seen.append(tensors["latents"].clone())
        return tensors

    options = {} if family in ("sd3", "sdxl") else {"max_sequence_length": 12}
    final = pipe(
        prompt=list(prompts),
        latents=pack(x) if packed else pixel_unshuffle(x, 2) if family == "flux2" else x,
        num_inference_steps=2,
        output_type="latent",
        callback_on_step_end=note,
        **dict(zip(names, pixels, strict=True)),
        **options,
        **load_text(f"random-{family}").guiding(len(prompts), guidance or denoiser.guidance or 1.0),
    )
    # What FLUX.2 returns as latents is the autoencoder's.
    before, x0 = seen if family == "flux2" else (seen[0], final.frames if len(size) == 3 else final.images)
    if packed:
        before, x0 = unpack(before, size), unpack(x0, size)
    if family == "flux2":
        cells = [side // 2 for side in size]
        before, x0 = (pixel_shuffle(tokens.transpose(1, 2).unflatten(2, cells), 2) for tokens in (before, x0))
    if family == "sdxl":
        before = before / (pipe.scheduler.sigmas[1] ** 2 + 1).sqrt()
        return before, x0, float(pipe.scheduler.timesteps[1]) / 1000
    return before, x0, float(pipe.scheduler.sigmas[1])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_x0_is_what_the_pipeline_of_diffusers_computes(family, pipe, index):
    denoiser = load_denoiser(f"random-{family}")
    size = SIZES[family][index]
    x = torch.randn(2, denoiser.num_channels, *size, generator=torch.Generator().manual_seed(1))
    before, x0, sigma = sample_two_steps(pipe, denoiser, x, PROMPTS)
    cond = load_text(f"random-{family}")(PROMPTS)
    with torch.no_grad():
        ours = denoiser(before, torch.full((2,), sigma), cond).x0
    torch.testing.assert_close(ours, x0, rtol=1e-4, atol=2e-5)


def test_guidance_is_the_pipelines_own(family, pipe):
    denoiser, text = load_denoiser(f"random-{family}"), load_text(f"random-{family}")
    if denoiser.guidance is not None:
        pytest.skip("is told its guidance")
    x = torch.randn(2, denoiser.num_channels, *SIZES[family][1], generator=torch.Generator().manual_seed(1))
    before, x0, level = sample_two_steps(pipe, denoiser, x, PROMPTS, guidance=3.0)
    sigma, uncond = (
        torch.full((2,), level),
        {name: value.expand(2, *value.shape[1:]) for name, value in text.uncond().items()},
    )
    with torch.no_grad():
        with_prompt, without = (denoiser(before, sigma, cond).x0 for cond in (text(PROMPTS), uncond))
    ours = denoiser.guide(before, sigma, with_prompt, without, 3.0)
    torch.testing.assert_close(ours, x0, rtol=1e-4, atol=2e-5)
    assert (with_prompt - x0).norm() > 10 * (ours - x0).norm()


def test_features_are_image_tokens_in_the_images_order(family):
    if family == "sdxl":
        pytest.skip("convolutions spread a cell over its neighbours")
    denoiser, size = TINY[family](), SIZES[family][1]
    x, sigma, cond, block = (
        torch.randn(1, denoiser.num_channels, *size),
        torch.ones(1),
        tiny_cond(family, 1),
        denoiser.blocks[0],
    )
    patch = (1,) * (len(size) - 2) + (2, 2)
    cells = tuple(side // p for side, p in zip(size, patch, strict=True))

    def features(x):
        with torch.no_grad():
            return denoiser(x, sigma, cond, block=block, stop=True).features[0]

    before = features(x)
    assert len(before) == math.prod(cells)
    for index in range(len(before)):
        corner = [int(i) * p for i, p in zip(np.unravel_index(index, cells), patch, strict=True)]
        changed = x.clone()
        changed[(..., *(slice(c, c + p) for c, p in zip(corner, patch, strict=True)))] += 1
        assert int((features(changed) - before).norm(dim=1).argmax()) == index


def test_text_has_a_row_for_each_prompt_and_no_autoencoder(family):
    text = load_text(f"random-{family}").to("cpu")
    cond = text(PROMPTS)
    assert {name: value.shape[0] for name, value in cond.items()} == dict.fromkeys(cond, 2)
    assert all(value.shape[0] == 1 for value in text.uncond().values())
    assert text.uncond().keys() == cond.keys()
    assert text.pipe.vae is None


def test_features_are_the_same_with_and_without_the_rest(family):
    denoiser, size = TINY[family](), SIZES[family][1]
    block = denoiser.blocks[0] if family == "sdxl" else denoiser.blocks[1]
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


def test_what_has_gradients_attends_without_cudnn(family, monkeypatch):
    """Its gradients are wrong (`sound_attention`): no attention may choose it, nor one that is recomputed."""
    attend, seen, size = torch.nn.functional.scaled_dot_product_attention, [], SIZES[family][0]

    def attending(*args, **options):
        seen.append((torch.is_grad_enabled(), torch.backends.cuda.cudnn_sdp_enabled()))
        return attend(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attending)
    student, counts = share_base(TINY[family](), 2).student, []
    for count in (0, 99):
        seen.clear()
        student.checkpoint(count)
        x0 = student.denoise(
            torch.randn(2, student.num_channels, *size), torch.tensor([0.9, 0.4]), tiny_cond(family, 2)
        )
        x0.square().sum().backward()
        assert set(seen) == {(True, False)}
        counts.append(len(seen))
    assert counts[0] < counts[1]
    with torch.no_grad():
        student.denoise(torch.randn(2, student.num_channels, *size), torch.tensor([0.9, 0.4]), tiny_cond(family, 2))
    assert seen[-1] == (False, True)
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_what_is_recomputed_may_be_differentiated_twice(family):
    student, size = share_base(TINY[family](), 2).student, SIZES[family][0]
    student.checkpoint(99)
    x0 = student.denoise(torch.randn(1, student.num_channels, *size), torch.tensor([0.5]), tiny_cond(family, 1))
    loss, parameters = x0.square().mean(), adapter_parameters(student)
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    second = torch.autograd.grad(loss, parameters)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_latents_come_back_in_shape_and_pixels_are_counted(family):
    latents, size = load_latents(f"random-{family}"), SIZES[family][1]
    pixels = latents.pixels(size)
    x = torch.rand(1, 3, *pixels) * 2 - 1
    with torch.no_grad():
        z = latents.encode(x)
        assert z.shape == (1, TINY[family]().num_channels, *size)
        assert latents.decode(z).shape == x.shape


def test_the_teachers_pixels_are_those_of_the_pipelines_own_pictures(family):
    size, seeds = SIZES[family][0], range(2)
    teacher = load_teacher(f"random-{family}")
    options = {"size": size, "num_steps": 2, "guidance": 3.0}
    found = teacher(PROMPTS, **options, generators=[torch.Generator().manual_seed(i) for i in seeds])
    names = ("num_frames", "height", "width")[-len(size) :]
    expected = teacher.pipe(
        prompt=PROMPTS, num_inference_steps=2, output_type="pil", **teacher.guiding(2, 3.0),
        generator=[torch.Generator().manual_seed(i) for i in seeds],
        **dict(zip(names, teacher.latents.pixels(size), strict=True)), **teacher.options,
    )[0]  # fmt: skip
    for ours, theirs in zip(found, expected, strict=True):
        pairs = zip(ours, theirs, strict=True) if len(size) == 3 else [(ours, theirs)]
        assert all(a.tobytes() == b.tobytes() and a.mode == b.mode == "RGB" for a, b in pairs)


def test_a_compiled_teacher_samples_the_same(family, graphs):
    size, teacher = SIZES[family][0], load_teacher(f"random-{family}")

    def sample():
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        return teacher.pixels(PROMPTS, size=size, num_steps=1, guidance=3.0, generators=generators)

    before = sample()
    teacher.compile("eager", num_sizes=1)
    assert torch.equal(sample(), before)
    assert graphs()


def test_what_does_not_fit_is_refused(family):
    model = f"random-{family}"
    check_fit(model, SIZES[family], facts_of(model).blocks(load_denoiser(model).config)[0])
    odd = (3, 7, 9) if family == "wan" else (7, 9)
    with pytest.raises(ValueError, match="expected latent"):
        check_fit(model, [odd])
    with pytest.raises(ValueError, match=r"expected --training\.block"):
        check_fit(model, [], 99)
    assert family_of(model).denoiser.family == family


def test_the_stated_shapes_of_text_are_those_of_the_encoders(family):
    stated, found = load_denoiser(f"random-{family}").cond_shapes, cond_shapes(f"random-{family}")
    assert stated.keys() == found.keys()
    for name, shape in stated.items():
        assert shape[-1] == found[name][-1] or name == "prompt_embeds_mask"  # which has the length alone
        assert len(shape) == len(found[name])


@pytest.mark.parametrize(("guidance", "calls"), [(3.0, 4), (1.0, 2)])
def test_a_flux_without_a_guidance_embedding_is_guided_away_from_the_empty_prompt(tmp_path, guidance, calls):
    model = shutil.copytree(resolve_model("random-flux"), tmp_path / "model")
    config = json.loads((model / "transformer" / "config.json").read_text()) | {"guidance_embeds": False}
    (model / "transformer" / "config.json").write_text(json.dumps(config))
    teacher = load_teacher(str(model))
    seen, forward = [], teacher.pipe.transformer.forward
    teacher.pipe.transformer.forward = lambda *args, **options: (seen.append(1), forward(*args, **options))[1]
    generators = [torch.Generator().manual_seed(0)]
    teacher(PROMPTS[:1], size=SIZES["flux"][0], num_steps=2, guidance=guidance, generators=generators)
    assert len(seen) == calls
