"""The displays of chapters around their results come from the run and from the records, not from thin air."""

import json

import pytest

from advfeat.estimates import Estimate, Measured
from advfeat.experiments.making import Trained
from advfeat.experiments.recipes import ImagesRecipe, NetworkRecipe
from advfeat.experiments.record_writing import save_record
from advfeat.experiments.run import Run
from advfeat.hyperparameters import TrainConfig
from advfeat.measures import accuracy
from advfeat.models import build_model
from advfeat.pages import notebook
from advfeat.pages.page import Page
from advfeat.pages.runner import main


@pytest.fixture
def results(tmp_path, monkeypatch):
    root = tmp_path / "results"
    root.mkdir()
    monkeypatch.setenv("ADVFEAT_RESULTS", str(root))
    return root


@pytest.fixture(scope="module")
def run():
    return Run("planted", device="cpu", overrides={"train_images": 40, "test_images": 20})


def test_saved_values_come_back_beside_the_paper(results, run):
    chapter = "05-non-robust-features"
    for seed, value in ((0, 0.6), (1, 0.7)):
        page = Page(run, chapter, seed=seed, record=True)
        page.measured("table1/D_rand", Estimate(value, 0.5, 0.8, 100))
        page.save()
    (record,) = notebook.recorded(chapter)
    assert sorted(record.runs) == [0, 1]
    assert record.runs[0]["provenance"]["fingerprint"] == run.train_set.fingerprint()
    assert record.runs[0]["config"]["train_images"] == 40

    rows = {"table1/standard": "D", "table1/D_rand": "D_rand", "table1/none": "unpublished"}
    table = notebook.paper_and_ours([record], rows)
    assert list(table.index) == ["D", "D_rand", "unpublished"]
    assert list(table["paper"]) == ["95.3%", "63.3%", "–"]  # Table 1 of the paper
    assert table.loc["D_rand", "planted"].startswith("65.0% [")
    assert table.loc["D_rand", "n, seeds (planted)"] == "100, 2"
    assert table.loc["D", "planted"] == "–"


def trained_narrow():
    training = TrainConfig(epochs=1, batch_size=10, lr=0.1)
    recipe = NetworkRecipe("cnn4", 8, ImagesRecipe("images"), training, seed=7, init_seed=7)
    return Trained(build_model("cnn4", width=8).eval(), [], recipe)


def test_the_largest_profile_comes_first(results):
    # Recorded figures show the first record only.
    for profile, count in (("a-small", 100), ("b-large", 50_000), ("c-middle", 2000)):
        save_record(
            "05-chapter", profile, seed=0, values={}, config={"train_images": count}, seconds={},
            provenance={"commit": "c0ffee", "device": "a processor"},
        )  # fmt: skip
    found = [record.profile for record in notebook.recorded("05-chapter")]
    assert found == ["b-large", "c-middle", "a-small"]


def test_a_larger_record_of_other_images_does_not_stand_beside_the_papers_numbers(results, monkeypatch):
    shown = []
    monkeypatch.setattr(notebook, "display", shown.append)

    def keep(profile, count, data):
        save_record(
            "05-chapter", profile, seed=0, values={}, config={"train_images": count, "data": data}, seconds={},
            provenance={"commit": "c0ffee", "device": "a processor"},
        )  # fmt: skip

    def found(**asked):
        return [record.profile for record in notebook.recorded("05-chapter", **asked)]

    keep("clothes", 60_000, "fashion")
    keep("pets", 100, "folder")
    assert found() == ["clothes", "pets"]  # without the paper's images all there is
    keep("small", 10_000, "cifar10")
    keep("large", 50_000, "cifar10")
    assert found() == ["large", "small"]
    assert found(data="fashion") == ["clothes"]
    assert not shown
    assert found(data="planted", by="make it so") == []
    assert "make it so" in shown[0].data


