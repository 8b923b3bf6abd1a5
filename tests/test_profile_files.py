"""A profile in a reader's own file: accepted as a name is, recorded under its own, and each mistake is answered."""

from __future__ import annotations

import json

import nbformat
import pytest

from advfeat.experiments.profiles import PROFILES, get_profile, profile_name
from advfeat.experiments.records import load_record
from advfeat.experiments.run import Run
from advfeat.pages import chapter_files, runner
from advfeat.pages.environment import inputs_of
from advfeat.pages.notebook import check_record
from advfeat.threats import L2

TINY = """
extends = "planted"
description = "a few images"
train_images = 40
watch_images = 10

[data]
test_images = 20

[network]
name = "resnet9"
width = 4

[standard]
epochs = 1
batch_size = 20
"""


@pytest.fixture
def write(tmp_path):
    """Writes a profile's file and gives its path."""

    def written(text: str, name: str = "mine.toml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return written


def test_a_file_changes_what_it_names_and_nothing_else(write):
    profile = get_profile(write(TINY))
    expected = get_profile(
        "planted",
        {
            "train_images": 40, "test_images": 20, "watch_images": 10, "network": "resnet9", "width": 4,
            "standard": {"epochs": 1, "batch_size": 20},
        },
    )  # fmt: skip
    assert profile.recorded() == {**expected.recorded(), "name": "mine", "description": "a few images"}
    assert profile_name(write(TINY)) == "mine"
    assert profile_name("planted") == "planted"


def test_a_file_may_extend_another_and_be_overridden(write):
    write(TINY)
    path = write('extends = "mine.toml"\nmatching.steps = 7\n[robust.threat]\neps = 1', "longer.toml")
    profile = get_profile(path, {"match_steps": 9})
    assert (profile.name, profile.description) == ("longer", "mine, changed by longer.toml")
    assert (profile.matching.steps, profile.training.robust.threat, profile.network.width) == (9, L2(1.0), 4)
    assert get_profile(path).matching.steps == 7


def test_a_file_may_name_another_data_set_and_the_table_stays(write):
    before = dict(PROFILES)
    assert get_profile(write('extends = "planted"\ndata = "folder"')).data.name == "folder"
    assert before == PROFILES


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            'extends = "planted"\nepsilon = 0.5',
            ValueError,
            "unknown setting 'epsilon' in profile; there are .*eps, eval",
        ),
        (
            'extends = "planted"\n[matching]\nstep = 3',
            ValueError,
            "unknown setting 'step' in matching; there are .*steps",
        ),
        ('extends = "planted"\n[standard]\nepoch = 3', ValueError, "unknown setting 'epoch' in standard; .*epochs"),
        ('extends = "planted"\nname = "me"', ValueError, "unknown setting 'name' in profile; there are"),
        (
            'extends = "planted"\n[netwrok]\nwidth = 8',
            ValueError,
            "unknown setting 'netwrok' in profile.*, and the tables data,",
        ),
        (
            'extends = "planted"\n[network]\nwidth = "3"',
            TypeError,
            "'width' in network must be a whole number, 1 or more",
        ),
        ('extends = "planted"\n[standard]\nthreat = {eps = 0.1}', TypeError, "'threat' in standard must be left out"),
        ('extends = "planted"\n[robust]\nthreat = {eps = -1}', ValueError, "robust.threat: eps must be 0 or more"),
        ('extends = "planted"\n[robust]\nthreat = {eps = "x"}', TypeError, "'eps' in robust.threat must be like"),
        (
            'extends = "planted"\neps = "half"',
            TypeError,
            "setting 'eps' in profile must be a positive number, got 'half'",
        ),
        (
            'extends = "planted"\nmatching = 3',
            TypeError,
            "'matching' in profile must be a table of .*, steps, .* got 3",
        ),
        ('extends = "planted"\ndescription = 3', TypeError, "description must be a text, got 3"),
        ('extends = "planted"\neval_images = 0', ValueError, "eval_images=0 must be a whole number, 1 or more"),
        ('extends = "planted"\neps = nan', ValueError, "eps=nan must be a positive number"),
        ('extends = "planted"\ndata = "mnist"', ValueError, "data='mnist' must be one of planted, cifar10, folder"),
        ('extends = "planted"\n[standard]\nlr = -1', ValueError, "standard: lr=-1.0 is out of range; it must be a pos"),
        ('extends = "planted"\neps = 0.25\n[targeting]\neps = 0.25', ValueError, "'eps' in targeting is given twice"),
        ("eps = 0.25", ValueError, "extends must name the profile .* planted, .*cifar10-gpu or a file, got nothing"),
        ("extends = 3", ValueError, "extends must name the profile .* got 3"),
        ('extends = "cifar"', ValueError, "unknown profile 'cifar'; there are planted, .* a file that ends in .toml"),
        ('extends = "mine.toml"', ValueError, "must end at a profile of the table .*, but mine.toml extends mine.toml"),
        ("extends = planted", ValueError, r"it must be TOML, and is not: .*line 1"),
        ("eps: 0.25", ValueError, r"it must be TOML, and is not: .*line 1"),
    ],
)
def test_a_mistake_is_answered_with_the_field_the_value_and_what_is_accepted(write, text, error, message):
    with pytest.raises(error, match=f"(?s)^profile file .*mine.toml: .*{message}"):
        get_profile(write(text))


