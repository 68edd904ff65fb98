import pytest
import torch
from torch._dynamo.utils import counters

from swd_models import share_base
from swd_models.compiling import compile_layers
from swd_models.roles import compile_blocks
from swd_models.tiny import TINY, tiny_cond, tiny_sd3

SIZES = [(4, 4), (6, 6), (8, 12)]


def _run(denoiser, size, batch=2):
    x_t = torch.ones(batch, denoiser.num_channels, *size)
    return denoiser(x_t, torch.full((batch,), 0.5), tiny_cond("sd3", batch)).x0


def test_training_compiles_each_kind_of_block_a_bounded_number_of_times_whatever_the_sizes(graphs):
    roles = share_base(tiny_sd3(), 2)
    bound = compile_blocks(roles, "eager")
    assert bound == 3 * 2 * 2 * 2 * 2  # kinds of blocks, with the adapters' another kind each
    for size in SIZES:
        for batch in (2, 4):
            x0 = _run(roles.student, size, batch)
            _run(roles.teacher, size, batch)
            roles.fake(x0, torch.full((batch,), 0.4), tiny_cond("sd3", batch)).x0.sum().backward()
            with torch.no_grad():
                for role in (roles.teacher, roles.student, roles.fake):
                    _run(role, size, batch)
    assert 0 < graphs() <= bound
    assert not counters["recompile_limit"]
    before = graphs()
    _run(roles.student, (10, 10))
    assert graphs() == before


def test_sampling_compiles_each_kind_of_block_once_a_size(graphs):
    denoiser = tiny_sd3().requires_grad_(False)
    bound = compile_layers(denoiser.layers, "eager", len(SIZES))
    with torch.no_grad():
        expected = [_run(tiny_sd3(), size) for size in SIZES]
        for size, plain in zip(SIZES, expected, strict=True):
            torch.testing.assert_close(_run(denoiser, size), plain)
    assert graphs() == bound == 3 * len(SIZES)


@pytest.mark.parametrize("family", list(TINY))
def test_compiled_blocks_of_every_family_give_the_same_gradients(family, graphs):
    size = (2, 4, 4) if family == "wan" else (8, 8)

    def gradients(compiled):
        roles = share_base(TINY[family](), 2, fake=False)
        if compiled:
            compile_blocks(roles, "eager")
        x_t = torch.randn(2, roles.student.num_channels, *size, generator=torch.Generator().manual_seed(0))
        x0 = roles.student(x_t, torch.tensor([0.9, 0.4]), tiny_cond(family, 2)).x0
        return torch.autograd.grad(x0.square().sum(), [p for p in roles.student.parameters() if p.requires_grad])

    for ours, plain in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
