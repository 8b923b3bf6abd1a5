"""Grids, plans and their costs; the workflow itself runs in ``test_workflow.py``."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from advfeat.checkout import CHECKOUT
from advfeat.experiments.profiles import get_profile
from advfeat.experiments.record_writing import join_record
from advfeat.experiments.records import load_record, results_in
from advfeat.experiments.run import Run
from advfeat.experiments.store import Store
from advfeat.measures import accuracy
from advfeat.pages.chapter_files import chapters
from advfeat.pages.parameters import Refused, code_cells
from advfeat.paper.__main__ import main
from advfeat.paper.grid import read_grid
from advfeat.paper.needs import below, needed
from advfeat.paper.plan import JobPlan, job_name
from advfeat.paper.report import duration, estimated, failures, show, write_table
from advfeat.paper.trials import measure

STEPS = {"name": "steps", "settings": {"construct_steps": 2}}
TINY = {"train_images": 100, "test_images": 100, "standard": {"epochs": 1}}


def toml(value) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


def write_grid(folder: Path, **given) -> Path:
    path = folder / "mine.toml"
    path.write_text("\n".join(f"{key} = {toml(value)}" for key, value in given.items()))
    return path


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """Plans and notes are kept beside the test's other files, not in the checkout."""
    monkeypatch.setattr("advfeat.paper.grid.RUNS", tmp_path / "runs")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVFEAT_STORE", str(tmp_path / "store"))
    return Store()


def test_a_grid_is_every_combination_of_its_values(tmp_path):
    sweep = {"eps": [0.25, 0.5], "construct_steps": [5, 10, 20]}
    grid = read_grid(write_grid(tmp_path, chapters=["05", "4"], seeds=[0, 3], sweep=sweep))
    assert grid.chapters == ("05-non-robust-features", "04-robust-datasets")
    assert [one.overrides for one in grid.settings] == [
        {"eps": eps, "construct_steps": steps} for eps in (0.25, 0.5) for steps in (5, 10, 20)
    ]
    assert len({grid.results_of(one) for one in grid.settings}) == 6
    alone = read_grid(write_grid(tmp_path, chapters=["05"], seeds=[0], results="elsewhere"))
    assert alone.results_of(alone.settings[0]).name == "elsewhere"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seeds": [0]}, r"chapters must be a list such as \[\"03\", \"05\"\], got None"),
        ({"chapters": ["05"], "seeds": [0.5]}, r"seeds must be a list of whole numbers such as \[0, 1\], got \[0.5\]"),
        ({"chapters": ["05"], "seeds": [-1]}, "seed"),
        ({"chapters": ["99"], "seeds": [0]}, "no chapter '99'; there are"),
        (
            {"chapters": ["05", "5"], "seeds": [0], "sweeps": {}},
            "unknown 'sweeps'; there are chapters, trial, profile, seeds",
        ),
        ({"chapters": ["05"], "seeds": [0, 0]}, "seeds must name each thing once, got 0, 0"),
        ({"chapters": ["05", "5"], "seeds": [0]}, "chapters must name each thing once"),
        ({"chapters": ["05"], "seeds": [0], "profile": "planetd"}, "unknown profile 'planetd'; there are planted"),
        ({"chapters": ["05"], "seeds": [0], "sweep": {"eps": 0.5}}, "sweep must be a table of lists such as eps ="),
        ({"chapters": ["05"], "seeds": [0], "sweep": {"epsilon": [0.5]}}, "unknown override 'epsilon'"),
        ({"chapters": ["05"], "seeds": [0], "sweep": {"eps": [-1.0]}}, "eps"),
        ({"chapters": ["05"], "seeds": [0], "variant": []}, r"variant must be tables \[\[variant\]\], got \[\]"),
        ({"chapters": ["05"], "seeds": [0], "variant": [{"name": "a/b", "settings": {"eps": 1.0}}]}, "got 'a/b'"),
        ({"chapters": ["05"], "seeds": [0], "variant": [{"name": "a"}]}, "variant a must have settings such as"),
        ({"chapters": ["05"], "seeds": [0], "variant": [{"name": "a", "eps": 1.0}]}, "unknown 'eps' in a variant"),
        ({"chapters": ["05"], "seeds": [0], "variant": [STEPS, STEPS]}, "settings must name each thing once, got base"),
        (
            {"chapters": ["05"], "seeds": [0], "variant": [STEPS], "sweep": {"eps": [0.5]}},
            "a sweep or variants, got both",
        ),
        ({"trial": "table2", "seeds": [0]}, "trial must be 'table1', got 'table2'"),
        ({"trial": "table1", "chapters": ["05"], "seeds": [0]}, "chapters or a trial, got both"),
        ({"trial": "table1", "seeds": [0], "variant": [STEPS]}, "its profile must hold images out"),
    ],
)
def test_a_wrong_grid_is_refused_by_name(tmp_path, given, said):
    with pytest.raises(Refused, match=said) as refused:
        read_grid(write_grid(tmp_path, **given))
    assert "mine.toml" in str(refused.value)


