"""Tables of chapters 4 and 6 hold the numbers of a record, in the right row and column."""

from __future__ import annotations

import pytest

from advfeat.estimates import Estimate, Measured, correlation_of
from advfeat.experiments.record_writing import save_record
from advfeat.experiments.records import load_record
from advfeat.pages import dataset_tables
from advfeat.pages.dataset_figures import ARCHITECTURES


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Saves numbers under their ids; the record that holds them comes back."""
    monkeypatch.setenv("ADVFEAT_RESULTS", str(tmp_path))

    def make(values, seed=0):
        about = {"provenance": {"commit": "c0ffee", "device": "a processor"}, "config": {}, "seconds": {}}
        save_record("04-chapter", "small", seed=seed, values=values, **about)
        return load_record("04-chapter", "small")

    return make


def rate(value, n=100, attack="none", seed=0, network="cnn4, width 8"):
    return Measured(value=value, n=n, network=network, attack=attack, seed=seed)


def accuracies(place, clean, seed=0):
    shares = {"clean": clean, "eps0.25": clean / 2, "eps0.5": clean / 4}
    attacks = {"clean": "none", "eps0.25": "PGD-20, l2 eps=0.25", "eps0.5": "PGD-20, l2 eps=0.5"}
    return {f"{place}/{at}": rate(share, 40, attacks[at], seed) for at, share in shares.items()}


def test_numbers_of_steps_are_in_the_order_of_numbers(save):
    # In the order of the ids, as text, 10 steps come before 5, and a curve runs back and forth.
    record = save(
        {**accuracies("fig2/D_R/steps10", 0.8), **accuracies("fig2/D_R/steps5", 0.6), "fig2/D_R/clean": rate(1)}
    )
    found = dataset_tables.by_steps(record)
    assert list(found) == [5, 10]
    assert [found[5][at].value for at in ("clean", "eps0.25", "eps0.5")] == [0.6, 0.3, 0.15]
    assert dataset_tables.by_steps(save({"fig2/D_R/clean": rate(1)})) == {}


def test_a_row_for_each_trial_with_its_attack_and_its_seeds(save):
    save(accuracies("fig2/D_R/steps5", 0.6))
    record = save({**accuracies("fig2/D_R/steps5", 0.6, seed=1), **accuracies("fig2/D_NR/noise", 0.4, seed=1)}, seed=1)
    table = dataset_tables.matching_trials(record)
    assert list(table.index) == ["D_R, 5 steps", "D_NR from noise"]
    assert table.index.name == "small"
    assert list(table.columns) == ["clean", "ε = 0.25", "ε = 0.5", "attack", "n attacked, seeds"]
    assert table.loc["D_NR from noise", "ε = 0.25"].startswith("20.0% [")
    # The attack of the clean accuracy is none, and one seed of two tried the searches from noise.
    assert list(table["attack"]) == ["PGD-20", "PGD-20"]
    assert list(table["n attacked, seeds"]) == ["40, 2", "40, 1"]
    assert dataset_tables.matching_trials(save({"fig2/D_R/clean": rate(1)}, seed=1)).shape[0] == 1  # seed 0 has it
    assert len(dataset_tables.matching_trials(record.only(1))) == 2


def test_three_tables_of_checks_with_a_dash_where_nothing_is_recorded(save):
    values = {
        "fig2/D_R/checked/pgd-20": rate(0.5, attack="PGD-20, l2 eps=0.25"),
        "fig2/adversarial/checked/pgd-20": rate(0.75, attack="PGD-20, l2 eps=0.25"),
        "fig2/D_R/checked/autoattack/eps0.25": rate(0.25, attack="AutoAttack, l2 eps=0.25"),  # one word more
        "matched/D_R/start": Measured(0.875, 90, "cnn4, width 8", low=0.75, high=1.0),
        "says/D_NR/robust-source/label": rate(0.1),
        "says/D_NR/robust-source/start": rate(0.9),
    }
    checks, distances, said = dataset_tables.matching_checks(save(values))
    assert checks.loc["AutoAttack, ℓ2, ε = 0.25", "D_R"].startswith("25.0% [")
    assert checks.loc["AutoAttack, ℓ2, ε = 0.25", "adversarial"] == "–"
    assert checks.loc["PGD-20, ℓ2, ε = 0.25", "adversarial"].endswith("], n = 100")
    assert distances.loc["representations apart at the start", "D_R"] == "0.88 [0.75, 1.00]"
    assert said.loc["network: robust, source", "D_NR: the start"].startswith("90.0%")
    assert {table.index.name for table in (checks, distances, said)} == {"small"}
    (only,) = dataset_tables.matching_checks(save({"says/D_R/robust-source/label": rate(0.5)}))
    assert list(only.columns) == ["D_R: the label"]


def figure3(**of_vgg):
    """The recorded accuracies of the five, and further numbers of VGG-16."""
    clean = {f"fig3/{name}/clean": rate(0.9, network=f"{name}, small") for name in ARCHITECTURES}
    return {**clean, **{f"fig3/vgg16/{key}": value for key, value in of_vgg.items()}}


def test_architectures_have_a_column_each_and_chance_no_interval(save):
    chance = Measured(0.25, 60, "vgg16, small", low=0.25, high=0.25)
    record = save({**figure3(same_mistake=rate(0.5), same_mistake_chance=chance), "fig3/source/clean": rate(0.5)})
    found = dataset_tables.by_architecture(record)
    assert list(found["clean"]) == list(ARCHITECTURES)  # not the source, and not in the order of the ids
    assert list(found["same_mistake"]) == ["vgg16"]
    assert found["targeted"] == {}
    table = dataset_tables.architectures(record)
    assert list(table.columns) == list(ARCHITECTURES.values())
    assert table.loc["by chance", "VGG-16"] == "25.0%"
    assert table.loc["the same mistake", "VGG-16"].startswith("50.0% [")
    assert table.loc["the same mistake", "ResNet-18"] == "–"
    assert table.loc["network", "ResNet-18"] == "resnet18, small"
    assert set(table.loc["seeds"]) == {1}


def test_correlations_are_of_the_two_measurements_of_their_row():
    values = {
        "clean": (0.9, 0.8, 0.7, 0.9, 0.6),
        "det_accuracy": (0.1, 0.2, 0.3, 0.4, 0.5),
        "visible": (0.5, 0.3, 0.4, 0.2, 0.1),
        "transfer": (0.2, 0.1, 0.4, 0.3, 0.5),
        "targeted": (0.3, 0.5, 0.1, 0.4, 0.2),
    }
    found = {
        key: {name: Estimate(value, value, value, 9) for name, value in zip(ARCHITECTURES, of, strict=True)}
        for key, of in values.items()
    }
    table = dataset_tables.correlations({"small, seed 0": found})
    expected = [
        correlation_of(found["det_accuracy"], found["transfer"]),
        correlation_of(found["det_accuracy"], found["targeted"]),
        correlation_of(found["visible"], found["transfer"]),
        correlation_of(found["clean"], found["transfer"]),
    ]
    assert list(table["small, seed 0"]) == [f"{of:.2f}" for of in expected]
    assert len(set(table["small, seed 0"])) == 4
