"""Records: one run per seed, intervals against a hand computation, the index, picture sheets, provenance."""

from __future__ import annotations

import datetime
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advfeat.estimates import Measured, summarise
from advfeat.experiments import records
from advfeat.experiments.provenance import provenance
from advfeat.experiments.record_writing import index_rows, save_record, write_index
from advfeat.experiments.records import Record, load_record, results_root

COLUMNS = ["id", "value", "low", "high", "n", "seeds", "network", "attack", "profile", "device", "commit"]


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    """An empty folder of results."""
    monkeypatch.setenv("ADVFEAT_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def rate(value: float, n: int = 1000, attack: str = "none", seed: int = 0) -> Measured:
    return Measured(value=value, n=n, network="resnet9-64", attack=attack, seed=seed)


def save(seed: int = 0, chapter: str = "05-chapter", profile: str = "planted", commit: str = "c0ffee", **values: float):
    named = {f"table1/{key}": rate(value, seed=seed) for key, value in values.items()}
    return save_record(
        chapter,
        profile,
        seed=seed,
        values=named,
        provenance={"commit": commit, "device": "a processor", "dirty": False},
        config={"eps": 0.5},
        seconds={"train": 12.5},
        series={"loss": [1.0, 0.5]},
    )


def test_a_record_comes_back_as_it_was_saved(results):
    path = save(seed=3, standard=0.75)
    assert path == results / "05-chapter" / "planted" / "record.json"
    record = load_record("05-chapter", "planted")
    assert (record.chapter, record.profile, record.folder) == ("05-chapter", "planted", path.parent)
    assert record.runs == {
        3: {
            "provenance": {"commit": "c0ffee", "device": "a processor", "dirty": False},
            "config": {"eps": 0.5},
            "seconds": {"train": 12.5},
            "values": {
                "table1/standard": {"value": 0.75, "n": 1000, "network": "resnet9-64", "attack": "none", "seed": 3}
            },
            "series": {"loss": [1.0, 0.5]},
        }
    }
    assert record.ids() == ["table1/standard"]


def test_a_network_that_several_runs_share_counts_once():
    for seed in (0, 1, 2):
        # One network; the images for its measurement were drawn anew by every run.
        values = {"table1/standard": rate(0.9 - 0.3 * (seed == 2), seed=0), "table1/D_rand": rate(0.6, seed=seed)}
        made = {"commit": "c0ffee", "device": "a processor"}
        save_record("05-chapter", "planted", seed=seed, values=values, provenance=made, config={}, seconds={})
    record = load_record("05-chapter", "planted")
    assert record.summary("table1/standard").seeds == 1
    assert record.summary("table1/standard").value == pytest.approx(0.8)
    assert record.summary("table1/D_rand").seeds == 3


def test_runs_with_other_settings_are_not_averaged():
    path = save(seed=0, standard=0.9)
    before = path.read_bytes()
    run = {"values": {"table1/standard": rate(0.5, seed=1)}, "seconds": {}}
    run["provenance"] = {"commit": "c0ffee", "device": "a processor"}
    with pytest.raises(ValueError, match="holds seed 0 with other settings than seed 1"):
        save_record("05-chapter", "planted", seed=1, config={"eps": 0.25}, **run)
    assert path.read_bytes() == before
    # The only run may be replaced, by one with whatever settings.
    save_record("05-chapter", "planted", seed=0, config={"eps": 0.25}, **run)
    assert load_record("05-chapter", "planted").runs[0]["config"] == {"eps": 0.25}


def test_another_seed_adds_and_the_same_seed_replaces():
    save(seed=10, standard=0.5)
    save(seed=2, standard=0.6)
    save(seed=10, standard=0.7)
    runs = load_record("05-chapter", "planted").runs
    assert list(runs) == [2, 10]  # by number, not by text
    assert [run["values"]["table1/standard"]["value"] for run in runs.values()] == [0.6, 0.7]


@pytest.mark.parametrize(
    ("data", "name", "title"),
    [
        ("fashion", "Fashion-MNIST", "Fashion-MNIST (mine)"),
        ("cifar10", "CIFAR-10", "CIFAR-10 (mine)"),
        ("folder", "leaves", "leaves (mine)"),
        ("folder", None, "mine"),
        ("planted", "mine", "mine"),
        (None, "planted", "mine"),  # a benchmark: its images are not what it is about
    ],
)
def test_a_record_is_called_by_its_data_set_and_its_profile(data, name, title):
    run = {"config": {"data": data} if data else {}, "provenance": {"data": name} if name else {}}
    assert Record("05-chapter", "mine", {0: run}, Path("mine")).title == title


def wilson(rate, n):
    """Both ends of Wilson's interval: the roots p of (rate - p)^2 = z^2 p (1 - p) / n."""
    z2 = 1.959963984540054**2
    low, high = sorted(np.roots([1 + z2 / n, -(2 * rate + z2 / n), rate**2]).real)
    return low, high


@pytest.mark.parametrize("value", [0.8, 0.0, 1.0])
def test_the_interval_of_one_seed_is_that_of_the_images(value):
    save(standard=value)
    summary = load_record("05-chapter", "planted").summary("table1/standard")
    low, high = wilson(value, 1000)
    assert (summary.value, summary.n, summary.seeds) == (value, 1000, 1)
    assert summary.low == pytest.approx(low, abs=1e-9)
    assert summary.high == pytest.approx(high, abs=1e-9)
    assert summary.high - summary.low > 0.003  # an observed 0 or 1 in 1000 is no certainty
    assert (summary.network, summary.attack) == ("resnet9-64", "none")


@pytest.mark.parametrize(
    ("values", "student"),
    [((0.50, 0.52), 12.706204736432095), ((0.4, 0.5, 0.45), 4.302652729911275)],
    ids=["two seeds", "three seeds"],
)
def test_the_interval_of_several_seeds_adds_their_spread(values, student):
    for seed, value in enumerate(values):
        save(seed=seed, D_rand=value)
    summary = load_record("05-chapter", "planted").summary("table1/D_rand")
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    spread = student * math.sqrt(variance / len(values))
    low, high = wilson(mean, 1000)
    assert summary.value == pytest.approx(mean, abs=1e-12)
    assert summary.low == pytest.approx(max(0, mean - math.hypot(spread, mean - low)), abs=1e-9)
    assert summary.high == pytest.approx(min(1, mean + math.hypot(spread, high - mean)), abs=1e-9)
    assert summary.seeds == len(values)


def test_one_seed_of_a_record_is_summarised_alone():
    for seed, value in enumerate((0.50, 0.52)):
        save(seed=seed, D_rand=value)
    record = load_record("05-chapter", "planted")
    one = record.only(1).summary("table1/D_rand")
    assert (one.value, one.seeds) == (0.52, 1)
    assert (one.low, one.high) == pytest.approx(wilson(0.52, 1000), abs=1e-9)
    assert record.only(0).first == record.first
    with pytest.raises(KeyError):
        record.only(2)


def test_intervals_stay_in_the_range_of_a_rate():
    save(seed=0, a=0.01, b=0.99)
    save(seed=1, a=0.05, b=0.95)
    record = load_record("05-chapter", "planted")
    assert record.summary("table1/a").low == 0
    assert record.summary("table1/b").high == 1


def test_a_summary_counts_the_seeds_that_have_the_value_and_the_fewest_images():
    save(seed=0, standard=0.5)
    save_record(
        "05-chapter", "planted", seed=1,
        values={"table1/standard": rate(0.5, n=200, seed=1), "only/here": rate(0.1, seed=1)},
        provenance={"commit": "c0ffee", "device": "a processor"}, config={"eps": 0.5}, seconds={},
    )  # fmt: skip
    record = load_record("05-chapter", "planted")
    assert (record.summary("table1/standard").n, record.summary("table1/standard").seeds) == (200, 2)
    assert record.summary("only/here").seeds == 1
    assert record.ids() == ["only/here", "table1/standard"]
    with pytest.raises(KeyError, match="only only/here, table1/standard"):
        record.summary("table1/robust")


def test_the_index_holds_one_row_per_number_of_every_record(results):
    save(seed=0, standard=0.9, D_rand=0.5)
    save(seed=1, standard=0.8, D_rand=0.6, commit="facade")
    save(chapter="01-chapter", profile="cifar10-cpu", robust=0.4)
    save(chapter="05-chapter", profile="cifar10-cpu", standard=0.7)
    rows = json.loads((results / "index.json").read_text())
    assert rows == index_rows()
    assert [(row["id"], row["profile"]) for row in rows] == [
        ("table1/D_rand", "planted"),
        ("table1/robust", "cifar10-cpu"),
        ("table1/standard", "cifar10-cpu"),
        ("table1/standard", "planted"),
    ]
    for row in rows:
        assert list(row) == COLUMNS
        chapter = "01-chapter" if "robust" in row["id"] else "05-chapter"
        summary = load_record(chapter, row["profile"]).summary(row["id"])
        assert {**{key: row[key] for key in COLUMNS[1:8]}, "rate": True, "within": None} == vars(summary)
        assert row["device"] == "a processor"
    assert rows[3]["seeds"] == 2
    assert rows[3]["value"] == pytest.approx(0.85, abs=1e-12)
    assert rows[3]["commit"] == "c0ffee"  # of the first run, as the settings and the pictures are


@pytest.mark.parametrize("value", [-0.01, 1.01, 89.0, math.nan, math.inf])
def test_what_is_not_a_rate_is_refused_and_nothing_is_written(results, value):
    with pytest.raises(ValueError, match="table1/standard must be a rate"):
        save(standard=value)
    assert not (results / "index.json").exists()


def test_a_rate_over_no_images_is_refused():
    with pytest.raises(ValueError, match="n >= 1"):
        save_record("05-chapter", "planted", seed=0, values={"a": rate(0.5, n=0)}, provenance={}, config={}, seconds={})


def number(value: float, low: float, high: float, seed: int = 0) -> Measured:
    return Measured(value=value, n=200, network="resnet9-64", seed=seed, low=low, high=high)


def save_number(item: Measured, seed: int = 0) -> None:
    made = {"commit": "c0ffee", "device": "a processor"}
    save_record("05-chapter", "planted", seed=seed, values={"rho": item}, provenance=made, config={}, seconds={})


def test_a_number_that_is_no_rate_keeps_its_own_interval(results):
    save_number(number(-2.25, -2.5, -2.125))
    summary = load_record("05-chapter", "planted").summary("rho")
    assert (summary.value, summary.low, summary.high, summary.n) == (-2.25, -2.5, -2.125, 200)  # no Wilson, no clamp
    assert not summary.rate
    assert str(summary) == "-2.250 [-2.500, -2.125]"
    assert f"{summary:.1f}" == "-2.2 [-2.5, -2.1]"
    assert json.loads((results / "index.json").read_text())[0]["low"] == -2.5


def test_the_interval_of_numbers_adds_the_spread_of_the_seeds():
    save_number(number(3.0, 2.5, 4.0), seed=0)
    save_number(number(5.0, 4.5, 5.5, seed=1), seed=1)
    summary = load_record("05-chapter", "planted").summary("rho")
    # Images: half-widths 0.5 and 0.5 below, 1.0 and 0.5 above, averaged. Seeds: t(0.975, 1) · √2 / √2.
    spread = 12.706204736432095
    assert summary.value == 4
    assert summary.low == pytest.approx(4 - math.hypot(spread, 0.5), abs=1e-9)
    assert summary.high == pytest.approx(4 + math.hypot(spread, 0.75), abs=1e-9)


def test_an_interval_ends_where_the_quantity_does():
    bounded = {"network": "resnet9-64", "n": 5, "within": (-1.0, 1.0)}
    save_number(Measured(0.75, low=0.5, high=0.875, **bounded), seed=0)
    save_number(Measured(0.25, low=0.0, high=0.5, seed=1, **bounded), seed=1)
    summary = load_record("05-chapter", "planted").summary("rho")
    # On Fisher's scale, z = artanh r: the mean half-widths of the images, and of the seeds t(0.975, 1) · |z₀ − z₁| / 2.
    z = [[math.atanh(value) for value in run] for run in ((0.5, 0.75, 0.875), (0.0, 0.25, 0.5))]
    spread = 12.706204736432095 * (z[0][1] - z[1][1]) / 2
    below, above = (abs(sum(run[end] - run[1] for run in z)) / 2 for end in (0, 2))
    assert summary.value == 0.5
    assert summary.low == pytest.approx(math.tanh(math.atanh(0.5) - math.hypot(below, spread)), abs=1e-9)
    assert summary.high == pytest.approx(math.tanh(math.atanh(0.5) + math.hypot(above, spread)), abs=1e-9)
    assert -1 < summary.low < summary.high < 1  # a sum on the plain scale would be cut off at both ends


def test_the_interval_of_one_correlation_is_its_own_and_of_a_perfect_one_is_a_point():
    bounded = {"network": "resnet9-64", "n": 5, "within": (-1.0, 1.0)}
    save_number(Measured(0.75, low=0.5, high=0.875, **bounded), seed=0)
    summary = load_record("05-chapter", "planted").summary("rho")
    assert (summary.low, summary.high) == (0.5, 0.875)
    perfect = summarise([Measured(1.0, low=1.0, high=1.0, seed=seed, **bounded) for seed in (0, 1)])
    assert (perfect.value, perfect.low, perfect.high) == (1, pytest.approx(1, abs=1e-12), pytest.approx(1, abs=1e-12))


@pytest.mark.parametrize("bounds", [(1.0, 2.0), (-2.0, -1.0), (None, 1.0), (-1.0, None), (-math.inf, 1.0)])
def test_a_number_outside_its_interval_or_with_half_of_one_is_refused(bounds):
    with pytest.raises(ValueError, match="lie in"):
        save_number(number(0.5 if None in bounds else 0.0, *bounds))


def test_sheets_are_pictures_with_the_pixels_of_the_grid():
    grid = torch.rand((2, 4, 3, 5, 6), generator=torch.Generator().manual_seed(0))
    save_record(
        "05-chapter", "planted", seed=0, values={}, config={}, seconds={}, sheets={"panel": grid},
        provenance={"commit": "c0ffee", "device": "a processor"},
    )  # fmt: skip
    record = load_record("05-chapter", "planted")
    with Image.open(record.sheet("panel")) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 5, 4 * 6, 3)
    for row in range(2):
        for column in range(4):
            cell = pixels[5 * row : 5 * row + 5, 6 * column : 6 * column + 6].astype(float) / 255
            expected = grid[row, column].permute(1, 2, 0).double().numpy()
            # The nearest of 256 levels, so never further than half a level (and a float32 product).
            assert np.abs(cell - expected).max() <= 0.5 / 255 + 1e-6
    with pytest.raises(FileNotFoundError, match="no sheet 'other'"):
        record.sheet("other")


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 0, 1)], ids=str)
def test_of_several_seeds_the_sheets_are_those_of_the_lowest(order):
    for seed in order:
        save_record(
            "05-chapter", "planted", seed=seed, values={}, config={}, seconds={},
            provenance={"commit": f"seed {seed}", "device": "a processor"},
            sheets={"panel": torch.full((1, 1, 3, 2, 2), float(seed))},
        )  # fmt: skip
    with Image.open(load_record("05-chapter", "planted").sheet("panel")) as picture:
        assert np.asarray(picture).max() == 0
    assert load_record("05-chapter", "planted").first["provenance"]["commit"] == "seed 0"