def test_a_grid_that_is_no_file_or_no_toml(tmp_path, capsys):
    assert main(["run", str(tmp_path / "none.toml"), "--dry-run"]) == 2
    assert "none.toml cannot be read" in capsys.readouterr().err
    (tmp_path / "broken.toml").write_text("chapters = [")
    with pytest.raises(Refused, match=r"broken.toml cannot be read"):
        read_grid(tmp_path / "broken.toml")


@pytest.mark.parametrize("chapter", ["03", "04", "05", "06", "08", "09"])
def test_needs_come_before_what_needs_them_and_once(chapter):
    run = Run("planted", device="cpu", overrides=TINY)
    found = needed(f"{chapter}-any", run, seed=1, source_seed=0)
    names = [job_name(recipe, run) for recipe in found]
    assert len(set(names)) == len(names) > 1
    for place, recipe in enumerate(found):
        assert all(job_name(one, run) in names[:place] for one in below(recipe))


def test_a_plan_shares_what_chapters_share_and_sees_what_is_there(tmp_path, store):
    path = write_grid(tmp_path, chapters=["01", "05"], seeds=[0, 1], profile="planted", sweep={"train_images": [1000]})
    plan = JobPlan(read_grid(path))
    kinds = [job.kind for job in plan.jobs.values()]
    # For each seed, both chapters: the ordinary network. Chapter 5: a robust one, too, and three sets with learners.
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"network": 10, "dataset": 6, "record": 4, "join": 2}
    for place, job in enumerate(plan.jobs.values()):
        assert not job.done
        assert all(before in list(plan.jobs)[:place] for before in job.needs)

    short = write_grid(tmp_path, chapters=["01"], seeds=[0], sweep={"train_images": [100], "watch_images": [10]})
    plan = JobPlan(read_grid(short))
    (name,) = plan.recipes
    note = tmp_path / "note"
    assert main(["job", str(short), name, "--note", str(note)]) == 0
    assert note.read_text().endswith(" seconds\n")
    again = JobPlan(read_grid(short))
    assert again.jobs[name].done
    again.write(tmp_path / "plan.json", short)
    assert again.note(again.jobs[name]).exists()
    # A note does not outlive the network that it speaks of.
    for left in (store.root / "models").glob("*/*"):
        left.unlink()
    gone = JobPlan(read_grid(short))
    gone.write(tmp_path / "plan.json", short)
    assert not gone.note(gone.jobs[name]).exists()
    written = json.loads((tmp_path / "plan.json").read_text())
    assert [job["name"] for job in written["jobs"]] == list(gone.jobs)


def test_an_unknown_job_is_refused(tmp_path, store, capsys):
    path = write_grid(tmp_path, chapters=["01"], seeds=[0], sweep={"train_images": [100]})
    assert main(["job", str(path), "network/none", "--note", str(tmp_path / "note")]) == 2
    assert "has no job 'network/none'" in capsys.readouterr().err
    assert not (tmp_path / "note").exists()


