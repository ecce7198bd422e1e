"""The backbones: two times start as one, widths match parameters, preconditionings at the ends."""

import pytest
import torch

from flowbench import nets
from flowbench.testing import toy


@pytest.mark.parametrize("kind", ["image", "vector"])
def test_a_second_time_changes_nothing_at_the_start_and_something_after(kind):
    data = toy(kind)
    torch.manual_seed(0)
    one, two = nets.default(data, 16), nets.default(data, 16, times=2)
    with torch.no_grad():  # many layers start at zero, behind which nothing would be seen
        for parameter in one.parameters():
            parameter.normal_(0, 0.2)
    missing, unexpected = two.load_state_dict(one.state_dict(), strict=False)
    assert unexpected == [] and missing and all("second" in name for name in missing)
    x, y = torch.randn(5, *data.shape), torch.arange(5) % 2
    t, s = torch.rand(5), torch.rand(5)
    both = torch.stack([t, s], 1)
    assert torch.equal(two(x, both, y), one(x, t, y))
    with torch.no_grad():
        for parameter in two.embedding.second[-1].parameters():
            parameter.normal_()
    assert not torch.allclose(two(x, both, y), one(x, t, y))
    assert not torch.allclose(two(x, both, y), two(x, torch.stack([t, t], 1), y))


@pytest.mark.parametrize("kind", ["image", "vector"])
def test_the_width_for_a_number_of_parameters_is_the_nearest(kind):
    data, step = toy(kind), 8 if kind == "image" else 1
    for width in (8, 24, 64):
        count = nets.parameters_of(data, width)
        assert count == sum(p.numel() for p in nets.default(data, width).parameters())
        assert nets.width_for(data, count) == width
        above = nets.parameters_of(data, width + step)
        assert nets.width_for(data, 0.9 * count + 0.1 * above) == width
        assert nets.width_for(data, 0.1 * count + 0.9 * above) == width + step
    assert nets.width_for(data, 1) == 8


def test_a_consistency_denoiser_is_the_identity_at_the_lowest_level_only():
    torch.manual_seed(0)
    net = nets.MLP((6,), width=16)
    x, sigma = torch.randn(4, 6), torch.full((4,), 0.002)
    assert torch.equal(nets.Denoiser(net, 0.5, "cm")(x, sigma), x)
    assert not torch.equal(nets.Denoiser(net, 0.5, "edm")(x, sigma), x)
    high = torch.full((4,), 80.0)
    close = nets.Denoiser(net, 0.5, "edm")(x, high)
    torch.testing.assert_close(nets.Denoiser(net, 0.5, "cm")(x, high), close, rtol=1e-4, atol=1e-4)