def test_a_missing_record_says_how_to_make_it():
    with pytest.raises(FileNotFoundError, match="make record CHAPTER=05 PROFILE=cifar10-cpu"):
        load_record("05-chapter", "cifar10-cpu")


def test_provenance_says_where_and_with_what():
    said = provenance("cpu")
    assert set(said) == {"commit", "dirty", "versions", "device", "engine", "threads", "platform", "time"}
    assert torch.__version__.startswith(said["versions"]["torch"])  # a wheel's own name may add a build, +cpu
    assert {"python", "advfeat", "torchvision", "numpy", "scipy"} <= set(said["versions"])
    assert isinstance(said["dirty"], bool)
    assert said["threads"] == torch.get_num_threads()
    assert said["device"]
    moment = datetime.datetime.fromisoformat(said["time"])
    assert abs((datetime.datetime.now(datetime.UTC) - moment).total_seconds()) < 60
    json.dumps(said)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_provenance_names_the_commit_and_tells_a_dirty_tree(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *identity, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "first")
    monkeypatch.setattr("advfeat.experiments.provenance.CHECKOUT", tmp_path)
    assert provenance()["commit"] == git("rev-parse", "HEAD")
    assert provenance()["dirty"] is False
    (tmp_path / "file").write_text("2")
    assert provenance()["dirty"] is True
    # The record of the first seed does not make the second one's run dirty.
    index = tmp_path / "book" / "results" / "index.json"
    index.parent.mkdir(parents=True)
    index.write_text("[]")
    git("add", ".")
    git("commit", "-qm", "second")
    index.write_text("[1]")
    assert provenance()["dirty"] is False
    (tmp_path / "file").write_text("3")
    assert provenance()["dirty"] is True


