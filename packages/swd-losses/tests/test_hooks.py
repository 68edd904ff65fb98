import pytest
import torch
from torch import nn

from swd_losses.hooks import image_tokens, tapped


class Joint(nn.Module):
    """A block that returns text and image, as diffusers' joint blocks do."""

    def __init__(self):
        super().__init__()
        self.linear, self.runs = nn.Linear(4, 4), 0

    def forward(self, pair):
        self.runs += 1
        return pair[0], self.linear(pair[1])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(Joint(), Joint(), Joint())


def _inputs():
    return torch.randn(2, 3, 4), torch.randn(2, 5, 4, requires_grad=True)


def test_the_images_tokens_are_seen_with_their_graph_and_the_pass_goes_on(model):
    text, image = _inputs()
    with tapped(model[1]) as seen:
        _, out = model((text, image))
    assert torch.equal(seen.features, model[1].linear(model[0].linear(image)))
    assert torch.equal(out, model[2].linear(seen.features))
    assert not seen.ended
    seen.features.sum().backward()
    assert image.grad.abs().sum() > 0


def test_a_pass_may_end_behind_the_block_and_the_next_one_does_not(model):
    with tapped(model[1], stop=True) as seen:
        model(_inputs())
    assert seen.ended
    assert seen.features.shape == (2, 5, 4)
    assert [block.runs for block in model] == [1, 1, 0]
    model(_inputs())
    assert [block.runs for block in model] == [2, 2, 1]


def test_a_block_that_does_not_run_shows_nothing(model):
    with tapped(model[2]) as seen:
        model[0](_inputs())
    assert (seen.features, seen.ended) == (None, False)


def test_a_pass_that_should_end_behind_a_block_and_does_not_run_it_is_one_line(model):
    with pytest.raises(ValueError, match="expected a pass that runs the block, got none"), tapped(model[2], stop=True):
        model[0](_inputs())
    assert not model[2]._forward_hooks


def test_errors_inside_stay_errors_and_the_hook_is_gone(model):
    with pytest.raises(ZeroDivisionError), tapped(model[0]):
        1 / 0  # noqa: B018
    assert not model[0]._forward_hooks


def test_features_are_taken_as_asked(model):
    with tapped(model[0], take=lambda output: output[0]) as seen:
        inputs = _inputs()
        model(inputs)
    assert seen.features is inputs[0]


@pytest.mark.parametrize("output", [(), None, ("a",)])
def test_what_is_no_tensor_is_one_line(output):
    with pytest.raises(ValueError, match="expected a tensor, or a tuple with the image's last, from the block"):
        image_tokens(output)
