"""Figures of the closing chapter: each claim in its own direction, on the scale that its panel names."""

from __future__ import annotations

import json

import matplotlib as mpl
import pytest

mpl.use("Agg")

from advfeat.experiments.records import BOOK
from advfeat.pages import upshot_figures, verdicts
from advfeat.pages.verdicts import claim_rows

pytestmark = pytest.mark.usefixtures("figures_in_style")

PAPER = {"p": {"value": 0.6, "where": "Table 9"}, "zero": {"value": 0.0, "where": "Table 9"}}


def row(value, no_effect, *, key="k", **more):
    """The row of one recorded claim; the interval of each number is 0.02 either way."""
    ids = [f"{key}{place}" for place in range(len(value))]
    other = [f"{key}-none{place}" for place in range(len(no_effect))]
    index = [
        {"id": name, "profile": "cifar10-cpu", "value": number, "low": number - 0.02, "high": number + 0.02}
        for name, number in [*zip(ids, value, strict=True), *zip(other, no_effect, strict=True)]
    ]
    claim = {"key": key, "chapter": "3", "claim": "C", "ids": ids, "no_effect": other, **more}
    (found,) = claim_rows([claim], PAPER, index)
    return found


def test_effects_count_along_the_claim():
    # Not the bare difference: a claim that something is lower would stand on the wrong side.
    assert upshot_figures.effects(row([0.3], [0.1])) == [pytest.approx((0.2, 0.16, 0.24))]
    assert upshot_figures.effects(row([0.1], [0.3], wanted="lower")) == [pytest.approx((0.2, 0.16, 0.24))]
    assert upshot_figures.effects(row([0.1], [0.3])) == [pytest.approx((-0.2, -0.24, -0.16))]


def test_beside_the_paper_an_effect_is_a_share_of_the_papers():
    # 0.35 lies half way from no effect, 0.1, to the paper's 0.6; of 0.0 and 0.2 the paper's is the lower.
    assert upshot_figures.effects(row([0.35], [0.1], paper="p"))[0] == pytest.approx((0.5, 0.46, 0.54))
    assert upshot_figures.effects(row([0.05], [0.2], paper="zero", wanted="lower"))[0] == pytest.approx(
        (0.75, 0.65, 0.85)
    )


def test_several_networks_and_several_nothings_are_several_points():
    assert len(upshot_figures.effects(row([0.3, 0.4], [0.1, 0.2]))) == 2
    assert [value for value, _, _ in upshot_figures.effects(row([0.5], [0.1, 0.2]))] == pytest.approx([0.4, 0.3])


def test_every_decided_claim_about_a_rate_has_a_line_in_its_panel():
    rows = [
        row([0.35], [0.1], key="r_clean", paper="p"),
        row([0.3], [0.1], key="new_claim"),
        row([0.7], [0.0], key="figure3", format=".2f"),
    ]
    figure = upshot_figures.forest([*rows, row_without_record()])
    names = [[label.get_text() for label in axis.get_yticklabels()] for axis in figure.axes]
    assert names == [["3: D_R: accurate"], ["3: new claim"]]
    drawn = [label.get_text() for label in figure.axes[0].get_legend().get_texts()]
    assert drawn == ["shown", "smaller"]


def test_a_floor_and_a_number_that_is_no_rate_are_listed_and_not_drawn():
    floor = row([0.0], [0.2], key="nr_robust", paper="zero", wanted="lower")
    assert floor.verdict == verdicts.FLOOR
    number = row([0.7], [0.0], key="figure3", format=".2f")
    rate = row([0.3], [0.1], key="fragile")
    assert upshot_figures.undrawn([floor, rate, number, row_without_record()]) == [floor, number]
    names = [label.get_text() for axis in upshot_figures.forest([floor, rate]).axes for label in axis.get_yticklabels()]
    assert names == ["3: an attack harms more than noise"]


def test_every_claim_about_a_rate_has_a_name_in_words():
    claims = json.loads((BOOK / "claims.json").read_text())
    paper = json.loads((BOOK / "paper.json").read_text())
    for claim in claims:
        floor = paper.get(claim.get("paper"), {}).get("value") == 0
        if "settled" not in claim and claim.get("format", ".1%").endswith("%") and not floor:
            assert claim["key"] in upshot_figures._NAMES, claim["key"]


def row_without_record():
    (found,) = claim_rows([{"key": "x", "chapter": "3", "claim": "C", "ids": ["a"], "no_effect": 0.1}], PAPER, [])
    assert found.verdict == verdicts.NOT_RECORDED
    return found


def test_without_any_record_the_forest_is_empty():
    figure = upshot_figures.forest([row_without_record()])
    assert [axis.get_yticklabels() for axis in figure.axes] == [[], []]


def test_curves_of_each_dimension_and_the_examples_they_need():
    # Clean and attacked exchanged would draw the solid line on top.
    curves = {10: {"clean": [0.9, 1.0], "attacked": [0.1, 0.8]}, 100: {"clean": [0.9, 1.0], "attacked": [0.0, 0.5]}}
    needed = {"clean": {10: 1.0, 100: 1.0}, "attacked": {10: 3.0, 100: 9.0}}
    left, right = upshot_figures.sample_complexity(curves, [1, 10], needed).axes
    solid = {line.get_label(): list(line.get_ydata()) for line in left.lines if line.get_linestyle() == "-"}
    assert solid == {"attacked, d = 10": [0.1, 0.8], "attacked, d = 100": [0.0, 0.5]}
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in right.lines}
    assert drawn["attacked"] == ([10, 100], [3.0, 9.0])
    assert drawn["slope of the square root of d"][1] == pytest.approx([9 / 10**0.5, 9.0])  # through the last point