def test_a_failed_job_is_named_with_the_end_of_its_log(tmp_path, store):
    plan = JobPlan(read_grid(write_grid(tmp_path, chapters=["01"], seeds=[0], sweep={"train_images": [100]})))
    network, record = list(plan.jobs.values())[:2]
    for job, printed in ((network, "trained\n"), (record, "one\ntwo\nthree\nIndexError: index 6\n\n")):
        plan.log(job).parent.mkdir(parents=True, exist_ok=True)
        plan.log(job).write_text(printed)
    plan.note(network).parent.mkdir(parents=True)
    plan.note(network).write_text("1.0 seconds\n")
    named = f"record {record.about}: {plan.log(record)}"
    assert failures(plan).splitlines() == [named, "    two", "    three", "    IndexError: index 6"]


def test_the_dry_run_counts_disk_and_time_and_makes_nothing(tmp_path, store, capsys):
    path = write_grid(tmp_path, chapters=["05"], seeds=[0], sweep={"train_images": [1000]})
    plan = JobPlan(read_grid(path))
    estimated(plan)
    jobs = list(plan.jobs.values())
    assert all(job.seconds > 0 for job in jobs if job.kind in ("network", "dataset"))
    # A thousand pictures of 3 x 32 x 32 float32 numbers.
    assert [job.megabytes for job in jobs if job.kind == "dataset"] == [pytest.approx(12.288)] * 3
    text = show(plan, 2)
    for words in ("0 of 10 are there", "with 2 at a time", "1 chapters that have no record"):
        assert words in text
    assert not list(store.root.glob("*/*/*.safetensors"))


def test_a_training_twice_as_long_is_estimated_twice_as_long(tmp_path, store):
    def training(epochs):
        sweep = {"train_images": [1000], "standard": [{"epochs": epochs}], "watch_images": [1]}
        plan = JobPlan(read_grid(write_grid(tmp_path, chapters=["01"], seeds=[0], sweep=sweep)))
        estimated(plan)
        return next(job.seconds for job in plan.jobs.values() if job.kind == "network")

    assert training(14) == pytest.approx(2 * training(7), rel=1e-6)


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "?"), (0.0, "0 s"), (0.4, "< 1 s"), (90, "2 min"), (5400, "1.5 h")]
)
def test_times_in_words(seconds, words):
    assert duration(seconds) == words


def record_of(folder: Path, seed: int, *, chapter="05-non-robust-features", config=None, value=0.5, engine="torch"):
    run = {
        "provenance": {"device": "cpu", "commit": "c", "engine": engine},
        "config": config or {"eps": 0.5},
        "seconds": {},
        "values": {"table1/D_rand": {"value": value, "n": 100, "network": "cnn4", "seed": seed}},
        "series": {},
    }
    place = folder / chapter / "planted"
    place.mkdir(parents=True)
    (place / "record.json").write_text(json.dumps({"chapter": chapter, "profile": "planted", "runs": {str(seed): run}}))
    (place / "sheet.png").write_bytes(b"%d" % seed)
    return folder


def test_records_of_seeds_are_joined_and_replace_an_older_one(tmp_path):
    old = record_of(tmp_path / "book", 7, config={"eps": 1.0})
    parts = [record_of(tmp_path / f"seed{seed}", seed, value=value) for seed, value in ((1, 0.6), (0, 0.4))]
    with results_in(old):
        join_record("05-non-robust-features", "planted", parts)
        joined = load_record("05-non-robust-features", "planted")
        assert list(joined.runs) == [0, 1]
        assert joined.summary("table1/D_rand").value == pytest.approx(0.5)
        assert joined.sheet("sheet").read_bytes() == b"0"  # of the lowest seed, in whatever order the folders come
        (row,) = json.loads((old / "index.json").read_text())
        assert row["seeds"] == 2