def test_without_git_the_commit_is_unknown(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr("advfeat.experiments.provenance.CHECKOUT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert (provenance()["commit"], provenance()["dirty"]) == ("unknown", True)
    monkeypatch.setenv("PATH", "")
    assert (provenance()["commit"], provenance()["dirty"]) == ("unknown", True)


def test_the_checkout_of_another_project_around_this_one_is_not_asked(tmp_path, monkeypatch):
    """An installed package lies in an environment, and that perhaps in a checkout, whose commit says nothing of it."""
    monkeypatch.setattr("advfeat.experiments.provenance.CHECKOUT", records.BOOK)  # a folder inside a checkout
    assert (provenance()["commit"], provenance()["dirty"]) == ("unknown", True)


def test_a_tree_that_git_cannot_look_at_is_not_called_clean(monkeypatch):
    answers = {"rev-parse": "c0ffee", "status": None}
    monkeypatch.setattr("advfeat.experiments.provenance._git", lambda word, *_: answers[word])
    assert (provenance()["commit"], provenance()["dirty"]) == ("c0ffee", True)


def test_the_folder_of_results_can_be_moved(results, monkeypatch):
    assert results_root() == results
    monkeypatch.setenv("ADVFEAT_RESULTS", "~/results")
    assert results_root() == Path.home() / "results"
    monkeypatch.delenv("ADVFEAT_RESULTS")
    assert results_root().parts[-2:] == ("book", "results")


DAMAGE = {
    "empty": "",
    "half": lambda text: text[: len(text) // 2],
    "no JSON": lambda text: text.replace(":", "=", 1),
    "no UTF-8": lambda text: text.encode() + b"\xff",
    "a list": "[]",
    "null": "null",
    "without runs": "{}",
    "no run": '{"runs": {}}',
    "runs in a list": '{"runs": [1]}',
    "a run that is no object": '{"runs": {"0": 1}}',
    "a seed in words": lambda text: text.replace('"0": {', '"zero": {', 1),
    "a seed twice": lambda text: text.replace('"0": {', '"00": {', 1),
    "newer": lambda text: text.replace('"n": 1000', '"n": 1000,\n"spread": 0.1', 1),
    "above 1 by hand": lambda text: text.replace("0.75", "75", 1),
    "text by hand": lambda text: text.replace("0.75", '"0.75"', 1),
    "a comma by hand": lambda text: text.replace("0.75", "0,75", 1),
    "not a number": lambda text: text.replace("0.75", "NaN", 1),
    "no images": lambda text: text.replace('"n": 1000', '"n": 0', 1),
    "value renamed": lambda text: text.replace('"value"', '"Value"', 1),
    "values gone": lambda text: text.replace('"values"', '"results"', 1),
    "config gone": lambda text: text.replace('"config": {', '"config": 1, "settings": {', 1),
    "commit gone": lambda text: text.replace('"commit"', '"comit"', 1),
    "interval by hand": lambda text: text.replace('"value": 0.75', '"value": 0.75, "low": 0.8, "high": 0.9', 1),
    "bounds by hand": lambda text: text.replace('"value": 0.75', '"value": 2, "low": 1, "high": 3, "within": ["a", 3]'),
    "too deep": "[" * 100_000,
}  # fmt: skip


def damage(path: Path, kind: str) -> bytes:
    change = DAMAGE[kind]
    changed = change if isinstance(change, str) else change(path.read_text())
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    return path.read_bytes()


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_record_that_cannot_be_read_is_named_and_ends_no_other_chapters_save(results, kind):
    bad = save(chapter="03-chapter", standard=0.75)
    save(seed=0, standard=0.9)
    before = damage(bad, kind)
    with pytest.raises(ValueError, match=r"is no record that this version can read .* delete it") as caught:
        load_record("03-chapter", "planted")
    assert str(bad) in str(caught.value)
    # Hours of another chapter are kept, the index goes on without the bad file, and a warning names that.
    with pytest.warns(UserWarning, match=r"03-chapter.*record\.json is no record .* It is left out"):
        path = save(seed=1, standard=0.8)
    assert sorted(load_record("05-chapter", "planted").runs) == [0, 1]
    assert path.exists()
    assert [row["seeds"] for row in json.loads((results / "index.json").read_text())] == [2]
    assert bad.read_bytes() == before


def test_a_mended_record_is_in_the_index_again(results):
    bad = save(chapter="03-chapter", standard=0.75)
    whole = bad.read_bytes()
    damage(bad, "half")
    with pytest.warns(UserWarning, match="left out"):
        save(robust=0.5)
    bad.write_bytes(whole)
    write_index()
    assert [row["id"] for row in json.loads((results / "index.json").read_text())] == [
        "table1/robust",
        "table1/standard",
    ]


@pytest.mark.parametrize("kind", ["folder", "unreadable"])
def test_a_record_that_cannot_be_opened_is_named_as_well(results, monkeypatch, kind):
    bad = save(chapter="03-chapter", standard=0.75)
    if kind == "folder":
        bad.unlink()
        bad.mkdir()
    else:
        real = Path.read_bytes

        def read(self: Path) -> bytes:
            if self == bad:
                raise PermissionError(13, "Permission denied", str(self))
            return real(self)

        monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.warns(UserWarning, match=r"03-chapter.*record\.json is no record .* It is left out"):
        save(standard=0.9)
    assert [row["value"] for row in json.loads((results / "index.json").read_text())] == [0.9]


def test_a_run_that_finds_its_own_record_damaged_is_kept_beside_it(results):
    path = save(seed=0, standard=0.75)
    before = damage(path, "half")
    with pytest.raises(ValueError, match=r"record\.json is no .* this run is kept in .*record\.seed3\.json") as caught:
        save(seed=3, standard=0.5)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    kept = json.loads((path.parent / "record.seed3.json").read_text())
    assert kept["runs"]["3"]["values"]["table1/standard"]["value"] == 0.5
    (path.parent / "record.seed3.json").replace(path)  # the cure: it is a whole record
    assert list(load_record("05-chapter", "planted").runs) == [3]


def test_a_full_disk_leaves_the_old_record_and_names_it(results, monkeypatch):
    path = save(seed=0, standard=0.75)
    before = path.read_bytes()

    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(OSError, match=r"No space left on device; make room there.*record\.json"):
        save(seed=1, standard=0.5)
    with pytest.raises(OSError, match=r"No space left on device; make room there.*panel\.png"):
        save_record(
            "05-chapter", "planted", seed=0, values={}, config={"eps": 0.5}, seconds={},
            provenance={"commit": "c0ffee", "device": "a processor"}, sheets={"panel": torch.zeros(1, 1, 3, 2, 2)},
        )  # fmt: skip
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.iterdir()] == ["record.json"]


def test_what_a_killed_save_left_is_swept(results):
    path = save(seed=0, standard=0.75)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for place in (path.parent / f".record.json.{dead.pid}.part", results / f".index.json.{dead.pid}.part"):
        place.write_text("{")
    save(seed=1, standard=0.5)
    assert not list(results.rglob("*.part"))


def test_another_engine_is_another_setting(results):
    """Records from before there were several engines name none: they were made with PyTorch's."""

    def run(seed, **more):
        return save_record(
            "05-chapter", "planted", seed=seed, values={"a": rate(0.5)}, config={}, seconds={},
            provenance={"commit": "c0ffee", "device": "a processor", **more},
        )  # fmt: skip

    run(0)
    run(1, engine="torch")
    with pytest.raises(
        ValueError, match=r"seed [01] computed with the engine torch, but seed 2 was computed with wino"
    ):
        run(2, engine="winograd, compiled for avx2")
    assert list(load_record("05-chapter", "planted").runs) == [0, 1]
    with pytest.raises(ValueError, match="computed with the engine torch"):
        run(0, engine="winograd, compiled for avx2")


def test_the_same_engine_with_other_instructions_is_the_same_setting(results):
    for seed, words in enumerate(("avx2", "avx512")):
        save_record(
            "05-chapter", "planted", seed=seed, values={"a": rate(0.5)}, config={}, seconds={},
            provenance={"commit": "c0ffee", "device": "a processor", "engine": f"winograd, compiled for {words}"},
        )  # fmt: skip
    assert list(load_record("05-chapter", "planted").runs) == [0, 1]


def test_records_in_any_script_are_written_and_read(results):
    save_record(
        "05-chapter", "planted", seed=0, values={"δ": rate(0.5)}, config={"name": "naïve ≤ ½"}, seconds={},
        provenance={"commit": "c0ffee", "device": "a processor"},
    )  # fmt: skip
    assert load_record("05-chapter", "planted").first["config"] == {"name": "naïve ≤ ½"}
    assert "naïve ≤ ½".encode() in (results / "05-chapter" / "planted" / "record.json").read_bytes()


def save_with(results, *, seed: int = 0, **parts: object) -> Path:
    given = {"values": {"a": rate(0.5)}, "provenance": {"device": "cpu", "commit": "c"}, "config": {}, "seconds": {}}
    return save_record("05-chapter", "planted", seed=seed, **(given | parts))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, float(np.float64("nan"))])
