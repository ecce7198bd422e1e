"""Augmentation: each change against an independent one, its chances, what the network hears."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from flowbench import augment
from flowbench.augment import SYM6, Augment, Change, parse
from flowbench.records import FlowbenchError

FIELDS = ("flipped", "upset", "zoom", "angle", "stretch", "axis", "right", "down")


def change(n=1, **fields):
    """The same change for each of `n` images."""
    return Change(**{name: torch.full((n,), float(fields.get(name, 0))) for name in FIELDS})


def noise(n=4, height=32, width=32):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def place(side=32):
    """(right, up) coordinates of pixels from the centre, in pixels."""
    steps = torch.arange(side) - (side - 1) / 2
    down, right = torch.meshgrid(steps, steps, indexing="ij")
    return right, -down


def smooth(right, up):
    """A picture without symmetry, known between its pixels; (1, 1, H, W)."""
    bump = torch.exp(-((right - 3).square() + (up + 2).square()) / 30)
    return (bump + 0.3 * torch.sin(right / 5 + up / 7) + 0.01 * right)[None, None]


def test_the_filter_is_the_least_asymmetric_wavelet_with_six_vanishing_moments():
    taps = np.array(SYM6)
    assert len(taps) == 12 and taps.sum() == pytest.approx(math.sqrt(2), abs=1e-12)
    for shift in range(6):
        product = taps[2 * shift :] @ taps[: 12 - 2 * shift]
        assert product == pytest.approx(float(shift == 0), abs=1e-11)
    for power in range(6):
        assert abs((-1.0) ** np.arange(12) @ (taps * np.arange(12.0) ** power)) < 2e-9
    reach = np.abs(np.arange(12) - augment.CENTRE)
    assert (reach[np.abs(taps) > 0.3] < 1.5).all(), "Daubechies' own filter leans to one side"


def test_both_filters_cancel():
    x = noise(height=9, width=14)
    assert augment._up(x).shape == (4, 3, 28, 38)
    torch.testing.assert_close(augment._down(augment._up(x)), x, rtol=0, atol=1e-6)
    delayed = torch.roll(augment._up(x), 1, 3)
    assert (augment._down(delayed) - x).abs().max() > 0.1


def test_no_change_is_the_identity():
    x = noise()
    assert torch.equal(change(4).apply(x), x)
    nothing, parameters = Augment("edm", 0.0)(x)
    unflipped = torch.where(parameters[:, :1, None, None] == 1, nothing.flip(3), nothing)
    assert (unflipped - x).abs().max() <= 2e-6
    assert not parameters[:, 1:].any()


def test_resampling_where_nothing_moves_is_the_identity():
    """1e-9 is no change in float32, but goes all the way; a picture without noise keeps 2e-6."""
    picture = smooth(*place())
    still = change(1, zoom=1e-9)
    assert (still.apply(picture) - picture).abs().max() < 3e-6
    assert (change(4, zoom=1e-9).apply(noise()) - noise()).abs().max() < 2e-5


def test_flips_are_exact():
    x = noise(height=8, width=12)
    assert torch.equal(change(4, flipped=1).apply(x), x.flip(3))
    assert torch.equal(change(4, upset=1).apply(x), x.flip(2))
    assert torch.equal(change(4, flipped=1, upset=1).apply(x), x.flip(2, 3))


@pytest.mark.parametrize("right, down", [(3, 0), (0, -5), (-2, 7)])
def test_shifts_by_whole_pixels_reflect_what_comes_in(right, down):
    x = noise(height=16, width=24)
    found = change(4, right=right / 3, down=down / 2).apply(x)  # eighths of 24 and 16 pixels
    rows, columns = np.arange(16) - down, np.arange(24) - right
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (8, 8), (8, 8)), mode="reflect")
    expected = torch.tensor(padded[:, :, rows[:, None] + 8, columns + 8])
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-5)
    wrong = change(4, right=-right / 3, down=-down / 2).apply(x)
    assert (wrong - expected).abs().max() > 0.5


def test_half_a_turn_is_both_flips():
    picture = smooth(*place())
    found = change(1, angle=math.pi).apply(picture)
    inner = (slice(None), slice(None), slice(4, 28), slice(4, 28))
    assert (found - picture.flip(2, 3))[inner].abs().max() < 0.01
    assert (found - picture)[inner].abs().max() > 0.3


def error(found, right, up):
    """The largest distance from the picture at other coordinates, away from the border."""
    return (found - smooth(right, up))[..., 9:23, 9:23].abs().max()


@pytest.mark.parametrize("angle", [0.3, math.pi / 2, -2.0])
def test_turns_are_counter_clockwise(angle):
    right, up = place()
    found = change(1, angle=angle).apply(smooth(right, up))
    cos, sin = math.cos(angle), math.sin(angle)
    assert error(found, cos * right + sin * up, cos * up - sin * right) < 0.01
    assert error(found, cos * right - sin * up, cos * up + sin * right) > 0.1


@pytest.mark.parametrize("zoom", [2.0, -1.0])
def test_scale(zoom):
    right, up = place()
    found = change(1, zoom=zoom).apply(smooth(right, up))
    factor = 2 ** (0.2 * zoom)
    assert error(found, right / factor, up / factor) < 0.01
    assert error(found, right * factor, up * factor) > 0.1


@pytest.mark.parametrize("axis", [0.0, 0.7, -2.5])
@pytest.mark.parametrize("stretch", [1.5, -1.5])
def test_stretching_along_an_axis_shrinks_across_it(stretch, axis):
    right, up = place()
    found = change(1, stretch=stretch, axis=axis).apply(smooth(right, up))
    cos, sin, factor = math.cos(axis), math.sin(axis), 2 ** (0.2 * stretch)
    along, across = (cos * right + sin * up) / factor, (cos * up - sin * right) * factor
    assert error(found, cos * along - sin * across, sin * along + cos * across) < 0.02
    assert error(found, right, up) > 0.1


def test_all_at_once_in_the_papers_order():
    """scipy resamples with splines; magnified, turned, stretched, then shifted."""
    picture = smooth(*place())
    fields = {"zoom": 1.0, "angle": 0.5, "stretch": 1.0, "axis": 0.4, "right": 0.5, "down": -0.25}
    found = change(1, **fields).apply(picture)[0, 0].numpy()

    def turn(angle):  # of (down, right) coordinates, counter-clockwise as one sees them
        cos, sin = math.cos(angle), math.sin(angle)
        return np.array([[cos, -sin], [sin, cos]])

    size, wide = 2**0.2, 2**0.2
    stretched = turn(0.4) @ np.diag([1 / wide, wide]) @ turn(-0.4)
    forward, shift, centre = stretched @ turn(0.5) * size, np.array([-1.0, 2.0]), np.full(2, 15.5)
    for matrix, same in ((forward, True), (turn(0.5) @ stretched * size, False)):
        back = np.linalg.inv(matrix)
        offset = centre - back @ (centre + shift)
        expected = ndimage.affine_transform(picture[0, 0].numpy(), back, offset, mode="mirror")
        assert (np.abs(found - expected)[9:23, 9:23].max() < 0.02) == same


def test_images_of_a_batch_are_changed_each_on_its_own():
    """The margin is that of the batch, so only rounding may differ."""
    drawn = Change.draw(6, 0.8, "cpu")
    x = noise(6)
    together = drawn.apply(x)
    for i in range(6):
        one = Change(*(getattr(drawn, name)[i : i + 1] for name in FIELDS))
        torch.testing.assert_close(one.apply(x[i : i + 1]), together[i : i + 1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_chances_are_those_of_the_paper(seed):
    torch.manual_seed(seed)
    n = 100_000
    drawn = Change.draw(n, 0.12, "cpu")
    parameters = drawn.parameters
    assert parameters.shape == (n, 9) and parameters.dtype == torch.float32
    expected = [0.50, 0.06, 0.12, 0.12, 0.12, 0.12, 0.06, 0.12, 0.12]
    found = (parameters != 0).double().mean(0)
    for share, chance in zip(found.tolist(), expected, strict=True):
        assert share == pytest.approx(chance, abs=5 * math.sqrt(chance / n))
    assert ((parameters[:, 7] != 0) == (parameters[:, 8] != 0)).all(), "one chance for both shifts"
    both = ((parameters[:, 2] != 0) & (parameters[:, 7] != 0)).double().mean()
    assert both.item() == pytest.approx(0.12**2, abs=0.002), "each change has its own chance"


def test_laws_of_what_is_drawn():
    torch.manual_seed(0)
    drawn = Change.draw(200_000, 1.0, "cpu")
    for name in ("zoom", "stretch", "right", "down"):
        values = getattr(drawn, name)
        assert values.mean().abs() < 0.01 and values.std().item() == pytest.approx(1, abs=0.01)
    turned = drawn.axis[drawn.axis != 0]
    for angles in (drawn.angle, turned):
        assert angles.min() > -math.pi and angles.max() < math.pi
        assert angles.std().item() == pytest.approx(math.pi / math.sqrt(3), abs=0.02)


def test_the_network_hears_what_was_done():
    fields = {"flipped": 1, "upset": 1, "zoom": -0.5, "angle": 2.0}
    told = change(1, **fields, stretch=1.5, axis=0.7, right=0.3, down=-0.4).parameters[0]
    turned, stretched = [math.cos(2) - 1, math.sin(2)], [1.5 * math.cos(0.7), 1.5 * math.sin(0.7)]
    assert told.tolist() == pytest.approx([1, 1, -0.5, *turned, *stretched, 0.3, -0.4])
    assert not change(1).parameters.any()
    torch.manual_seed(4)
    drawn = Change.draw(4, 0.9, "cpu")
    torch.manual_seed(4)
    x, parameters = Augment("edm", 0.9)(noise())
    assert torch.equal(parameters, drawn.parameters) and torch.equal(x, drawn.apply(noise()))


def test_mode_flip_mirrors_every_second_image_and_says_nothing():
    torch.manual_seed(0)
    x = noise(400, 4, 4)
    flipped, parameters = Augment("flip")(x)
    assert parameters is None
    same = (flipped == x).flatten(1).all(1)
    mirrored = (flipped == x.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all() and 150 < same.sum() < 250


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 5, 64), (1, 3, 28, 28)])
def test_odd_and_small_images_of_strong_changes_are_finite(shape):
    torch.manual_seed(0)
    x, _ = Augment("edm", 1.0)(torch.rand(shape) * 2 - 1)
    assert x.shape == shape and x.isfinite().all() and x.abs().max() < 3


def test_words():
    for word in ("flip", "edm:0.12", "edm:0.15", "edm:0", "edm:1"):
        assert parse(word).word == word
    assert parse("none") is None and parse("edm") == Augment("edm", 0.12)
    for word in ("", "flip:1", "edm:", "edm:x", "edm:1.2", "edm:nan", "edm:-1", "none:1", "colour"):
        with pytest.raises(FlowbenchError, match="take none, flip, edm, or edm:P") as error:
            parse(word)
        assert "\n" not in str(error.value)