@pytest.mark.parametrize(
    ("seed", "more", "said"),
    [
        (0, {}, "seed 0 of 05-non-robust-features is recorded twice"),
        (1, {"config": {"eps": 1.0}}, "seed 0 with other settings than seed 1"),
        (1, {"engine": "winograd, compiled for avx2"}, "engine torch, but seed 1 was computed with winograd"),
    ],
)
def test_what_cannot_be_joined_is_named_and_nothing_is_lost(tmp_path, seed, more, said):
    kept = record_of(tmp_path / "book", 7)
    parts = [record_of(tmp_path / "one", 0), record_of(tmp_path / "two", seed, **more)]
    with results_in(kept):
        with pytest.raises(ValueError, match=said):
            join_record("05-non-robust-features", "planted", parts)
        assert list(load_record("05-non-robust-features", "planted").runs) == [7]


def test_what_is_joined_is_joined_anew(tmp_path, store):
    """Whoever takes a record away, of one seed or the joined one, would otherwise wait for it for ever."""
    short = write_grid(tmp_path, chapters=["01"], seeds=[0], sweep={"train_images": [100], "watch_images": [10]})
    plan = JobPlan(read_grid(short))
    note = plan.note(next(job for job in plan.jobs.values() if job.kind == "join"))
    note.parent.mkdir(parents=True)
    note.touch()
    plan.write(tmp_path / "plan.json", short)
    assert not note.exists()


TRIAL = """
extends = "planted"
train_images = 60
watch_images = 10
[data]
test_images = 20
held_out_from = 100
[network]
width = 8
source_width = 8
[standard]
epochs = 1
batch_size = 20
[on_rand]
epochs = 1
batch_size = 20
[on_det]
epochs = 1
batch_size = 20
"""


def test_a_trial_compares_every_variant_with_the_base_on_held_out_images(tmp_path, store, capsys):
    (tmp_path / "small.toml").write_text(TRIAL)
    variants = [{**STEPS, "about": "two steps"}, {"name": "rate", "settings": {"on_det": {"lr": 0.01}}}]
    path = write_grid(tmp_path, trial="table1", profile="small.toml", seeds=[0, 1], variant=variants)
    grid = read_grid(path)
    assert [one.name for one in grid.settings] == ["base", "steps", "rate"]
    plan = JobPlan(grid)
    kinds = [job.kind for job in plan.jobs.values()]
    # A seed: the source; two sets with two learners, twice for the steps; and one more learner, on the base's own set.
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"network": 12, "dataset": 8, "record": 6, "join": 1}
    record = plan.jobs["record/rate/table1-sweep/seed=1"]
    assert sum(plan.jobs[name].kind == "network" for name in record.needs) == 4  # the base's three, and one more
    note = tmp_path / "note"
    for name in plan.jobs:
        assert main(["job", str(path), name, "--note", str(note)]) == 0
    assert all(job.done for job in JobPlan(grid).jobs.values() if job.kind != "join")

    with results_in(grid.results):
        found = load_record("table1-sweep", "small")
    assert list(found.runs) == [0, 1]
    assert found.first["config"]["held_out_from"] == 100
    assert [row["name"] for row in found.first["tables"]["settings"]] == ["base", "steps", "rate"]
    values = found.runs[1]["values"]
    assert {key for key in values if "/rate/" in key} == {
        "table1/sweep/rate/D_det", "table1/sweep/rate/D_det/after", "table1/sweep/rate/D_det/gain"
    }  # fmt: skip
    for key, gained in ((key, value) for key, value in values.items() if key.endswith("/gain")):
        kind = key.split("/")[3]
        one, base = (values[f"table1/sweep/{name}/{kind}"]["value"] for name in (key.split("/")[2], "base"))
        assert gained["value"] == pytest.approx(one - base, abs=1e-12)
        assert gained["low"] <= gained["value"] <= gained["high"]
    # By hand: the network of the store, asked for the held-out images.
    run = Run(grid.profile, overrides={"construct_steps": 2})
    learner = run.trained_on("D_rand", source_seed=1, seed=1)
    assert accuracy(learner.model, run.test_set).value == values["table1/sweep/steps/D_rand"]["value"]
    assert "table1/sweep/steps/D_rand:" in capsys.readouterr().out

    # A variant that is not recorded for every seed yet is left out of the record of all.
    grid.record_of("rate", "table1-sweep", 1).unlink()
    assert main(["job", str(path), "join/trial", "--note", str(note)]) == 0
    with results_in(grid.results):
        assert not load_record("table1-sweep", "small").matching("table1/sweep/rate/**")


