"""The chapters: faults that papermill, Jupyter Book and nbval do not report; and the runner."""

from __future__ import annotations

import ast
import base64
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
import yaml

from advfeat.engine.convolution_code import engine_name
from advfeat.experiments.record_writing import index_rows, save_record
from advfeat.experiments.records import load_record, results_root
from advfeat.experiments.run import Run
from advfeat.pages import build, chapter_files, environment, execution, front_page, parameters, runner
from advfeat.pages.execution import Task, execute_all
from advfeat.pages.exercises import labels_of, publish_labels
from advfeat.pages.notebook import check_record
from advfeat.paper.trials import TRIALS, trial_record

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
PATHS = sorted(BOOK.glob("*.ipynb"))
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in PATHS}
CHECKED_CELLS = 2  # cells per chapter whose committed output must hold on every machine
HIDDEN_CELL, HIDDEN = 15, 70  # lines of code that a folded cell may have, and that a chapter has in them on average
BEFORE_THE_FIRST_PICTURE = 3000  # characters of text: title, claim, objectives and perhaps a paragraph
COLUMN = 84  # characters of code, or of printed output, that a page shows without a scroll bar
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(home|root|Users|tmp|var|opt|mnt|srv|work|workspace|content)/|\b[A-Z]:\\\\")

each_chapter = pytest.mark.parametrize("stem", NOTEBOOKS)
each_with_a_page = each_chapter


def code_cells(stem):
    return [cell for cell in NOTEBOOKS[stem].cells if cell.cell_type == "code"]


def tagged(stem, tag):
    return [cell for cell in NOTEBOOKS[stem].cells if tag in cell.metadata.get("tags", [])]


def pages():
    """Text of every page: markdown files, and the markdown cells of the chapters."""
    texts = {path.stem: path.read_text() for path in BOOK.glob("*.md")}
    for stem, notebook in NOTEBOOKS.items():
        texts[stem] = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return texts


def test_there_are_chapters():
    assert NOTEBOOKS, f"no notebook in {BOOK}"


def test_every_page_is_in_the_table_of_contents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = {toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])}
    assert listed == {f"book/{stem}" for stem in pages()}


@each_chapter
def test_the_sidebar_numbers_a_chapter_as_the_text_calls_it(stem):
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    titles = {entry["file"]: entry.get("title") for part in toc["parts"] for entry in part["chapters"]}
    heading = NOTEBOOKS[stem].cells[0].source.splitlines()[0].removeprefix("# ")
    assert titles[f"book/{stem}"] == f"{int(stem[:2])} · {heading}", "give it this title in _toc.yml"


@each_chapter
def test_committed_outputs_are_complete_and_without_errors(stem):
    for number, cell in enumerate(code_cells(stem), 1):
        assert cell.execution_count == number, "not run from top to bottom: make refresh"
        for output in cell.outputs:
            assert output.output_type != "error", output
            assert output.get("name") != "stderr", output
    assert not tagged(stem, "papermill-error-cell-tag")


@each_chapter
def test_committed_chapter_was_run_on_its_defaults(stem):
    metadata = NOTEBOOKS[stem].metadata
    assert not tagged(stem, "injected-parameters")
    assert "papermill" not in metadata
    assert all("papermill" not in cell.metadata for cell in NOTEBOOKS[stem].cells)
    assert metadata.kernelspec.name == "python3"