def test_nothing_recorded_is_said(results, monkeypatch):
    shown = []
    monkeypatch.setattr(notebook, "display", shown.append)
    assert notebook.recorded("05-non-robust-features") == []
    assert "make record CHAPTER=05" in shown[0].data


def test_a_spread_goes_from_the_smallest_to_the_largest():
    assert notebook.spread([0.5, 0.25, 0.75]) == "25% to 75%"
    assert notebook.spread((of for of in (0.5, -0.001)), ".2f") == "0.00 to 0.50"  # zero after rounding has no minus
    assert notebook.spread([]) == "–"


def test_published_values_are_rates_with_their_place():
    entries = json.loads(notebook.PAPER.read_text())
    known = {key for key, entry in entries.items() if entry["value"] is not None}
    others = (
        "paper",
        "library",
        "reruns",
        "replications",
        "nakkiran",
        "gilmer",
        "goh",
        "nakano",
        "wallace",
        "salman",
        "geirhos",
        "fort",
        "hendrycks",
    )
    assert set().union(*(notebook.paper_values(by) for by in others)) == known
    assert set(entries) - known == {"fig3/correlation"}
    for entry in entries.values():
        assert entry["value"] is None or 0 <= entry["value"] <= 1
        assert entry["where"]
        assert entry.get("by", "paper") in others


def test_a_library_checkpoint_is_never_shown_as_the_papers():
    library = notebook.paper_values(by="library")
    assert library["training/eps0.5/eps0.25"] == 0.8234
    assert not set(library) & set(notebook.paper_values())
    table = notebook.paper_and_ours([], {"training/eps0.5/eps0.25": "a", "fig2/adversarial/eps0.25": "b"})
    assert list(table["paper"]) == ["–", "82.5% (second-hand)"]


def test_checkpoints_stand_beside_ours_under_their_own_name():
    rows = {"training/eps0.5/eps0.25": ("ε = 0.5", "ε = 0.25"), "training/none": ("none", "clean")}
    names = ("trained at", "attacked at")
    table = notebook.paper_and_ours([], rows, by="library", heading="checkpoint", names=names, spec=".2%")
    assert table["checkpoint"].to_dict() == {("ε = 0.5", "ε = 0.25"): "82.34%", ("none", "clean"): "–"}
    assert tuple(table.index.names) == names
    assert list(table.columns) == ["checkpoint"]


@pytest.fixture
def attacked(results):
    """A record of one network under three attacks, and of two other numbers."""
    fields = {"config": {}, "seconds": {}, "provenance": {"commit": "c0ffee", "device": "a processor"}}
    values = {
        "robust/pgd-20/eps1": Measured(0.25, 100, "cnn4", "PGD-20, l2 eps=1"),
        "robust/pgd-20/eps0.5": Measured(0.5, 100, "cnn4", "PGD-20, l2 eps=0.5"),
        "robust/pgd-100-restart/eps0.5": Measured(0.4, 100, "cnn4", "PGD-100, a restart, l2 eps=0.5"),
        "robust/autoattack/eps0.5": Measured(0.3, 50, "cnn4", "AutoAttack, l2 eps=0.5"),
        "robust/clean": Measured(0.9, 1000, "cnn4"),
        "price/eps0.5": Measured(0.0625, 1000, "cnn4", low=0.05, high=0.075),
    }
    save_record("03-chapter", "planted", seed=0, values=values, **fields)
    (record,) = notebook.recorded("03-chapter")
    return record


def test_attacks_of_a_record_become_columns_in_the_order_asked_for(attacked):
    # "PGD-100, a restart" has a comma of its own: only the threat is cut off.
    asked = ["PGD-5", "PGD-20", "PGD-100, a restart", "AutoAttack"]
    table = notebook.recorded_attacks(attacked, "robust", asked)
    assert list(table.columns) == asked[1:]
    assert list(table.index) == ["ε = 0.5", "ε = 1"]
    assert table.loc["ε = 0.5", "AutoAttack"].startswith("30.0% [")
    assert table.loc["ε = 0.5", "AutoAttack"].endswith(", n = 50")
    assert table.loc["ε = 1"].tolist()[1:] == ["–", "–"]


