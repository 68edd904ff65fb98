"""A base in int8, fp8 or nf4: shared by the three views, with the gradients of its own numbers, kept for nothing."""

import gc
import weakref
from functools import cache
from importlib.util import find_spec

import pytest
import torch

from swd_models import load_denoiser, load_lora, save_lora, share_base
from swd_models.adapters import adapter_parameters
from swd_models.lora.loading import start_from
from swd_models.quantized import (
    FrozenLinear,
    check_base,
    dequantised,
    is_quantised,
    quantise,
    quantised_layers,
)
from swd_models.tiny import SIZES, TINY, tiny_cond

pytestmark = pytest.mark.skipif(not find_spec("torchao") or not find_spec("bitsandbytes"), reason="no extra quantized")
BASES = ("int8", "fp8", "nf4")
# Of the teacher's x0: what a base may cost a model of width 32, which has few weights to average over.
BYTES = {"int8": 1.0, "fp8": 1.0, "nf4": 0.516}
NEAR = {"int8": 0.03, "fp8": 0.1, "nf4": 0.3}


@pytest.fixture(params=BASES)
def base(request):
    return request.param


@pytest.fixture(params=sorted(TINY))
def family(request):
    return request.param


@cache
def loaded(family, base="bf16"):
    """Load once what no test changes."""
    return load_denoiser(f"random-{family}", base=base)


@pytest.fixture
def quantised(family, base):
    return loaded(family, base)


def inputs(denoiser, family, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x_t = torch.randn(2, denoiser.num_channels, *SIZES[family][0], generator=generator)
    return x_t, torch.tensor([0.9, 0.4]), tiny_cond(family, 2, seed)


def whole(denoiser):
    """Give a quantised denoiser plain weights of the same numbers."""
    for name in quantised_layers(denoiser):
        layer = denoiser.backbone.get_submodule(name)
        layer.__class__ = torch.nn.Linear
        layer.weight = torch.nn.Parameter(dequantised(layer.weight), requires_grad=False)
    return denoiser


def gradients(denoiser, family, count=0):
    roles = share_base(denoiser, 4, seed=1)
    for role in (roles.teacher, roles.student, roles.fake):
        role.checkpoint(count)
    student = roles.student.train()
    with torch.no_grad():
        for parameter in adapter_parameters(student):
            parameter.copy_(
                0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    x_t, sigma, cond = inputs(student, family)
    x0 = student(x_t, sigma, cond).x0
    features = roles.teacher(
        x0, sigma, cond, block=denoiser.blocks[0], stop=True
    ).features  # as MMD: through the teacher
    return torch.autograd.grad(features.square().sum() + x0.square().sum(), adapter_parameters(student))


def test_the_blocks_linear_layers_are_quantised_and_nothing_else(family, base, quantised):
    names = set(quantised_layers(quantised))
    assert names
    for name, module in quantised.backbone.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert (type(module) is FrozenLinear) == is_quantised(module.weight) == (name in names), name
    x_t, sigma, cond = inputs(quantised, family)
    with torch.no_grad():
        found = quantised.denoise(x_t, sigma, cond)
        plain = loaded(family).denoise(x_t, sigma, cond)
    assert 0 < (found - plain).norm() / plain.norm() < NEAR[base]


def test_loading_quantises_as_the_libraries_do_a_loaded_model(family, base, quantised):
    other = quantise(load_denoiser(f"random-{family}"), base)
    for name in quantised_layers(quantised):
        a, b = (each.backbone.get_submodule(name).weight for each in (quantised, other))
        assert torch.equal(dequantised(a), dequantised(b)), name


def test_views_share_every_byte_and_the_student_begins_as_the_teacher(family, base, quantised):
    roles = share_base(quantised, 4)
    frozen = dict(roles.teacher.named_parameters())
    for role in (roles.student, roles.fake):
        named = {name.replace(".base_layer", ""): p for name, p in role.named_parameters() if ".lora_" not in name}
        assert named.keys() == frozen.keys()
        assert all(named[name] is frozen[name] for name in frozen)
    x_t, sigma, cond = inputs(quantised, family)
    with torch.no_grad():
        expected = roles.teacher.denoise(x_t, sigma, cond)
        assert torch.equal(roles.student.denoise(x_t, sigma, cond), expected)
        assert torch.equal(roles.fake.denoise(x_t, sigma, cond), expected)


def test_views_copy_no_tensor_beside_their_weights(base):
    """Scales are shared too, and nothing outlives the model: no collector is needed to free it."""
    denoiser = load_denoiser("random-sd3", base=base)
    roles = share_base(denoiser, 4)
    shared = [denoiser.backbone.get_submodule(name) for name in quantised_layers(denoiser)]
    for layer in shared:
        assert not any(isinstance(value, torch.Tensor) or key == "quant_state" for key, value in vars(layer).items())
    gone = weakref.ref(shared[0].weight)
    gc.disable()
    try:
        del denoiser, roles, shared, layer
        assert gone() is None
    finally:
        gc.enable()


def test_gradients_are_those_of_the_same_numbers_in_whole_weights(family, base, quantised):
    expected = gradients(whole(load_denoiser(f"random-{family}", base=base)), family)
    for count in (1, 99, 0):
        found = gradients(loaded(family, base), family, count)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_nothing_of_a_weight_is_kept_for_backward(base):
    layer = torch.nn.Linear(256, 512, bias=False)
    denoiser = TINY["sd3"]()
    denoiser.backbone.transformer_blocks[0].ff.net[2] = layer.requires_grad_(False)
    quantise(denoiser, base)
    kept = []
    x = torch.randn(3, 256, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        y = layer(x)
    assert sum(t.numel() for t in kept) < 512
    gc.collect()
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0][0], dequantised(layer.weight).sum(0))


def test_bytes_are_those_that_a_plan_counts(base):
    layer = torch.nn.Linear(1024, 2048, bias=False).bfloat16()
    denoiser = TINY["sd3"]()
    denoiser.backbone.transformer_blocks[0].ff.net[2] = layer.requires_grad_(False)
    quantise(denoiser, base)
    weight = layer.weight
    state = getattr(weight, "quant_state", None)
    if state is None:
        tensors = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]
    else:
        tensors = [weight.data, state.absmax, state.state2.absmax]
    held = sum(tensor.untyped_storage().nbytes() for tensor in tensors if tensor is not None)
    assert held / (1024 * 2048) == pytest.approx(BYTES[base], rel=0.01)


