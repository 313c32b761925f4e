"""The palette can be read on white, and told apart by people who see colours otherwise.

Colour blindness is simulated with the matrices of Machado, Oliveira and Fernandes (2009), "A physiologically-based
model for simulation of color vision deficiency", at severity 1, on linear RGB. Thresholds: text needs a contrast of
4.5 : 1 with its ground and a line 3 : 1 (WCAG 2.2, 1.4.3 and 1.4.11); two colours differ when they are at least 10
apart in CIELAB, more than four just noticeable differences of 2.3 (Mahy and others, 1994).
"""

from itertools import combinations

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.colors import unlabel_rgb

from medusa_core.plots.palette import COLOURS, DASHES, PATTERNS, SYMBOLS, TEMPLATE, ramp, styled

TEXT, LINE, APART = 4.5, 3.0, 10.0
# Grounds of cells and chips: a letter, a pattern or an outline stands on them, so only that needs contrast.
FILLS = {"prefix", "self", "repeated", "closed"}
SIGHT = {
    "usual": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # D65


def linear(colour):
    """Linear RGB (3,) of "#rrggbb"."""
    coded = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG's ratio of two colours, 1 to 21."""
    dark, light = sorted(linear(colour) @ TO_XYZ[1] for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def lab(rgb):
    """CIELAB (3,) of linear RGB."""
    share = TO_XYZ @ rgb / TO_XYZ.sum(axis=1)
    f = np.where(share > (6 / 29) ** 3, np.cbrt(share), share / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def seen(colour, sight):
    """CIELAB of a colour, to someone's eyes."""
    return lab(np.clip(np.array(SIGHT[sight]) @ linear(colour), 0, 1))


def test_the_ratio_and_the_distance_agree_with_known_values():
    assert contrast("#FFFFFF", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#FFFFFF") == pytest.approx(4.54, abs=0.01)  # the lightest grey that passes
    assert seen("#FF0000", "usual") == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    red, green = (seen(colour, "deuteranopia") for colour in ("#C00000", "#6A6A00"))
    assert np.linalg.norm(red - green) < APART  # a pair that this test exists to refuse


@pytest.mark.parametrize("sight", SIGHT)
def test_any_two_colours_differ(sight):
    for one, other in combinations(COLOURS, 2):
        distance = np.linalg.norm(seen(COLOURS[one], sight) - seen(COLOURS[other], sight))
        assert distance >= APART, f"{one} and {other} are {distance:.1f} apart with {sight}"


@pytest.mark.parametrize("meaning", COLOURS)
def test_a_letter_can_be_read_on_every_colour(meaning):
    assert max(contrast(COLOURS[meaning], text) for text in ("#000000", "#FFFFFF")) >= TEXT


@pytest.mark.parametrize("meaning", sorted(COLOURS.keys() - FILLS))
def test_a_line_in_a_colour_can_be_seen_on_white(meaning):
    assert contrast(COLOURS[meaning], "#FFFFFF") >= LINE


def test_text_of_figures_has_contrast_and_a_projectors_size():
    layout = styled(go.Figure(), "title").layout
    assert contrast(layout.font.color, "#FFFFFF") >= 7
    assert layout.font.size >= 14 and layout.hoverlabel.font.size >= 14


def test_a_series_goes_from_dark_to_light_in_steps_that_are_seen():
    for count in range(2, 7):
        hexes = ["#" + "".join(f"{round(part):02x}" for part in unlabel_rgb(c)) for c in ramp(count)]
        for sight in SIGHT:
            steps = np.diff([seen(colour, sight) for colour in hexes], axis=0)
            assert min(steps[:, 0]) > 0 and min(np.linalg.norm(steps, axis=1)) >= APART, (count, sight)


def test_a_series_needs_no_colour_at_all():
    for shapes in (DASHES, SYMBOLS, PATTERNS):
        assert len(set(shapes)) == len(shapes) == 6


def test_patterns_lie_on_their_bars_instead_of_replacing_them():
    assert TEMPLATE.data.bar[0].marker.pattern.fillmode == "overlay"
