"""Units of a record come back class by class, and chance passes as many useless ones as a simulation does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from advfeat.experiments.records import Record
from advfeat.features import usefulness
from advfeat.pages.units import recorded_units, useful_by_chance


def test_units_of_all_seeds_stand_side_by_side_in_the_row_of_their_class():
    # Joined before they are cut into rows, the units of one seed would fill the rows of the other's classes.
    def run(first):
        series = {"net/rho": [first + k for k in range(4)], "net/gamma": [-first - k for k in range(4)]}
        return {"config": {"classes": ["a", "b"]}, "series": series}

    record = Record("02-features-model", "planted", {1: run(10.0), 0: run(0.0)}, Path())
    rho, gamma = recorded_units(record, "net")
    assert rho.tolist() == [[0, 1, 10, 11], [2, 3, 12, 13]]
    assert torch.equal(gamma, -rho)


@pytest.mark.numbers
@pytest.mark.parametrize("members", [10, 25])
def test_useless_features_pass_by_chance_as_often_as_the_formula_says(members):
    # One side only would be half as many, and a ρ without its factor of two far fewer.
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(10 * members, 20_000, generator=generator)
    positive = torch.arange(10 * members) < members
    passed = torch.tensor([abs(found.value) >= 0.2 for found in usefulness(values, positive)])
    assert float(passed.double().mean()) == pytest.approx(useful_by_chance(members, 9 * members), rel=0.1)


def test_all_useless_features_reach_a_threshold_of_nothing():
    assert useful_by_chance(10, 90, threshold=1e-12) == pytest.approx(1)
    with pytest.raises(ValueError, match="members"):
        useful_by_chance(0, 90)
