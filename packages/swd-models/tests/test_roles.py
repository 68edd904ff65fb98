import pytest
import torch

from swd_models.adapters import adapter_parameters
from swd_models.roles import share_base
from swd_models.tiny import tiny_cond, tiny_sd3


def _roles(checkpointing=False, fake=True):
    base = tiny_sd3().double()
    base.checkpoint(len(base.layers) if checkpointing else 0)
    roles = share_base(base, 4, fake=fake)
    with torch.no_grad():  # as after some training: B is no longer zero
        generator = torch.Generator().manual_seed(0)
        for denoiser in (roles.student, roles.fake):
            for parameter in adapter_parameters(denoiser) if denoiser else ():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return roles


def _storages(module):
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in module.state_dict().values()}


def test_every_frozen_tensor_has_one_storage_for_all_roles():
    roles = _roles()
    base = dict(roles.teacher.backbone.named_parameters()) | dict(roles.teacher.backbone.named_buffers())
    for role in (roles.student, roles.fake):
        own = dict(role.backbone.named_parameters()) | dict(role.backbone.named_buffers())
        frozen = {n.replace(".base_layer", ""): t for n, t in own.items() if ".lora_" not in n}
        assert frozen.keys() == base.keys()
        for name, tensor in frozen.items():
            assert tensor.data_ptr() == base[name].data_ptr(), name


def test_memory_is_the_base_and_two_sets_of_adapters():
    roles = _roles()
    together = {**_storages(roles.teacher), **_storages(roles.student), **_storages(roles.fake)}
    adapters = sum(p.nbytes for role in (roles.student, roles.fake) for p in adapter_parameters(role))
    assert sum(together.values()) == sum(_storages(roles.teacher).values()) + adapters


def test_roles_start_as_the_teacher_and_then_differ_by_their_adapters():
    base = tiny_sd3()
    roles = share_base(base, 4)
    x_t, sigma, cond = torch.randn(2, 4, 8, 8), torch.tensor([0.9, 0.4]), tiny_cond("sd3", 2)
    expected = roles.teacher(x_t, sigma, cond).x0
    for role in (roles.student, roles.fake):
        assert torch.equal(role(x_t, sigma, cond).x0, expected)
    trained = _roles()
    x_t, sigma = x_t.double(), sigma.double()
    outputs = [role(x_t, sigma, cond).x0 for role in (trained.teacher, trained.student, trained.fake)]
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[1], outputs[2])


def test_only_adapters_train_and_the_fake_can_be_left_out():
    roles = _roles(fake=False)
    assert roles.fake is None
    assert adapter_parameters(roles.teacher) == []
    assert all(".lora_" in name for name, p in roles.student.named_parameters() if p.requires_grad)


def test_adapters_are_float32_over_a_half_precision_base():
    roles = share_base(tiny_sd3().to(torch.bfloat16), 4)
    assert {p.dtype for p in adapter_parameters(roles.student)} == {torch.float32}
    x0 = roles.student(torch.randn(2, 4, 8, 8), torch.tensor([0.9, 0.4]), tiny_cond("sd3", 2)).x0
    x0.sum().backward()
    assert all(p.grad is not None for p in adapter_parameters(roles.student))


def test_student_gradients_with_checkpointing_equal_those_without():
    """All losses on: through the fake, the teacher, and features, as the generator step does."""

    def gradients(checkpointing):
        roles = _roles(checkpointing)
        generator = torch.Generator().manual_seed(5)
        x_t = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
        sigma, cond = torch.tensor([0.9, 0.4], dtype=torch.float64), tiny_cond("sd3", 2)
        x0 = roles.student(x_t, sigma, cond).x0
        features = roles.teacher(0.5 * x0, sigma, cond, block=1, stop=True).features
        adversarial = roles.fake(0.7 * x0, sigma, cond, block=1, stop=True).features
        score = roles.fake(x0, sigma, cond).x0
        loss = features.mean(1).square().sum() + adversarial.mean().exp() + (x0 - score.detach()).square().mean()
        loss.backward(inputs=adapter_parameters(roles.student))
        assert all(p.grad is None for p in roles.fake.parameters())
        return [p.grad for p in adapter_parameters(roles.student)]

    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-12, atol=1e-14)
        assert plain.abs().sum() > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_adapters_depend_on_the_seed_alone(seed):
    torch.manual_seed(123)
    first = share_base(tiny_sd3(), 4, seed=seed)
    torch.manual_seed(456)
    second = share_base(tiny_sd3(), 4, seed=seed)
    for a, b in zip(adapter_parameters(first.student), adapter_parameters(second.student), strict=True):
        assert torch.equal(a, b)