def test_a_number_that_json_does_not_know_is_refused_with_its_place(results, value):
    path = save_with(results)
    before = path.read_text()
    for parts, place in (
        ({"series": {"curve": [0.1, value]}}, r"seed 1/series/curve\[1\]"),
        ({"tables": {"rows": [{"x": 1}, {"x": value}]}}, r"seed 1/tables/rows\[1\]/x"),
        ({"config": {"train": {"lr": value}}}, "seed 1/config/train/lr"),
        ({"seconds": {"training": value}}, "seed 1/seconds/training"),
        ({"values": {"a": Measured(0.5, 10, "n", low=0.4, high=0.6, within=(0.0, value))}}, "seed 1/values/a/within"),
    ):
        with pytest.raises(ValueError, match=f"{place}.* must be a finite number to be recorded, got {value}"):
            save_with(results, seed=1, **parts)
    with pytest.raises(TypeError, match=r"seed 1/config/a must be a JSON type .*, got Tensor"):
        save_with(results, seed=1, config={"a": torch.ones(1)})
    assert path.read_text() == before
    json.loads(before, parse_constant=pytest.fail)


def test_what_another_seed_left_is_named_if_it_is_no_json(results):
    path = save_with(results, series={"curve": [0.125]})
    path.write_text(path.read_text().replace("0.125", "NaN"))
    with pytest.raises(ValueError, match=r"record\.json is no record .* this run is kept in .*record\.seed1\.json"):
        save_with(results, seed=1)