@each_chapter
def test_no_path_of_a_machine(stem):
    for cell in NOTEBOOKS[stem].cells:
        assert not MACHINE_PATH.search(cell.source), cell.source
        for output in cell.get("outputs", []):
            texts = {kind: text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")}
            assert not MACHINE_PATH.search(json.dumps(texts) + output.get("text", "")), output


@each_chapter
def test_parameters_are_typed_and_explained(stem):
    assert len(tagged(stem, "parameters")) == 1
    known = parameters.parameters_of(BOOK / f"{stem}.ipynb")
    assert {"profile", "seed", "device", "record", "overrides"} <= set(known)
    for name, (kind, _, text) in known.items():
        assert set(kind.split(" | ")) <= {*parameters.KINDS, "None"}, f"{name} has no type that can be checked"
        assert text, f"{name} has no comment"
    assert yaml.safe_load(known["profile"][1]) == parameters.DEFAULT_PROFILE


@each_chapter
def test_figures_have_caption_name_and_description(stem):
    names = []
    for cell in code_cells(stem):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            shown = cell.metadata.get("mystnb", {})
            figure = shown.get("figure", {})
            assert figure.get("caption"), cell.source
            assert len(shown.get("image", {}).get("alt", "")) >= 40, "describe the picture"
            names.append(figure.get("name", ""))
    assert names, "a chapter without a figure"
    assert len(set(names)) == len(names)
    assert all(name.startswith(f"fig-ch{stem[:2]}-") for name in names), names


@each_chapter
def test_no_cell_ends_in_the_bare_value_of_an_object(stem):
    """A reader would meet ``Estimate(value=1.0, low=0.996173241514445, …``: print it, or keep it."""
    for cell in code_cells(stem):
        for output in cell.outputs:
            if output.output_type == "execute_result":
                assert {"text/html", "text/markdown"} & set(output.data), (cell.source, output.data)


@each_chapter
def test_figures_fit_a_phone_at_half_their_size(stem):
    # A wider one would be shrunk further, and its letters with it; tests/test_identity.py has their size.
    for cell in code_cells(stem):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                head = base64.b64decode(output.data["image/png"])[:24]
                assert int.from_bytes(head[16:20], "big") <= 740, cell.metadata["mystnb"]["figure"]["name"]


def test_drawings_are_described_and_legible_on_a_phone_and_in_the_dark():
    text = "\n".join(pages().values())
    for path in BOOK.glob("figures/*.svg"):
        root = ElementTree.parse(path).getroot()
        name = root.tag.removesuffix("svg")
        assert root.findtext(f"{name}title"), path
        assert root.findtext(f"{name}desc"), path
        width, height = map(float, root.get("viewBox").split()[2:])
        assert width <= 480, f"{path}: on a phone it is shrunk until nobody can read it"
        paper = next(child for child in root if child.tag == f"{name}rect")
        assert (paper.get("fill"), float(paper.get("width")), float(paper.get("height"))) == ("#FFFFFF", width, height)
        assert min(float(part.get("font-size", 99)) for part in root.iter()) >= 11, path
        shown = re.search(rf"^```\{{figure\}} figures/{path.name}\n:name: fig-\S+\n:alt: (.+)$", text, re.MULTILINE)
        assert shown, f"{path} is on no page, or without :name: and :alt:"
        assert len(shown[1]) >= 40


@each_chapter
def test_no_loop_takes_the_name_of_a_setting(stem):
    """A loop over ``eps`` would leave all cells below it with another radius than the profile's, and no word of it."""
    settings, taken = set(), []
    for cell in NOTEBOOKS[stem].cells:
        if cell.cell_type != "code":
            continue
        given = "parameters" in cell.metadata.get("tags", [])
        for node in _outside_of_functions(ast.parse(cell.source)):
            if isinstance(node, ast.AnnAssign | ast.Assign) and node.value:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if given or ast.unparse(node.value).startswith("run.profile."):
                    settings |= {
                        part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)
                    }
            elif isinstance(node, ast.For):
                names = {part.id for part in ast.walk(node.target) if isinstance(part, ast.Name)}
                taken += sorted(names & settings)
    assert not taken