def test_a_circle_a_missing_file_and_a_name_that_is_taken_are_answered(unchecked_types, write, tmp_path):
    first = write('extends = "b.toml"', "a.toml")
    write('extends = "a.toml"', "b.toml")
    with pytest.raises(ValueError, match=r"but a\.toml extends b\.toml extends a\.toml"):
        get_profile(first)
    with pytest.raises(ValueError, match=r"but mine\.toml extends mine\.toml"):
        get_profile(write(f'extends = "../{tmp_path.name}/mine.toml"'))
    with pytest.raises(FileNotFoundError, match=r"profile file .*nowhere\.toml is not there; there are also .*planted"):
        get_profile(str(tmp_path / "nowhere.toml"))
    with pytest.raises(FileNotFoundError, match=r"profile file .*nowhere\.toml is not there"):
        get_profile(write('extends = "nowhere.toml"'))
    with pytest.raises(ValueError, match="'planted' is the name of a profile of the table; give the file another name"):
        get_profile(write('extends = "planted"', "planted.toml"))
    with pytest.raises(ValueError, match=r"the file's name must be letters, digits, .* 'my own'"):
        get_profile(write('extends = "planted"', "my own.toml"))
    with pytest.raises(ValueError, match="the file's name must be letters"):
        get_profile(write('extends = "planted"', "...toml"))
    with pytest.raises(ValueError, match="unknown profile 3; there are planted"):
        get_profile(3)
    (tmp_path / "mine.toml").write_bytes(b'extends = "\xff"')
    with pytest.raises(ValueError, match="it must be TOML, and is not"):
        get_profile(str(tmp_path / "mine.toml"))


# Through the runner.

PARAMETERS = """
profile: str = "planted"  # scale
seed: int = 0  # seed
device: str = "auto"  # where
record: bool = False  # save
overrides: dict = {}  # other numbers
"""
CHAPTER = """
from advfeat.measures import accuracy
from advfeat.pages.page import Page
from advfeat.experiments.run import Run

run = Run(profile, device=device, overrides=overrides)
page = Page(run, "42-tiny", seed=seed, record=record)
standard = page.trained("train", run.standard(seed=seed))
page.measured("plain", accuracy(standard.model, run.test_set), standard)
page.save()
page.about(networks=seed)
"""


@pytest.fixture
def chapter(empty_book, tmp_path, monkeypatch):
    """A book of one chapter, which trains a network and records its accuracy."""
    monkeypatch.setenv("ADVFEAT_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    first = nbformat.v4.new_code_cell(PARAMETERS.strip(), metadata={"tags": ["parameters"]}, id="first")
    cells = [first, nbformat.v4.new_code_cell(CHAPTER.strip(), id="second")]
    path = empty_book / "42-tiny.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.mark.filterwarnings("default")
@pytest.mark.numbers
def test_a_chapter_runs_on_a_file_and_is_recorded_under_its_name(chapter, write, capsys):
    write(TINY)
    # Relative to where the command is typed, which is not where the chapter runs.
    assert runner.main(["record", "42", "--profile", "mine.toml", "-p", "seed", "3"]) == 0
    (copy,) = (chapter_files.RUNS / "mine").glob("42-tiny*.ipynb")
    assert "`mine`: a few images" in copy.read_text(encoding="utf-8")
    record = load_record("42-tiny", "mine")
    assert (record.profile, record.ids(), list(record.runs)) == ("mine", ["plain"], [3])
    config = record.runs[3]["config"]
    described = Run("mine.toml", device="cpu").describe()
    assert config == described
    assert (config["name"], config["train_images"], config["standard"]["epochs"]) == ("mine", 40, 1)
    assert "extends" not in json.dumps(config)

    # A file that has changed since is not mixed in.
    write(TINY.replace("width = 4", "width = 8"))
    with pytest.raises(ValueError, match=r"holds seed 3 with other settings \(width\)"):
        check_record("42-tiny", profile="mine.toml", seed=4)
    assert runner.main(["record", "42", "--profile", "mine.toml", "-p", "seed", "4"]) == 2
    assert "with other settings (width)" in capsys.readouterr().err


def test_a_file_with_a_mistake_is_refused_before_the_first_cell(chapter, write, capsys):
    write(TINY + "lr = -1")
    assert runner.main(["run", "42", "--profile", "mine.toml"]) == 2
    assert "lr=-1.0 is out of range" in capsys.readouterr().err
    assert runner.main(["book", "--profile", "nowhere.toml"]) == 2
    assert "nowhere.toml is not there" in capsys.readouterr().err
    assert not chapter_files.RUNS.exists()


def test_a_file_that_has_changed_is_run_again(chapter, write):
    path = write(TINY)
    before = inputs_of(chapter, {"profile": path}, "around")
    assert inputs_of(chapter, {"profile": path}, "around") == before
    write(TINY.replace("width = 4", "width = 8"))
    assert inputs_of(chapter, {"profile": path}, "around") != before


def test_profiles_are_listed_with_the_way_to_a_file(chapter, capsys):
    assert runner.main(["list"]) == 0
    assert "a file of your own that ends in .toml" in capsys.readouterr().out