def test_equal_settings_are_equal_whatever_holds_them(results):
    """A tuple comes back from JSON as a list, and a number as a key comes back as a word."""
    one = {"radius": (10.0, 12.5), "scales": {"a": {"widths": (4, (8, 16))}}, 7: "seven"}
    two = {"radius": [10.0, 12.5], "scales": {"a": {"widths": [4, [8, 16]]}}, "7": "seven"}
    save_with(results, config=one)
    save_with(results, seed=1, config=one)
    save_with(results, seed=2, config=two)
    save_with(results, config=two)
    assert sorted(load_record("05-chapter", "planted").runs) == [0, 1, 2]
    with pytest.raises(ValueError, match="with other settings than seed 3"):
        save_with(results, seed=3, config={**two, "radius": (10.0, 13.0)})


def test_ids_that_fit_a_pattern_are_found_by_the_words_for_its_stars():
    # A star that also took slashes, or a dot that took any character, would mix ids of different kinds.
    about = {"provenance": {"commit": "c0ffee", "device": "a processor"}, "config": {}, "seconds": {}}
    ids = ("at/eps0.5", "at/eps0x5", "fig3/vgg16/clean", "fig3/vgg16/clean/again", "fig3/clean", "fig3/steps10/clean")
    save_record("05-chapter", "planted", seed=0, values={key: rate(0.5) for key in ids}, **about)
    record = load_record("05-chapter", "planted")
    assert list(record.matching("fig3/*/clean")) == [("steps10",), ("vgg16",)]
    assert list(record.matching("fig3/steps*/*")) == [("10", "clean")]
    assert list(record.matching("fig3/*/**")) == [("steps10", "clean"), ("vgg16", "clean"), ("vgg16", "clean/again")]
    assert record.matching("at/eps0.5") == {(): record.summary("at/eps0.5")}
    assert record.matching("fig4/*") == {}
