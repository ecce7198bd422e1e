"""The colours of the page: whether texts can be read on their grounds, by the rule of WCAG 2."""

import re
from importlib import resources

import pytest


def luminance(colour):
    """Relative luminance as WCAG 2 defines it, of #rrggbb."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_texts_can_be_read_in_both_themes(theme):
    pairs = re.findall(
        r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)",
        resources.files("flowbench.report.page").joinpath("style.css").read_text(),
    )
    colour = {name: pair[theme] for name, *pair in pairs}
    for text in ("ink", "muted", "accent"):
        for ground in ("paper", "raised"):
            assert contrast(colour[text], colour[ground]) >= 4.5, (text, ground)
    assert contrast(colour["ink"], colour["best"]) >= 4.5
    assert contrast(colour["muted"], colour["paper"]) >= 3  # of borders of controls