def test_a_trial_refuses_variants_that_see_other_held_out_images(tmp_path, store):
    (tmp_path / "small.toml").write_text(TRIAL)
    one, other = (Run(str(tmp_path / "small.toml"), overrides={"held_out_from": begin}) for begin in (100, 101))
    with pytest.raises(ValueError, match="moved must see the held-out images of base"):
        measure("table1", other, one, name="moved", seed=0)


@pytest.mark.parametrize("name", ["paper", "fashion"])
def test_the_grids_of_the_book_name_chapters_that_save_their_numbers(name):
    """A chapter that saves nothing would end its job without a record, after hours."""
    grid = read_grid(CHECKOUT / "workflow" / f"{name}.toml")
    saving = {path.stem for path in chapters() if any("page.save()" in source for source, _ in code_cells(path))}
    assert set(grid.chapters) <= saving
    if name == "paper":
        assert saving - set(grid.chapters) == {"13-fast-attacks"}  # `make bench` makes its record


def test_the_sweep_of_the_book_is_one_factor_at_a_time():
    grid = read_grid(CHECKOUT / "workflow" / "table1-sweep.toml")
    base = get_profile(grid.profile)
    assert base.data.held_out_from + base.data.test_images == 50_000  # the last of CIFAR-10's training images
    for setting in grid.settings[1:]:
        assert get_profile(grid.profile, setting.overrides) != base, setting.name
        # One setting, or the same one of both learners.
        (changed, *others) = setting.overrides.values()
        assert all(other == changed for other in others), setting.name


def test_a_sweep_ends_in_a_table_and_a_figure(tmp_path, store):
    sweep = {"eps": [0.25, 0.5], "train_images": [1000]}
    grid = read_grid(write_grid(tmp_path, chapters=["05"], seeds=[0], sweep=sweep))
    grid = dataclasses.replace(grid, results=tmp_path / "results")
    for place, setting in enumerate(grid.settings):
        part = record_of(tmp_path / f"part{place}", 0, value=0.3 + place / 10)
        with results_in(grid.results_of(setting)):
            join_record("05-non-robust-features", "planted", [part])
    write_table(grid)
    rows = list(csv.DictReader((tmp_path / "results" / "table.csv").read_text().splitlines()))
    assert [(row["eps"], row["id"], float(row["value"])) for row in rows] == [
        ("0.25", "table1/D_rand", 0.3),
        ("0.5", "table1/D_rand", 0.4),
    ]
    assert "table1/D_rand" in (tmp_path / "results" / "sweep.svg").read_text()  # the title of its panel


@pytest.mark.pages
@pytest.mark.usefixtures("store_of_the_book")
def test_needs_are_what_the_chapters_left_in_the_store():
    """After `make book` on an empty store it holds what the chapters are said to need, and nothing else.

    A chapter that asks for one more network, or for none of those listed, breaks this.
    """
    run = Run("planted", device="cpu")
    said = {job_name(recipe, run) for path in chapters() for recipe in needed(path.stem, run, seed=0, source_seed=0)}
    kinds = {"models": "network", "datasets": "dataset"}
    there = {
        f"{kinds[path.parent.parent.name]}/{path.parent.name}" for path in run.store.root.glob("*/*/*.safetensors")
    }
    assert there == said
