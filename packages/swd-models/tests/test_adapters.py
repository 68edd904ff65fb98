import copy

import pytest
import torch
from diffusers.models.normalization import RMSNorm
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear as PeftLinear
from torch import nn

from swd_models import load_lora, save_lora, share_base
from swd_models.adapters import AdapterLinear, adapter_parameters, adapter_state, merge_adapters
from swd_models.lora.loading import lora_config
from swd_models.norms import fuse_norms
from swd_models.tiny import SIZES, TINY, tiny_cond, tiny_sd3

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
family = pytest.mark.parametrize("family", list(TINY))


def _train(denoiser):
    """Give adapters numbers as after some training: B is no longer zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter_parameters(denoiser):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return denoiser


def _student(family, dtype=torch.float32, rank=4, **options):
    base = TINY[family]().to(dtype)
    return _train(share_base(base, lora_config(base, rank, alpha=2 * rank), **options).student)


def _by_peft(denoiser):
    """Return the same denoiser, its adapters computed by PEFT's own layers."""
    theirs = copy.deepcopy(denoiser)
    for layer in theirs.modules():
        if isinstance(layer, AdapterLinear):
            layer.__class__ = PeftLinear
    return theirs


def _predict(denoiser, family, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x_t = torch.randn(2, denoiser.num_channels, *SIZES[family][1], generator=generator).to(dtype)
    sigma = torch.tensor([0.9, 0.4], dtype=dtype)
    cond = {name: value.to(dtype) for name, value in tiny_cond(family, 2).items()}
    x0 = denoiser(x_t, sigma, cond).x0
    gradients = torch.autograd.grad(x0.square().sum(), adapter_parameters(denoiser))
    return x0, *gradients


@family
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float64", "float32"])
def test_output_and_gradients_are_those_of_peft(family, dtype):
    student = _student(family, dtype)
    assert {parameter.dtype for parameter in adapter_parameters(student)} == {dtype}
    for ours, theirs in zip(_predict(student, family, dtype), _predict(_by_peft(student), family, dtype), strict=True):
        assert float((ours - theirs).norm()) <= TOLERANCE[dtype] * float(theirs.norm())
        assert float(ours.norm()) > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_over_a_half_precision_base_masters_stay_single_and_gradients_follow(dtype):
    student, single = _student("sd3", dtype), _student("sd3")
    assert {parameter.dtype for parameter in adapter_parameters(student)} == {torch.float32}
    found, expected = _predict(student, "sd3", dtype)[1:], _predict(single, "sd3")[1:]
    assert {gradient.dtype for gradient in found} == {torch.float32}
    flat = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (found, expected))
    assert float(torch.cosine_similarity(*flat, dim=0)) > 0.998


def test_what_a_layer_computes_is_in_the_dtype_of_its_base():
    layer = next(m for m in _student("sd3", torch.bfloat16).modules() if isinstance(m, AdapterLinear))
    dtypes = set()

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in (torch.addmm, nn.functional.linear):
                dtypes.update(arg.dtype for arg in args if isinstance(arg, torch.Tensor))
            return func(*args, **(kwargs or {}))

    with Watch():
        layer(torch.zeros(2, layer.in_features, dtype=torch.bfloat16))
    assert dtypes == {torch.bfloat16}


@pytest.mark.parametrize(
    "config",
    [{"lora_dropout": 0.5}, {"use_dora": True}, {"use_rslora": True}, {"lora_bias": True}],
    ids=lambda config: next(iter(config)),
)
def test_any_other_config_of_peft_is_computed_as_peft_does(config):
    base = tiny_sd3()
    student = _train(share_base(base, LoraConfig(r=4, target_modules=["to_q"], **config), fake=False).student)
    student.train()

    def predict(denoiser):
        torch.manual_seed(0)  # of dropout
        return denoiser(torch.ones(1, 4, 8, 8), torch.tensor([0.9]), tiny_cond("sd3", 1)).x0

    torch.testing.assert_close(predict(student), predict(_by_peft(student)), rtol=1e-5, atol=1e-6)


def test_the_names_of_what_is_saved_are_those_of_peft():
    base, stock = tiny_sd3(), tiny_sd3()
    config = lora_config(base, 4)
    inject_adapter_in_model(config, stock.backbone)
    assert adapter_state(share_base(base, config).student).keys() == adapter_state(stock).keys()
    assert config._custom_modules is None  # the caller's is left as it was


@family
def test_merged_adapters_predict_as_those_apart(family, tmp_path):
    student = _student(family, fake=False)
    path = save_lora(student, tmp_path, schedule=None)
    merged, apart = TINY[family](), TINY[family]()
    load_lora(merged, path, merge=True)
    load_lora(apart, path)
    assert not any("lora_" in name for name, _ in merged.named_parameters())
    x_t, sigma, cond = torch.ones(1, merged.num_channels, *SIZES[family][1]), torch.tensor([0.9]), tiny_cond(family, 1)
    with torch.no_grad():
        found, expected, base = (d(x_t, sigma, cond).x0 for d in (merged, apart, TINY[family]()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, base, atol=1e-3)


def test_merging_adds_in_float32_and_then_casts():
    base = tiny_sd3().to(torch.bfloat16)
    weight = base.layers[0].attn.to_q.weight.float()
    student = _train(share_base(base, 4, fake=False).student)
    layer = student.layers[0].attn.to_q
    down, up = (part["default"].weight.detach().double() for part in (layer.lora_A, layer.lora_B))
    expected = (weight.double() + layer.scaling["default"] * up @ down).to(torch.bfloat16)
    merge_adapters(student)
    found = student.layers[0].attn.to_q.weight
    assert found.dtype == torch.bfloat16
    assert float((found != expected).float().mean()) < 0.01  # a tie of rounding here and there


def test_a_lora_is_loaded_in_float32_over_a_half_precision_base(tmp_path):
    student = _student("sd3")
    save_lora(student, tmp_path, schedule=None)
    loaded = tiny_sd3().to(torch.bfloat16)
    load_lora(loaded, tmp_path)
    expected = adapter_state(student)
    assert all(torch.equal(value, expected[name]) for name, value in adapter_state(loaded).items())


def test_fused_norms_compute_what_those_of_diffusers_do():
    norms = nn.ModuleDict({"affine": RMSNorm(8, 1e-6), "plain": RMSNorm(8, 1e-6, elementwise_affine=False)})
    nn.init.normal_(norms["affine"].weight)
    fused = copy.deepcopy(norms)
    fuse_norms(fused)
    assert fused.state_dict().keys() == norms.state_dict().keys()
    x = torch.randn(3, 5, 8)
    for name, norm in norms.items():
        assert type(fused[name]) is nn.RMSNorm
        torch.testing.assert_close(fused[name](x), norm(x), rtol=1e-6, atol=1e-6)
        half = copy.deepcopy(norm).bfloat16()(x.bfloat16())
        torch.testing.assert_close(fused.bfloat16()[name](x.bfloat16()), half, rtol=2e-2, atol=1e-3)
        fused.float()


def test_no_family_keeps_an_eager_norm():
    for build in TINY.values():
        denoiser = build()
        assert not any(isinstance(module, RMSNorm) for module in denoiser.modules())
    assert any(isinstance(module, nn.RMSNorm) for module in tiny_sd3().modules())