@pytest.mark.parametrize("form", ["diffusers", "comfyui"])
def test_a_lora_over_a_quantised_base_is_one_of_the_whole(tmp_path, family, base, quantised, form):
    student = share_base(quantised, 4, fake=False).student
    with torch.no_grad():
        for parameter in adapter_parameters(student):
            parameter.copy_(0.1 * torch.randn(parameter.shape))
    path = save_lora(student, tmp_path, schedule=None, form=form)
    back, over_whole = (share_base(loaded(family, each), 4, fake=False).student for each in (base, "bf16"))
    for view in (back, over_whole):
        start_from(view, path)
    x_t, sigma, cond = inputs(student, family)
    with torch.no_grad():
        expected = student.denoise(x_t, sigma, cond)
        assert torch.equal(back.denoise(x_t, sigma, cond), expected)
        found = over_whole.denoise(x_t, sigma, cond)
    assert (found - expected).norm() / expected.norm() < 2 * NEAR[base]


def test_blocks_compile(base, graphs):
    denoiser = load_denoiser("random-sd3", base=base)
    x_t, sigma, cond = inputs(denoiser, "sd3")
    x_t.requires_grad_()
    (before,) = torch.autograd.grad(denoiser(x_t, sigma, cond).x0.sum(), x_t)
    is_typed = hasattr(FrozenLinear.forward, "__wrapped__")  # what checks types is no part of a graph
    for layer in denoiser.layers:
        layer.compile(backend="aot_eager", fullgraph=not is_typed)
    (after,) = torch.autograd.grad(denoiser(x_t, sigma, cond).x0.sum(), x_t)
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-6)
    assert graphs()


def test_a_merge_into_a_quantised_base_is_refused(tmp_path, base):
    denoiser = loaded("sd3", base)
    path = save_lora(share_base(loaded("sd3"), 4, fake=False).student, tmp_path, schedule=None)
    with pytest.raises(ValueError, match="expected a base that is not quantised to merge a LoRA into"):
        load_lora(denoiser, path, merge=True)


def test_what_is_missing_or_unknown_is_one_line(monkeypatch):
    with pytest.raises(ValueError, match="expected a base of bf16, int8, fp8, nf4, got 'int2'"):
        check_base("int2")
    monkeypatch.setattr("swd_models.quantized.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"expected bitsandbytes for a base in nf4, got none: pip install 'swd-models"):
        check_base("nf4")
    check_base("bf16")
