"""The PDF: what is missing is said at once, faults in LaTeX's log are found, and pages become the LaTeX of a book."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from advfeat.pages import printing
from advfeat.pages.build import jupyter_book
from advfeat.pages.parameters import Refused

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "_ext"))

import printed_tables  # noqa: E402, from the folder above

DATA_FRAME = """<style>th {color: red}</style><table><thead>
<tr><th></th><th>ordinary</th><th>attacked</th></tr><tr><th>trained on</th><th></th><th></th></tr></thead>
<tbody><tr><th rowspan="2">D</th><td>97.7% &plusmn; 0.6%</td><td>a &lt; b</td></tr><tr><td>2</td><td>3</td></tr></tbody>
</table>"""


def test_a_missing_program_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(printing.shutil, "which", lambda name: None if name == "rsvg-convert" else f"/bin/{name}")
    monkeypatch.setattr(printing, "_font_is_there", lambda name: name != "texgyrepagella-math.otf")
    with pytest.raises(Refused) as said:
        printing.check_programs()
    assert "needs rsvg-convert, texgyrepagella-math.otf;" in str(said.value)
    assert str(said.value).endswith("apt install fonts-texgyre-math librsvg2-bin")


def test_without_latex_all_packages_are_named(monkeypatch):
    monkeypatch.setattr(printing.shutil, "which", lambda _: None)
    with pytest.raises(Refused, match=r"apt install fonts-dejavu .*latexmk .*texlive-xetex"):
        printing.check_programs()


def test_the_command_looks_for_programs_before_chapters_run(monkeypatch, capsys):
    from advfeat.pages import runner

    monkeypatch.setattr(printing.shutil, "which", lambda _: None)
    monkeypatch.setattr(runner, "build_book", lambda *_, **__: pytest.fail("chapters ran"))
    assert runner.main(["pdf"]) == 2
    assert "apt install" in capsys.readouterr().err


def test_faults_are_what_a_reader_would_stumble_over():
    log = r"""LaTeX Warning: Hyper reference `book/a:b' on page 3 undefined on input line 9.
LaTeX Warning: Label `c' multiply defined.
Missing character: There is no ℓ in font DejaVuSansMono!
Overfull \hbox (12.5pt too wide) in paragraph at lines 1--2
Overfull \hbox (11.9pt too wide) in paragraph at lines 3--4
Underfull \vbox (badness 10000) has occurred
LaTeX Warning: Reference `d' on page 4 undefined on input line 10."""
    found = printing.faults_in_log(log)
    assert [line.split()[2] if line.startswith("LaTeX") else line.split()[0] for line in found] == [
        "Hyper", "Label", "Reference", "Missing", "Overfull",
    ]  # fmt: skip
    assert "12.5pt" in found[-1]
    assert printing.faults_in_log("Output written on advfeat.pdf (283 pages).") == []


def test_a_table_of_pandas_keeps_heads_spans_and_signs():
    ((head, body),) = printed_tables.grid(DATA_FRAME)
    assert head == [[("trained on", 1, 1), ("ordinary", 1, 1), ("attacked", 1, 1)]]
    assert body == [[("D", 1, 2), ("97.7% ± 0.6%", 1, 1), ("a < b", 1, 1)], [("2", 1, 1), ("3", 1, 1)]]


def test_two_rows_of_heads_stay_two_if_they_share_a_column():
    html = DATA_FRAME.replace("<tr><th>trained on</th><th></th>", "<tr><th>trained on</th><th>n</th>")
    ((head, _),) = printed_tables.grid(html)
    assert len(head) == 2


def columns(*rows):
    """The columns of a table with these texts."""
    cells = "".join("<tr>" + "".join(f"<td>{text}</td>" for text in row) + "</tr>" for row in rows)
    (table,) = printed_tables.tables_of(f"<table><tbody>{cells}</tbody></table>")
    return printed_tables.columns_of(table)


def test_a_table_that_fits_has_columns_as_wide_as_its_cells():
    assert columns(["a", "b c"], ["d", "e"]) == ("ll", 2)


def test_a_wide_table_gives_a_short_column_its_longest_word_and_fills_the_line():
    spec, lines = columns(["words " * 60, "unbreakable"], ["x", "y"])
    first, second = (int(part.split("}{")[0]) for part in spec.split(r"\X{")[1:])
    total = int(spec.rsplit("{", 1)[1].rstrip("}"))
    assert first + second == pytest.approx(total, abs=2)
    assert total == pytest.approx(10 * printed_tables.LINE, abs=20)
    assert second >= 10 * len("unbreakable")
    assert lines == 5 + 1  # 359 letters in a column of 87, and the other row


def test_no_line_ends_within_an_interval():
    (table,) = printed_tables.tables_of("<table><tbody><tr><td>1 ± 2, 3% [1%, 4%] of</td></tr></tbody></table>")
    printed_tables.keep_together(table)
    space = printed_tables.NO_BREAK
    assert table.astext().strip() == f"1{space}±{space}2, 3% [1%,{space}4%] of"


PAGES = {
    "_toc.yml": "format: jb-book\nroot: book/intro\nparts:\n- caption: One\n  chapters: [{file: book/01-one}]\n"
    "- caption: Back matter\n  chapters: [{file: book/notation}, {file: book/bibliography}]\n",
    "book/intro.md": "# The title\n\nHello {cite:t}`a2020`.\n\n(told)=\n## Told here\n\nSee [](told) and [](01-one).\n",
    "book/01-one.md": r"""# First

$$ a = b \tag{1} $$

:::{prf:proof}
It is so.
:::

:::{exercise} Why
:label: ex-why
Say why.
:::

:::{solution} ex-why
:label: sol-why
:class: dropdown
Because.
:::

| a | b |
|---|---|
| 1 | 2 [3, 4] |
""",
    "book/notation.md": "# Notation\n\nLetters.\n",
    "book/bibliography.md": "# Bibliography\n\n```{bibliography}\n:style: plain\n:all:\n```\n",
    "book/references.bib": "@misc{a2020, author={Ann Author}, title={A title}, year={2020}}\n",
}


@pytest.fixture(scope="module")
def latex(tmp_path_factory):
    """The LaTeX of a small book with the settings and extensions of this one."""
    folder = tmp_path_factory.mktemp("printed")
    shutil.copytree(ROOT / "_ext", folder / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "_static", folder / "_static")
    shutil.copy(ROOT / "_config.yml", folder)
    for name, text in PAGES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    command = [jupyter_book(), "build", str(folder), "--all", "--builder", "latex", "-n", "-W", "--keep-going"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "_build" / "latex" / "advfeat.tex").read_text()


def test_the_front_page_is_an_introduction_with_headings(latex):
    assert r"\chapter*{Introduction}" in latex
    assert latex.count(r"\section*{Told here}") == 1
    assert latex.count(r"\label{\detokenize{book/intro:told}}") == 1


def test_solutions_stand_in_an_appendix_and_exercises_say_where(latex):
    chapter, appendix = latex.split(r"\appendix")
    assert "Say why." in chapter
    assert r"\pageref{book/01-one:sol-why}" in chapter
    assert "Because." not in chapter
    assert appendix.index("Letters.") < appendix.index(r"\chapter{Solutions}") < appendix.index("Because.")
    assert r"\label{book/01-one:sol-why}" in appendix
    assert r"\section{First}" in appendix
    assert r"\label{\detokenize{book/01-one:ex-why}}" in chapter  # the title of a solution leads there


def test_the_bibliography_is_no_empty_chapter(latex):
    assert r"\chapter{Bibliography}" not in latex
    assert r"\begin{sphinxthebibliography}" in latex


def test_a_formula_with_its_own_number_is_no_split(latex):
    assert r"\tag{1}\end{split}" not in latex
    assert "\\begin{equation*}\na = b \\tag{1}\n\\end{equation*}" in latex


def test_a_proof_is_no_box(latex):
    start = latex.index(r"\begin{bookproof}")
    end = latex.index(r"\end{bookproof}")
    assert "It is so." in latex[start:end]
    assert "sphinxadmonition" not in latex[start:end]


def test_the_title_page_has_version_date_and_commit(latex):
    assert latex.count(r"\booktitlepage") >= 2  # defined and used
    for name in ("Version", "Date", "Commit", "MadeWith"):
        assert rf"\newcommand{{\book{name}}}{{" in latex
