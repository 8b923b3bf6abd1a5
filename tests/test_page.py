"""A chapter's page: a number named where it is measured comes back in text and record."""

from __future__ import annotations

import sys
from functools import partial

import myst_nb
import pandas as pd
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from advfeat.estimates import Estimate
from advfeat.experiments.making import Trained
from advfeat.experiments.recipes import ImagesRecipe, NetworkRecipe
from advfeat.experiments.records import load_record
from advfeat.experiments.run import Run
from advfeat.hyperparameters import TrainConfig
from advfeat.models import build_model
from advfeat.pages import notebook, page
from advfeat.pages.page import Page

CHAPTER = "05-non-robust-features"


@pytest.fixture(scope="module")
def run():
    return Run("planted", device="cpu", overrides={"train_images": 40, "test_images": 20})


@pytest.fixture
def glued(monkeypatch):
    """The numbers that the text can quote, as myst-nb would keep them."""
    kept = {}
    for module in (notebook, page):
        monkeypatch.setattr(module, "glue", kept.__setitem__)
    return kept


@pytest.fixture
def shown(monkeypatch):
    found = []
    monkeypatch.setattr(page, "display", lambda what: found.append(what.data))
    return found


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    root = tmp_path / "results"
    root.mkdir()
    monkeypatch.setenv("ADVFEAT_RESULTS", str(root))
    return root


def network(width, seed):
    history = [{"epoch": 1, "accuracy": 0.5, "seconds": 2.0}, {"epoch": 2, "accuracy": 0.75, "seconds": 3.0}]
    training = TrainConfig(epochs=2, batch_size=10, lr=0.1)
    recipe = NetworkRecipe("cnn4", width, ImagesRecipe("images"), training, seed, init_seed=seed)
    return Trained(build_model("cnn4", width=width), history, recipe)


def test_what_is_measured_is_quoted_and_recorded_under_one_name(run, glued, shown):
    one = Page(run, CHAPTER, seed=1, record=True, settings={"source_seed": 4})
    rate, distance = Estimate(0.625, 0.5, 0.75, 100), Estimate(-0.001, -0.5, 0.5, 90, rate=False, within=(-1, 1))
    narrow = one.trained("train D_rand", network(8, 7))
    assert one.measured("table1/D_rand", rate, narrow, attack="PGD-20") is rate
    assert one.measured("fig3/correlation", distance) is distance
    assert one.measured("fig3/share", rate, spec=".0%") is rate
    assert glued == {
        "ch05_table1/D_rand": "62.5%",
        "ch05_fig3/correlation": "0.00",  # zero after rounding has no minus
        "ch05_fig3/share": "62%",
    }
    one.save()
    saved = load_record(CHAPTER, "planted").runs[1]
    assert saved["values"]["table1/D_rand"] == {
        "value": 0.625, "n": 100, "network": "cnn4, width 8", "attack": "PGD-20", "seed": 7,
    }  # fmt: skip
    assert saved["values"]["fig3/correlation"] == {
        "value": -0.001, "n": 90, "network": "cnn4, width 32", "attack": "none", "seed": 1,
        "low": -0.5, "high": 0.5, "within": [-1, 1],
    }  # fmt: skip
    assert saved["seconds"]["train D_rand"] == 5.0
    assert saved["config"].keys() == {*run.describe(), "source_seed"}
    assert saved["config"]["source_seed"] == 4
    assert saved["provenance"]["fingerprint"] == run.train_set.fingerprint()
    assert shown == [f"Recorded in `{CHAPTER}/planted/record.json`."]


def test_whatever_is_named_comes_back_unchanged_and_is_recorded(run, glued, shown):
    one = Page(run, CHAPTER, seed=0, record=True)
    curve, grid, rows = [0.25, 0.5], torch.rand(1, 2, 3, 4, 4), [{"rule": "a", "passed": True}]
    assert one.series("accuracy", curve) is curve
    trained = network(8, 0)
    assert one.trained("D_det", trained, curve="accuracy on D_det") is trained
    one.trained("D_rand", trained)  # without a curve
    assert one.sheet("panel", grid) is grid
    assert one.table("masking", rows) is rows
    one.save()
    record = load_record(CHAPTER, "planted")
    assert record.runs[0]["series"] == {"accuracy": curve, "accuracy on D_det": [0.5, 0.75]}
    assert record.runs[0]["seconds"].keys() == {"D_det", "D_rand", "chapter"}
    assert record.runs[0]["tables"] == {"masking": rows}
    assert record.sheet("panel").exists()


def test_nothing_is_written_unless_a_record_was_asked_for(run, glued, shown, results):
    one = Page(run, CHAPTER, seed=0)
    one.measured("table1/D", Estimate(0.5, 0.4, 0.6, 100))
    one.save()
    assert list(results.iterdir()) == []
    assert shown == []


