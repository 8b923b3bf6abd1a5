"""Each training set and network has one colour and one marker in every figure, which everybody can tell apart."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import BarContainer

from advfeat.estimates import Estimate
from advfeat.pages import dataset_figures, debate_figures, evaluation_figures, fourier_figures, identity, plots
from advfeat.pages.identity import COLORS, MARKERS, OTHERS, SMALLEST, WIDEST

pytestmark = pytest.mark.usefixtures("figures_in_style")

HALF = Estimate(0.5, 0.4, 0.6, 100)
# From linear RGB to what a dichromat sees of it, severity 1: Machado, Oliveira and Fernandes (2009), table 1.
SEEN_WITH = {
    "normal vision": np.eye(3),
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


def linear(color):
    encoded = np.array(to_rgb(color))
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def oklab(rgb):
    """Björn Ottosson's OKLab of linear RGB: lightness from 0 to 1, and two axes of colour on the same scale."""
    cones = [
        [0.41222147, 0.53633254, 0.05144599],
        [0.21190350, 0.68069955, 0.10739696],
        [0.08830246, 0.28171884, 0.62997870],
    ]
    opponents = [
        [0.21045426, 0.79361779, -0.00407205],
        [1.97799850, -2.42859221, 0.45059371],
        [0.02590404, 0.78277177, -0.80867577],
    ]
    return np.array(opponents) @ np.cbrt(np.array(cones) @ rgb)


def test_the_distance_of_colours_is_that_of_published_values():
    # OKLab of white and of pure red as its author publishes them.
    assert np.abs(oklab(linear("white")) - [1, 0, 0]).max() <= 1e-3
    assert np.abs(oklab(linear("#FF0000")) - [0.628, 0.225, 0.126]).max() <= 1e-3


@pytest.mark.parametrize("vision", SEEN_WITH)
@pytest.mark.parametrize("colors", [COLORS.values(), OTHERS], ids=["names", "others"])
def test_colours_are_told_apart_with_every_kind_of_colour_blindness(vision, colors):
    # A just noticeable difference is about 0.02; thin lines and small dots need several of them.
    seen = {color: oklab((np.array(SEEN_WITH[vision]) @ linear(color)).clip(0, 1)) for color in colors}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= 0.1, (one, other)


@pytest.mark.parametrize("color", [*COLORS.values(), *OTHERS, *identity.strengths(COLORS["robust"], 4), identity.GREY])
def test_a_line_stands_out_from_white_paper(color):
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], linear(color)))
    assert 1.05 / (luminance + 0.05) >= 3


def test_every_name_has_a_marker_of_its_own_and_none_has_that_of_published_values():
    assert list(MARKERS) == list(COLORS)
    assert len(set(MARKERS.values()) - {"D"}) == len(COLORS)
    assert dataset_figures.SETS.keys() <= COLORS.keys()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *((symbol, key) for key, symbol in dataset_figures.SETS.items()),
        *((key, key) for key in COLORS),
        ("trained on D_det", "D_det"),
        ("robust 0.5", "robust"),
        ("standard network", "standard"),
        ("robust judge", "robust"),
        ("$\\mathcal{D}$\nstandard", "standard"),
        ("$\\mathcal{D}$\nadversarial", "robust"),
        ("$\\hat{\\mathcal{D}}_R$\nstandard", "D_R"),
        ("textures", "standard"),
        ("ordinary test images", ""),
        ("ResNet-50", ""),
        ("ε = 0.5", ""),
    ],
)
def test_names_in_figures_are_recognised(name, key):
    assert identity.key_of(name) == key