def test_recorded_numbers_are_listed_by_kind_and_arranged_by_id(attacked):
    listed = notebook.recorded_list(attacked, ["price"])
    assert listed.loc["clean accuracy lost, trained at ε = 0.5"].to_dict() == {
        "found": "6.2% [5.0%, 7.5%]",
        "attack": "none",
        "n, seeds": "1,000, 1",
    }
    assert len(listed) == 1
    ids = {"net": {"clean": "robust/clean", "lost": "robust/none"}, "other": {"clean": "other/clean"}}
    table = notebook.recorded_table(attacked, ids, spec=".0%")
    assert table.index.tolist() == ["net"]
    assert table.loc["net"].to_dict() == {"clean": "90% [88%, 92%]", "lost": "–", "n, seeds": "1,000, 1"}


def test_autoattack_runs_as_the_profile_asks_or_the_page_says_why_not(monkeypatch):
    shown, asked = [], []
    monkeypatch.setattr(notebook, "display", lambda what: shown.append(what.data))
    numbers = {"train_images": 40, "test_images": 20, "autoattack_eps": [0.25, 0.5], "autoattack_images": 7}
    some, none = Run("planted", device="cpu", overrides=numbers), Run("planted", device="cpu")
    trained = trained_narrow()

    def left_as_they_are(given, eps):
        asked.append((given, eps))
        return some.test_set.subset(slice(0, 7))

    monkeypatch.setattr(some, "autoattack_set", left_as_they_are)
    monkeypatch.setattr(notebook, "installed", lambda: True)
    expected = accuracy(trained.model, some.test_set.subset(slice(0, 7)))
    assert notebook.autoattack_accuracies(some, trained) == {0.25: expected, 0.5: expected}
    assert asked == [(trained, 0.25), (trained, 0.5)]
    assert list(notebook.autoattack_accuracies(some, trained, radii=[1.0, 0.5])) == [1.0, 0.5]
    del asked[2:]
    assert shown == []
    assert notebook.autoattack_accuracies(none, trained, radii=[0.5]) == {}
    monkeypatch.setattr(notebook, "installed", lambda: False)
    assert notebook.autoattack_accuracies(some, trained) == {}
    assert "leaves it out" in shown[0]
    assert "not installed" in shown[1]
    assert len(asked) == 2


def test_a_damaged_record_is_refused_before_the_run_and_another_chapters_is_named(results):
    fields = {"values": {}, "config": {}, "seconds": {}, "provenance": {"commit": "c0ffee", "device": "a processor"}}
    chapters = ("03-standard-and-robust-training", "05-non-robust-features")
    mine, other = (save_record(chapter, "planted", seed=0, **fields) for chapter in chapters)
    mine.write_text(mine.read_text()[:40])
    with pytest.raises(ValueError, match=r"03-standard.*record\.json is no record that this version can read"):
        notebook.check_record(chapters[0], profile="planted", seed=0)
    with pytest.warns(UserWarning, match=r"03-standard.*record\.json is no record .* It is left out"):
        notebook.check_record(chapters[1], profile="planted", seed=0)
    with pytest.warns(UserWarning, match=r"03-standard.*record\.json is no record .* It is left out"):
        notebook.check_record("01-adversarial-examples", profile="planted")
    # Chapters show their records before they save: this must not end one either.
    with pytest.warns(UserWarning, match="It is left out"):
        assert notebook.recorded(chapters[0]) == []
    assert [record.folder for record in notebook.recorded(chapters[1])] == [other.parent]


def test_the_command_refuses_a_damaged_record_before_the_first_cell(results, capsys):
    folder = results / "05-non-robust-features" / "planted"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text('{"runs": ')
    assert main(["record", "05"]) == 2
    said = capsys.readouterr().err
    assert str(folder / "record.json") in said
    assert "mend it, take it back from git, or delete it" in said