def test_a_quoted_number_is_text_or_the_value_of_an_estimate(run, glued):
    one = Page(run, "13-fast-attacks", seed=0)
    one.quote(
        {"a/b": 3}, images=50000, chance="10%", rate=Estimate(0.5, 0.4, 0.6, 9), mean=Estimate(2.5, 2, 3, 9, rate=False)
    )
    expected = {"a/b": "3", "images": "50,000", "chance": "10%", "rate": "50.0%", "mean": "2.50"}
    assert glued == {f"ch13_{name}": text for name, text in expected.items()}
    nothing = Estimate(-0.001, -0.1, 0.1, 9, rate=False)
    one.quote(nothing=nothing)
    one.measured("again", nothing)
    assert glued["ch13_nothing"] == glued["ch13_again"] == "0.00", "a zero has no sign"


def test_one_format_holds_for_all_numbers_of_a_call_and_leaves_text_alone(run, glued):
    share, rate = torch.tensor(0.126), Estimate(0.5, 0.4, 0.6, 9)
    Page(run, "13-fast-attacks", seed=0).quote({"share": share}, rate=rate, twice=2.5, none="–", spec=".0%")
    assert glued == {"ch13_share": "13%", "ch13_rate": "50%", "ch13_twice": "250%", "ch13_none": "–"}


def test_a_glued_number_is_the_output_that_myst_nb_writes():
    """A wrong type, name or prefix, with which the pages would not find the number."""
    values = ["12.5%", 3, 0.25, torch.tensor([1, 2]), pd.DataFrame({"a": [1]})]
    before = InteractiveShell.initialized()
    InteractiveShell.instance()  # whatever kind another test left; there can be only one
    try:
        both = []
        for glue in (notebook.glue, partial(myst_nb.glue, display=False)):
            with capture_output() as caught:
                for place, value in enumerate(values):
                    glue(f"ch05_{place}", value)
            both.append([(of.data, of.metadata) for of in caught.outputs])
    finally:
        if not before:
            InteractiveShell.clear_instance()
    assert both[0] == both[1]
    assert len(both[0]) == len(values)


def test_a_page_without_myst_nb_measures_all_the_same(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "myst_nb", None)
    estimate = Estimate(0.5, 0.4, 0.6, 9)
    assert Page(run, CHAPTER, seed=0).measured("table1/D", estimate) is estimate


def test_without_a_record_the_page_says_so_once_and_quotes_dashes(run, glued, monkeypatch):
    said = []
    monkeypatch.setattr(notebook, "display", said.append)
    one = Page(run, CHAPTER, seed=0)
    assert one.recorded() == one.recorded() == []
    one.quote_recorded(further=lambda of: of.summary("table1/D_rand"), spec=".1%")
    assert glued == {"ch05_further": "–"}
    assert len(said) == 1


@pytest.mark.parametrize(
    ("key", "estimate", "named"), [(3, Estimate(0.5, 0.4, 0.6, 9), "key"), ("table1/D", 0.5, "estimate")]
)
def test_a_number_without_name_or_interval_is_refused(run, key, estimate, named):
    with pytest.raises(TypeError, match=named):
        Page(run, CHAPTER, seed=0).measured(key, estimate)


def test_about_names_profile_seeds_device_versions_and_time(run):
    text = Page(run, CHAPTER, seed=0).about(source=3, training=4).data
    assert "`planted`" in text
    assert "source 3, training 4" in text
    assert run.provenance["device"] in text
    assert run.provenance["versions"]["torch"] in text
    assert "s for the cells above" in text


def test_the_recorded_part_is_that_of_the_notebook_module(run, glued):
    one = Page(run, CHAPTER, seed=2, record=True)
    one.measured("table1/D_rand", Estimate(0.625, 0.5, 0.75, 100))
    one.save()
    later = Page(run, CHAPTER, seed=2)
    assert [sorted(record.runs) for record in later.recorded()] == [[2]]
    later.quote_recorded({"n": lambda of: of.summary("table1/D_rand").n}, seeds=lambda of: len(of.runs))
    assert (glued["ch05_n"], glued["ch05_seeds"]) == ("100", "1")
    later.quote_recorded(here=lambda of: len(of.runs) / 8, profile="planted", spec=".0%")
    later.quote_recorded(elsewhere=lambda of: len(of.runs) / 8, profile="cifar10-cpu", spec=".0%")
    assert (glued["ch05_here"], glued["ch05_elsewhere"]) == ("12%", "–")
    one = later
    table = one.beside_paper({"table1/D_rand": "D_rand"})
    assert table.equals(notebook.paper_and_ours(notebook.recorded(CHAPTER), {"table1/D_rand": "D_rand"}))
    assert table.loc["D_rand", "planted"].startswith("62.5% [")
    assert one.answered().data == notebook.answered(CHAPTER).data
