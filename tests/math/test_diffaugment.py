"""DiffAugment against its definition, image by image and pixel by pixel."""

import pytest
import torch

from flowbench.losses.diffaugment import Draws, diffaugment, draw


def images(n: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    shape = (n, channels, height, width)
    return torch.randn(shape, generator=random, dtype=torch.float64)


def one(image, brightness, saturation, contrast, shift, centre):
    """The definition for one image (C, H, W) of numbers."""
    height, width = image.shape[1:]
    image = image + brightness
    grey = image.mean(0)
    image = torch.stack([grey + saturation * (channel - grey) for channel in image])
    mean = image.mean()
    image = mean + contrast * (image - mean)
    result = torch.zeros_like(image)
    tall, wide = (int(side / 5 + 0.5) for side in (height, width))
    top, left = centre[0] - tall // 2, centre[1] - wide // 2
    for i in range(height):
        for j in range(width):
            row, column = i + shift[0], j + shift[1]
            inside = 0 <= row < height and 0 <= column < width
            if inside and not (top <= i < top + tall and left <= j < left + wide):
                result[:, i, j] = image[:, row, column]
    return result


@pytest.mark.parametrize("height, width", [(8, 8), (13, 20), (5, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_definition(height, width, channels):
    torch.manual_seed(3)
    x = images(6, height, width, channels)
    draws = draw(6, height, width)
    found = diffaugment(x, draws)
    numbers = zip(*(part.tolist() for part in draws), strict=True)
    expected = torch.stack([one(image, *row) for image, row in zip(x, numbers, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)  # draws are float32
    swapped = draws._replace(shift=draws.shift.flip(1) + 1)
    assert (diffaugment(x, swapped) != found).any()  # control


def test_extreme_draws_are_the_definition_too():
    x = images(4, 10, 10)
    draws = Draws(
        *(torch.tensor(v) for v in ([-0.5, 0.5, 0.0, 0.25], [0.0, 2.0, 1.0, 0.5])),
        torch.tensor([0.5, 1.5, 1.0, 0.75]),
        torch.tensor([[-1, -1], [1, 1], [0, 0], [-1, 1]]),
        torch.tensor([[0, 0], [10, 10], [0, 10], [10, 0]]),
    )
    numbers = zip(*(part.tolist() for part in draws), strict=True)
    expected = torch.stack([one(image, *row) for image, row in zip(x, numbers, strict=True)])
    torch.testing.assert_close(diffaugment(x, draws), expected)


def identity(n: int) -> Draws:
    shift, centre = torch.zeros(n, 2, dtype=torch.long), torch.full((n, 2), 1000)
    return Draws(torch.zeros(n), torch.ones(n), torch.ones(n), shift, centre)


def test_identity():
    x = images(5, 16, 16)
    torch.testing.assert_close(diffaugment(x, identity(5)), x, rtol=0, atol=1e-15)
    for changed in (
        identity(5)._replace(shift=torch.ones(5, 2, dtype=torch.long)),
        identity(5)._replace(centre=torch.zeros(5, 2, dtype=torch.long)),
        identity(5)._replace(saturation=torch.full((5,), 1.1)),
    ):
        assert (diffaugment(x, changed) != x).any()


def test_gradients_pass():
    torch.manual_seed(0)
    x, draws = images(2, 6, 7).requires_grad_(), draw(2, 6, 7)
    assert torch.autograd.gradcheck(lambda x: diffaugment(x, draws), x)
    diffaugment(x, draws).square().sum().backward()
    assert (x.grad.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("side, shift, last", [(32, 4, 32), (64, 8, 63), (28, 4, 28), (4, 1, 3)])
def test_draws_have_their_bounds(side, shift, last):
    torch.manual_seed(0)
    draws = draw(20_000, side, side)
    for numbers, low, high in zip(draws[:3], (-0.5, 0.0, 0.5), (0.5, 2.0, 1.5), strict=True):
        assert numbers.shape == (20_000,) and low <= numbers.min() and numbers.max() <= high
        assert numbers.mean().item() == pytest.approx((low + high) / 2, abs=0.02)
        assert numbers.std().item() == pytest.approx((high - low) / 12**0.5, rel=0.02)
    for numbers, values in (
        (draws.shift, range(-shift, shift + 1)),
        (draws.centre, range(last + 1)),
    ):
        for axis in (0, 1):
            found, counts = numbers[:, axis].unique(return_counts=True)
            assert found.tolist() == list(values)
            assert counts.min() > 0.6 * 20_000 / len(values)
        joint = torch.corrcoef(numbers.T.double())[0, 1].item()
        assert abs(joint) < 0.03  # rows and columns are independent


def test_each_image_has_its_own_draws_of_the_global_generator():
    x = images(1, 16, 16).expand(4, -1, -1, -1)
    torch.manual_seed(0)
    first = diffaugment(x)
    assert all((first[i] != first[j]).any() for i in range(4) for j in range(i))
    assert (diffaugment(x) != first).any()
    torch.manual_seed(0)
    assert torch.equal(diffaugment(x), first)
