"""The figure of a sweep: a row for each setting, on the side of its gain, grey where the interval holds 0."""

from __future__ import annotations

import matplotlib as mpl
import pytest

mpl.use("Agg")

from matplotlib.colors import to_hex

from advfeat.estimates import Measured
from advfeat.experiments.record_writing import save_record
from advfeat.experiments.records import load_record, results_in
from advfeat.pages import sweep_figures
from advfeat.pages.identity import COLORS, GREY

pytestmark = pytest.mark.usefixtures("figures_in_style")


def gain(value, half):
    return Measured(value, 100, "cnn4", low=value - half, high=value + half, within=(-1.0, 1.0))


def test_every_setting_has_a_row_and_what_it_leaves_alone_has_no_mark(tmp_path):
    rows = [
        {"name": "base", "about": "as it is", "settings": {}},
        {"name": "steps", "about": "100 steps", "settings": {"construct_steps": 100}},
        {"name": "rate", "about": "half the rate", "settings": {"on_rand": {"lr": 0.1}}},
    ]
    values = {f"table1/sweep/base/{kind}": Measured(0.4, 100, "cnn4") for kind in ("D_rand", "D_det")}
    values |= {
        f"table1/sweep/{name}/D_rand/gain": gain(value, 0.02) for name, value in (("steps", 0.1), ("rate", 0.01))
    }
    values["table1/sweep/steps/D_det/gain"] = gain(-0.05, 0.02)
    with results_in(tmp_path):
        save_record(
            "table1-sweep", "trial", seed=0, values=values, provenance={"commit": "c", "device": "d"}, config={},
            seconds={}, tables={"settings": rows},
        )  # fmt: skip
        figure = sweep_figures.worth_of_factors(load_record("table1-sweep", "trial"))
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["100 steps", "half the rate"]
    marks = [drawn.lines[0] for drawn in left.containers]
    assert [(float(mark.get_xdata()[0]), float(mark.get_ydata()[0])) for mark in marks] == [
        (pytest.approx(10), 0),
        (pytest.approx(1), 1),
    ]
    assert [to_hex(mark.get_color()).upper() for mark in marks] == [COLORS["D_rand"], GREY]
    (only,) = right.containers
    assert float(only.lines[0].get_xdata()[0]) == pytest.approx(-5)
    assert left.yaxis_inverted()  # the first setting stands at the top