def test_names_keep_their_colour_whatever_stands_beside_them():
    # Colours in the order of the names, as any plain figure has them, would change with the company.
    for names in (["D", "D_rand"], ["D_rand", "D"], ["else", "D_rand", "more", "D"]):
        given = dict(zip(names, identity.colors_of(names), strict=True))
        assert (given["D"], given["D_rand"]) == (COLORS["D"], COLORS["D_rand"])
        assert len(set(given.values())) == len(names)
    one, *_ = identity.colors_of(["D_R", "else"])[1:]
    for seen, key in itertools.product(SEEN_WITH.values(), COLORS):
        both = [oklab((np.array(seen) @ linear(color)).clip(0, 1)) for color in (one, COLORS[key])]
        assert np.linalg.norm(both[0] - both[1]) >= 0.1, key
    standard, *robust = identity.colors_of(["fitted at $\\epsilon=0$", "trained at ε = 0.25", "trained at ε = 1"])
    assert standard == COLORS["standard"]
    lightness = [oklab(linear(color))[0] for color in robust]
    assert lightness[0] > oklab(linear(COLORS["robust"]))[0] > lightness[1]


def colors_drawn(axis):
    """Label → colours of its lines, bars or points."""
    found = {line.get_label(): {to_hex(line.get_color())} for line in axis.lines}
    for part in axis.containers:
        if isinstance(part, BarContainer):
            found[part.get_label()] = {to_hex(bar.get_edgecolor()) for bar in part}
        elif part[0] is not None:  # not the whiskers of bars
            found[part.get_label()] = {to_hex(part[0].get_color())}
    return found


def lower(*keys):
    return {COLORS[key].lower() for key in keys}


def test_whoever_draws_takes_the_colour_of_the_name():
    both = {"robust": HALF, "D_NR": HALF}
    _, axis = plt.subplots()
    plots.accuracy_bars(axis, both)
    assert {to_hex(bar.get_facecolor()) for bar in axis.patches} == lower("robust", "D_NR")
    _, axis = plt.subplots()
    plots.grouped_bars(axis, {"D_R": {"clean": HALF, "attacked": HALF}, "D": {"clean": HALF, "attacked": HALF}})
    assert colors_drawn(axis)["clean"] == colors_drawn(axis)["attacked"] == lower("D_R", "D")
    _, axis = plt.subplots()
    plots.grouped_bars(axis, {"anything": {"shape": HALF, "texture": HALF}})
    assert colors_drawn(axis)["shape"] == lower("robust")
    _, axis = plt.subplots()
    plots.accuracy_curves(axis, {"D_det": {0.1: HALF}, "standard": {0.1: HALF}})
    assert colors_drawn(axis)["D_det"] == lower("D_det")
    assert axis.lines[2].get_marker() == MARKERS["standard"]
    _, axis = plt.subplots()
    plots.learning_curves(axis, {"robust": [0.5]}, ylabel="")
    assert colors_drawn(axis)["robust"] == lower("robust")
    (axis,) = fourier_figures.rates_by_network({"noise": {"D_rand": HALF, "noise": HALF}}).axes
    assert colors_drawn(axis)["D_rand"] == lower("D_rand")
    (axis,) = debate_figures.leakage({"D": {0.1: HALF}, "D_rand": {0.1: HALF}}, chance=0.1).axes
    assert (colors_drawn(axis)["D"], colors_drawn(axis)["D_rand"]) == (lower("D"), lower("D_rand"))
    (axis,) = evaluation_figures.budget_curves({"one": {"standard": [(1, HALF)], "PGD": [(1, HALF)]}}).axes
    assert colors_drawn(axis)["standard"] == lower("standard")
    (axis,) = dataset_figures.training_sets({"D": HALF, "D_det": HALF}, chance=0.1).axes
    assert {to_hex(bar.get_facecolor()) for bar in axis.patches} == lower("D", "D_det")


def test_letters_are_large_enough_for_a_phone():
    # At 110 dots an inch and half the size, SMALLEST points are as many pixels as this.
    assert SMALLEST / 72 * plt.rcParams["figure.dpi"] / 2 >= 8
    assert WIDEST * plt.rcParams["figure.dpi"] / 2 <= 360
    sizes = ("font.size", "xtick.labelsize", "ytick.labelsize", "legend.fontsize", "axes.titlesize", "axes.labelsize")
    assert min(plt.rcParams[size] for size in sizes) >= SMALLEST