def _outside_of_functions(tree):
    """The nodes whose names are those of the notebook."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            yield node
            yield from _outside_of_functions(node)


@each_chapter
def test_no_value_is_hidden_by_a_semicolon(stem):
    for cell in code_cells(stem):
        assert not cell.source.rstrip().endswith(";"), "nbval shows the value all the same; end with plt.show()"


@each_chapter
def test_code_that_is_shown_fits_into_its_column(stem):
    for cell in code_cells(stem):
        if not {"hide-input", "hide-cell", "remove-cell"} & set(cell.metadata.get("tags", [])):
            assert max(map(len, cell.source.splitlines())) <= COLUMN, f"a reader would have to scroll: {cell.source}"


def hidden(stem):
    """Cells whose code a page folds."""
    return [cell for cell in code_cells(stem) if {"hide-input", "hide-cell"} & set(cell.metadata.get("tags", []))]


def lines_of_code(cells):
    return sum(bool(line.strip()) for cell in cells for line in cell.source.splitlines())


@each_with_a_page
def test_what_is_hidden_is_short_and_no_bookkeeping_is_shown(stem):
    for cell in hidden(stem):
        head = {"parameters", "hide-cell"} & set(cell.metadata.tags)  # the parameters, and the imports
        assert head or lines_of_code([cell]) <= HIDDEN_CELL, (
            f"make it shorter, or a function of the library: {cell.source}"
        )
    for cell in code_cells(stem):
        if not {"hide-input", "hide-cell"} & set(cell.metadata.get("tags", [])):
            bookkeeping = re.search(r"\bglue\(|\.quote(_recorded)?\(", cell.source)
            assert not bookkeeping, f"no reader needs this: {cell.source}"


def test_little_is_hidden_in_all():
    assert sum(lines_of_code(hidden(stem)) for stem in NOTEBOOKS) <= HIDDEN * len(NOTEBOOKS)


@each_with_a_page
def test_a_chapter_opens_with_a_picture_and_ends_with_what_it_was_run_with(stem):
    cells = NOTEBOOKS[stem].cells
    drawn = [any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])) for cell in cells]
    text = "".join(cell.source for cell in cells[: drawn.index(True)] if cell.cell_type == "markdown")
    assert len(text) <= BEFORE_THE_FIRST_PICTURE
    assert [cell.source.split("(")[0] for cell in cells[-2:]] == ["## About this run", "page.about"]


@each_chapter
def test_printed_output_fits_into_its_column(stem):
    for cell in code_cells(stem):
        printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        too_wide = [line for line in printed.splitlines() if len(line) > COLUMN]
        assert not too_wide, f"a reader would have to scroll; a table wraps: {too_wide}"


@each_chapter
def test_no_table_is_cut_short(stem):
    for cell in code_cells(stem):
        for output in cell.outputs:
            table = output.get("data", {}).get("text/html", "")
            assert "...</t" not in table, f"pandas left something out: {cell.source}"


@each_chapter
def test_some_outputs_are_checked_on_every_machine(stem):
    checked = tagged(stem, "nbval-check-output")
    assert len(checked) >= CHECKED_CELLS
    assert all(cell.outputs for cell in checked), "nothing to compare"


def exercises():
    found = []
    for stem, text in pages().items():
        for body in re.findall(r"^:::+\{exercise\}.*?^:::+$", text, re.MULTILINE | re.DOTALL):
            label = re.search(r"^:label: (\S+)$", body, re.MULTILINE)
            found.append((stem, label.group(1) if label else None, body))
    return found


def test_exercises_keep_their_labels():
    lines = (ROOT / "tests" / "exercise_labels.txt").read_text().splitlines()
    recorded = [line for line in lines if line and not line.startswith("#")]
    labels = [label for _, label, _ in exercises()]
    assert None not in labels, "an exercise without :label: cannot be referred to"
    assert len(set(labels)) == len(labels)
    assert set(labels) == set(recorded), "published labels stay; make refresh lists the new ones"
    assert recorded == sorted(recorded)
    assert labels == [label for path in PATHS for label in labels_of(path)]
    for stem, label, _ in exercises():
        assert label.startswith(f"ex-ch{stem[:2]}-"), label


@pytest.mark.filterwarnings("default")
def test_refresh_publishes_the_labels_of_new_exercises(tiny, capsys):
    notebook = nbformat.read(tiny, as_version=4)
    exercise = ":::{exercise}\n:label: ex-ch42-two\n\nTry.\n:::\n\n::::{exercise}\n:label: ex-ch42-one\n\nTry.\n::::"
    notebook.cells.append(nbformat.v4.new_markdown_cell(exercise, id="exercises"))
    nbformat.write(notebook, tiny)
    chapter_files.LABELS.parent.mkdir()
    chapter_files.LABELS.write_text("# Labels.\nex-ch41-gone\nex-ch43-next\n")
    assert runner.main(["refresh", "42"]) == 0
    # Those of other chapters stay, even one whose exercise is gone.
    listed = "# Labels.\nex-ch41-gone\nex-ch42-one\nex-ch42-two\nex-ch43-next\n"
    assert chapter_files.LABELS.read_text() == listed
    assert "ex-ch42-two is new, and listed in exercise_labels.txt" in capsys.readouterr().out
    assert publish_labels(tiny, chapter_files.LABELS) == []
    assert chapter_files.LABELS.read_text() == listed
    notebook.cells.pop()
    nbformat.write(notebook, tiny)
    assert publish_labels(tiny, chapter_files.LABELS) == []
    assert chapter_files.LABELS.read_text() == listed


@each_chapter
def test_the_front_page_has_a_line_for_every_chapter(stem):
    shows = NOTEBOOKS[stem].cells[0].metadata.get("shows", "")
    assert shows, "say what the chapter shows in the metadata of its first cell"
    assert "|" not in shows, "it is a cell of a table"


def test_the_table_of_chapters_builds_strictly(tmp_path):
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]
    assert config["local_extensions"]["chapters"] == "_ext"
    assert "```{chapters}" in (BOOK / "intro.md").read_text()
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / '_ext')!r})\n"
        "extensions = ['myst_nb', 'chapters']\nnb_execution_mode = 'off'\n"
    )
    (tmp_path / "index.md").write_text("# Front\n\n```{toctree}\n:glob:\n*\n```\n\n```{chapters}\n```\n")
    for name, shows in (("02-b", "the *second* thing"), ("01-a", "the first thing")):
        title = nbformat.v4.new_markdown_cell(f"# Chapter {name}", metadata={"shows": shows})
        notebook = nbformat.v4.new_notebook(cells=[title], metadata={"language_info": {"name": "python"}})
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "-E", str(tmp_path), str(tmp_path / "html")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    table = (tmp_path / "html" / "index.html").read_text().partition("<table")[2].partition("</table>")[0]
    text = " ".join(re.sub("<[^>]+>", " ", table).split())
    assert text.endswith("chapter what it shows Chapter 01-a the first thing Chapter 02-b the second thing")
    assert 'href="02-b.html"' in table
    title.metadata.pop("shows")
    nbformat.write(notebook, tmp_path / "01-a.ipynb")
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "01-a.ipynb: the metadata of the first cell lack `shows`, its line in the table" in refused.stderr


@each_with_a_page
def test_what_code_imports_exists(stem):
    """Solutions run late, in the second run of the book: a name that has moved is found here."""
    markdown = "\n".join(cell.source for cell in NOTEBOOKS[stem].cells if cell.cell_type == "markdown")
    for code in [cell.source for cell in code_cells(stem)] + [*build.solutions(markdown).values()]:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("advfeat"):
                for name in node.names:
                    module = importlib.import_module(node.module)
                    assert hasattr(module, name.name) or importlib.import_module(f"{node.module}.{name.name}")


def test_every_exercise_has_a_folded_solution():
    labels = {label for _, label, _ in exercises()}
    solved = set()
    for text in pages().values():
        assert "solution-start" not in text  # crashes the build when solutions are hidden
        assert "```{exercise}" not in text, "write colon fences: a code block inside backticks ends up empty"
        assert "```{solution}" not in text
        for target, body in re.findall(r"^:::+\{solution\} (\S+)\n(.*?)^:::+$", text, re.MULTILINE | re.DOTALL):
            assert target in labels, target
            assert re.search(r"^:class:.*\bdropdown\b", body, re.MULTILINE), f"the solution of {target} lies open"
            solved.add(target)
    assert solved == labels


def test_every_solution_is_found_and_compiles():
    """`make test` runs them behind their chapter; a block that the search misses would never run."""
    for stem, text in pages().items():
        found = build.solutions(text)
        bodies = re.findall(r"^:::+\{solution\}.*?^:::+$", text, re.MULTILINE | re.DOTALL)
        assert len(found) == len(bodies)
        assert sum(body.count("```python") for body in bodies) == sum(body.count("```") for body in bodies) / 2, stem
        assert "```" not in "".join(found.values())
        for label, code in found.items():
            compile(code, label, "exec")


def test_what_another_run_should_give(tiny):
    """Outputs of this machine, but committed ones where they are the same everywhere, and solutions as cells."""
    with pytest.raises(parameters.Refused, match="make book"):
        build.expectation(tiny)
    notebook = nbformat.read(tiny, as_version=4)
    text = ":::{solution} ex-ch42-one\n:class: dropdown\n\nTry:\n\n```python\nanswer = 42\n```\n\nSo.\n:::"
    shared, own = (nbformat.v4.new_code_cell(f"print({k})") for k in range(2))
    shared.metadata["tags"] = ["nbval-check-output"]
    notebook.cells += [shared, own, nbformat.v4.new_markdown_cell(text)]
    for made, path in (("committed", tiny), ("here", chapter_files.STAGE / "book" / tiny.name)):
        path.parent.mkdir(parents=True, exist_ok=True)
        shared.outputs = own.outputs = [nbformat.v4.new_output("stream", text=made)]
        nbformat.write(notebook, path)
    *_, first, second, _, last = nbformat.read(build.expectation(tiny), as_version=4).cells
    assert (first.outputs[0].text, second.outputs[0].text) == ("committed", "here")
    assert last.source == "# solution of ex-ch42-one\nanswer = 42\n"
    assert not last.outputs
    assert last.metadata["tags"] == ["nbval-ignore-output"]
    notebook.cells[0].source += " "
    nbformat.write(notebook, tiny)
    with pytest.raises(parameters.Refused, match="as it is now"):
        build.expectation(tiny)


def test_every_number_of_the_prose_is_among_the_committed_outputs():
    # The strict build would find it, too, minutes later.
    known = {name for notebook in NOTEBOOKS.values() for name in front_page.glued(notebook)}
    for stem, text in pages().items():
        wanted = set(re.findall(r"\{glue:text\}`([^`:]+)`", text))
        assert not wanted - known, stem


def test_readme_quotes_the_committed_chapter_the_record_and_the_paper():
    recorded = load_record("05-non-robust-features", "cifar10-cpu")
    values = front_page.glued(NOTEBOOKS["05-non-robust-features"])
    paper = json.loads((BOOK / "paper.json").read_text())
    readme = (ROOT / "README.md").read_text()
    for name in ("D", "D_rand", "D_det"):
        row = f"table1/{'standard' if name == 'D' else name}"
        ours, published = recorded.summary(row).value, paper[row]["value"]
        assert f"| {name} | {values[f'ch05_{row}']} | {ours:.1%} | {published:.1%} |" in readme, "a number changed"


def test_the_committed_index_is_what_the_records_give():
    assert json.loads((results_root() / "index.json").read_text()) == index_rows()


def test_recorded_runs_come_from_clean_trees_and_say_what_they_saw():
    for path in results_root().glob("*/*/record.json"):
        record = load_record(path.parent.parent.name, path.parent.name)
        assert record.chapter in {*NOTEBOOKS, *map(trial_record, TRIALS)}
        for run in record.runs.values():
            assert not run["provenance"]["dirty"], path
            assert re.fullmatch("[0-9a-f]{40}", run["provenance"]["commit"])
            assert re.fullmatch("[0-9a-f]{64}", run["provenance"]["fingerprint"])


class Images(HTMLParser):
    """Collects the alternative text of every image on a page."""

    def __init__(self):
        super().__init__()
        self.alts = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.alts.append(dict(attrs).get("alt") or "")


@pytest.mark.pages
def test_built_pages_describe_their_images_and_show_no_traceback():
    html = chapter_files.STAGE / "_build" / "html" / "book"
    built = {path.stem: path.read_text() for path in html.glob("*.html")}
    assert set(built) == set(pages())
    for stem, text in built.items():
        images = Images()
        images.feed(text)
        assert not [alt for alt in images.alts if not alt or "_images/" in alt], stem
        assert "Traceback (most recent call last)" not in text, stem


# The runner, on a chapter of three cells in a folder of its own.


@pytest.fixture
def tiny(empty_book):
    """A book with one chapter."""
    parameters = nbformat.v4.new_code_cell(
        'profile: str = "planted"  # scale\n'
        "seed: int = 0  # seed\n"
        "rate: float = 0.1  # step\n"
        "record: bool = False  # save\n"
        "overrides: dict = {}  # other numbers",
        metadata={"tags": ["parameters", "hide-input"]},
    )
    show = nbformat.v4.new_code_cell("print(profile, seed, rate, record, overrides)")
    fail = nbformat.v4.new_code_cell("assert seed != 13, 'unlucky'")
    notebook = nbformat.v4.new_notebook(cells=[parameters, show, fail])
    notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
    chapter = empty_book / "42-tiny.ipynb"
    nbformat.write(notebook, chapter)
    return chapter


@pytest.mark.parametrize(
    ("arguments", "listed"),
    [
        (["run", "7"], "42-tiny"),
        (["run", ""], "42-tiny"),
        (["record", "tiny"], "42-tiny"),
        (["run", "42", "--profile", "huge"], "cifar10-cpu"),
        (["book", "--profile", "huge"], "cifar10-cpu"),
        (["run", "42", "-p", "profile", "huge"], "cifar10-cpu"),
        (["run", "42", "-p", "sed", "1"], "seed: int"),
        (["run", "42", "-p", "seed", "x"], "seed: int"),
        (["run", "42", "-p", "seed", "1.5"], "seed: int"),
        (["run", "42", "-p", "seed", "true"], "seed: int"),
        (["run", "42", "-p", "rate", "fast"], "rate: float"),
        (["run", "42", "-p", "record", "flase"], "record: bool"),
        (["run", "42", "-p", "record", "1"], "record: bool"),
        (["run", "42", "-p", "overrides", "[1]"], "overrides: dict"),
        (["run", "42", "-p", "overrides", "{epsilon: 1}"], "eps"),
        (["run", "42", "-p", "overrides", "{eps: large}"], "a positive number"),
        (["run", "42", "--profile", "planted", "-p", "profile", "planted"], "PROFILE="),
    ],
)
def test_runner_refuses_before_the_first_cell(tiny, capsys, arguments, listed):
    assert runner.main(arguments) == 2
    assert listed in capsys.readouterr().err
    assert not chapter_files.RUNS.exists()


def test_a_record_with_other_settings_is_refused_before_the_first_cell(tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ADVFEAT_RESULTS", str(tmp_path / "results"))
    (tmp_path / "results").mkdir()
    save_record(
        "42-tiny", "planted", seed=0, values={}, config={**Run("planted").describe(), "eps": 0.25}, seconds={},
        provenance={"commit": "c0ffee", "device": "a processor", "engine": engine_name()},
    )  # fmt: skip
    assert runner.main(["record", "42", "-p", "seed", "3"]) == 2
    assert "seed 0 with other settings (eps)" in capsys.readouterr().err
    assert not chapter_files.RUNS.exists()
    check_record("42-tiny", profile="planted", seed=0)  # that one would be replaced
    check_record("42-tiny", profile="planted", seed=3, overrides={"eps": 0.25})


def test_a_record_with_other_parameters_of_the_chapter_is_refused_too(tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ADVFEAT_RESULTS", str(tmp_path / "results"))
    (tmp_path / "results").mkdir()
    default = float(parameters.parameters_of(tiny)["rate"][1])
    save_record(
        "42-tiny", "planted", seed=0, values={}, config={**Run("planted").describe(), "rate": default + 1}, seconds={},
        provenance={"commit": "c0ffee", "device": "a processor", "engine": engine_name()},
    )  # fmt: skip
    assert runner.main(["record", "42", "-p", "seed", "3"]) == 2
    assert "seed 0 with other settings (rate)" in capsys.readouterr().err
    assert runner.main(["record", "42", "-p", "seed", "3", "-p", "rate", str(default + 2)]) == 2
    assert "seed 0 with other settings (rate)" in capsys.readouterr().err
    assert not chapter_files.RUNS.exists()
    check_record("42-tiny", profile="planted", seed=3, parameters={"rate": default + 1, "text": "unrecorded"})


def test_a_record_with_a_setting_that_this_run_leaves_at_its_default_is_refused_too(tmp_path, monkeypatch):
    """Settings that were added later stand in a record only where they are not at their default."""
    monkeypatch.setenv("ADVFEAT_RESULTS", str(tmp_path / "results"))
    (tmp_path / "results").mkdir()
    held = {"held_out_from": 5000}
    save_record(
        "42-tiny", "planted", seed=0, values={}, config=Run("planted", overrides=held).describe(), seconds={},
        provenance={"commit": "c0ffee", "device": "a processor", "engine": engine_name()},
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"seed 0 with other settings \(held_out_from\)"):
        check_record("42-tiny", profile="planted", seed=3)
    check_record("42-tiny", profile="planted", seed=3, overrides=held)


@pytest.mark.parametrize("name", ["42", "42-tiny", "42-tiny.ipynb", "book/42-tiny.ipynb"])
def test_runner_finds_a_chapter_by_any_of_its_names(tiny, name):
    assert chapter_files.find_chapter(name) == tiny


def test_runner_finds_a_chapter_by_its_number_without_zero(tiny):
    tiny.rename(tiny.with_name("04-tiny.ipynb"))
    assert chapter_files.find_chapter("4").name == "04-tiny.ipynb"


def test_runner_reads_values_by_the_declared_type(tiny):
    given = {"rate": "1e-3", "seed": "2", "record": "false", "profile": "planted", "overrides": "{eps: 0.25}"}
    assert parameters.check_parameters(tiny, given) == {
        "rate": 1e-3,
        "seed": 2,
        "record": False,
        "profile": "planted",
        "overrides": {"eps": 0.25},
    }


def test_folders_are_those_of_the_place_where_the_command_was_typed(tiny, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, given in zip(environment.FOLDER_VARIABLES, ("data", "~/store", ""), strict=True):
        monkeypatch.setenv(name, given)
    assert runner.main(["list"]) == 0
    assert [os.environ[name] for name in environment.FOLDER_VARIABLES] == [
        str(tmp_path / "data"),
        str(Path.home() / "store"),
        "",
    ]
    notebook = nbformat.read(tiny, as_version=4)
    notebook.cells[0].source += '\nreleased: str = ""  # folder'
    nbformat.write(notebook, tiny)
    for given, expected in (("sets", str(tmp_path / "sets")), ("~/sets", str(Path.home() / "sets")), ("", "")):
        assert parameters.check_parameters(tiny, {"released": given}) == {"released": expected}


def test_two_runs_at_once_have_partial_files_of_their_own_and_leave_none(tiny, monkeypatch):
    seen = []

    def interrupted(chapter, partial, **_):
        shutil.copy(chapter, partial)
        seen.append(Path(partial))
        raise KeyboardInterrupt

    monkeypatch.setattr("papermill.execute_notebook", interrupted)
    for process in (11, 12):
        monkeypatch.setattr(execution.os, "getpid", lambda process=process: process)
        with pytest.raises(KeyboardInterrupt):
            execution.execute(tiny, chapter_files.RUNS / tiny.name, {})
    assert len(set(seen)) == 2
    assert list(chapter_files.RUNS.iterdir()) == []


@pytest.mark.filterwarnings("default")
def test_two_runs_give_the_same_bytes(tiny):
    copy = chapter_files.RUNS / "planted" / "42-tiny.seed=3.ipynb"
    committed = tiny.read_bytes()
    texts = []
    for _ in range(2):
        assert runner.main(["run", "42", "-p", "seed", "3"]) == 0
        texts.append(copy.read_bytes())
    assert texts[0] == texts[1]
    assert tiny.read_bytes() == committed
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    injected, shown = nbformat.read(copy, as_version=4).cells[1:3]
    assert injected.metadata.tags == ["injected-parameters", "hide-input"]
    assert shown.outputs[0].text == "planted 3 0.1 False {}\n"


@pytest.mark.filterwarnings("default")
def test_failing_cell_is_named_and_an_older_copy_stays(tiny, capsys):
    copy = chapter_files.RUNS / "planted" / "42-tiny.seed=13.ipynb"
    copy.parent.mkdir(parents=True)
    copy.write_text("older")
    assert runner.main(["run", "42", "-p", "seed", "13"]) == 1
    message = capsys.readouterr().err
    assert "42-tiny (planted) failed in cell 4 of 4" in message
    assert "AssertionError: unlucky" in message
    assert copy.read_text() == "older"
    assert "unlucky" in copy.with_suffix(".failed.ipynb").read_text()


@pytest.mark.filterwarnings("default")
def test_refresh_leaves_no_trace_of_a_run(tiny):
    assert runner.main(["refresh", "42"]) == 0
    notebook = nbformat.read(tiny, as_version=4)
    assert len(notebook.cells) == 3
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3]
    assert "papermill" not in tiny.read_text()
    assert notebook.cells[1].outputs[0].text == "planted 0 0.1 False {}\n"


@pytest.mark.filterwarnings("default")
def test_chapters_side_by_side_are_those_that_run_one_after_the_other(tiny):
    both = [tiny, tiny.with_name("43-tiny.ipynb")]
    shutil.copy(*both)
    copies = {jobs: [chapter_files.RUNS / str(jobs) / chapter.name for chapter in both] for jobs in (1, 2)}
    for jobs, paths in copies.items():
        pairs = enumerate(zip(both, paths, strict=True))
        tasks = [Task(chapter, path, {"seed": seed}) for seed, (chapter, path) in pairs]
        assert execute_all(tasks, jobs).keys() == {chapter.stem for chapter in both}
    assert [path.read_bytes() for path in copies[1]] == [path.read_bytes() for path in copies[2]]
    with pytest.raises(execution.Failed, match="unlucky"):
        execute_all([Task(both[0], copies[2][0], {"seed": 13}), Task(both[1], copies[2][1], {})], 2)
