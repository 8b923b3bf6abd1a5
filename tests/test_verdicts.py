"""The verdicts on the claims: each branch of the rule, no number in them is typed, and the pages build."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from advfeat.pages import front_page, notebook, readme, verdicts
from advfeat.pages.notebook import answered
from advfeat.pages.readme import END, MADE, parts_of, with_parts
from advfeat.pages.verdicts import Comparand, claim_map, claim_rows, claim_table, decide, rows_of_book

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
CLAIMS = json.loads((BOOK / "claims.json").read_text())
PAPER = json.loads((BOOK / "paper.json").read_text())
CHANCE = [Comparand.exactly(0.1)]


def of(value, width=0.02):
    return Comparand(value, value - width, value + width)


@pytest.mark.parametrize(
    ("ours", "no_effect", "wanted", "paper", "verdict"),
    [
        (of(0.47), CHANCE, "higher", 0.633, verdicts.SMALLER),
        (of(0.62), CHANCE, "higher", 0.633, verdicts.REPRODUCED),
        (of(0.80), CHANCE, "higher", 0.633, verdicts.REPRODUCED),  # beyond the paper's number
        (of(0.50, 0.2), CHANCE, "higher", 0.633, verdicts.UNCERTAIN),
        (of(0.11), CHANCE, "higher", 0.633, verdicts.NOT_ESTABLISHED),
        (of(0.05), CHANCE, "higher", 0.633, verdicts.CONTRARY),
        (of(0.30), CHANCE, "higher", None, verdicts.SHOWN),
        (of(0.12), [of(0.15)], "higher", None, verdicts.NOT_ESTABLISHED),  # the two intervals meet
        (of(0.12), [of(0.17)], "higher", None, verdicts.CONTRARY),
        (Comparand(0.0, 0.0, 0.002), [of(0.109)], "lower", 0.0, verdicts.FLOOR),
        (Comparand(0.0, 0.0, 0.002), [of(0.109)], "lower", 0.02, verdicts.REPRODUCED),  # above zero it could be missed
        (of(0.02, 0.02), [of(0.60)], "higher", 0.0, verdicts.CONTRARY),  # a zero that is wanted higher is no floor
        (Comparand(0.03, 0.0, 0.06), [of(0.109)], "lower", 0.0, verdicts.UNCERTAIN),
        (of(0.05), [of(0.109)], "lower", 0.0, verdicts.SMALLER),
        (of(0.20), [of(0.109)], "lower", 0.0, verdicts.CONTRARY),
        (Comparand(0.76, -1.0, 1.0), [Comparand.exactly(0.0)], "higher", None, verdicts.NOT_ESTABLISHED),
    ],
)
def test_the_rule(ours, no_effect, wanted, paper, verdict):
    assert decide([ours], no_effect, wanted=wanted, paper=paper) == verdict


def test_an_interval_that_ends_on_no_effect_establishes_nothing():
    assert decide([Comparand(0.2, 0.1, 0.3)], CHANCE) == verdicts.NOT_ESTABLISHED
    assert decide([Comparand(0.0, -0.1, 0.1)], CHANCE) == verdicts.NOT_ESTABLISHED


def test_a_rounded_number_of_the_paper_is_met_within_its_rounding():
    ours = [Comparand(0.47, 0.465, 0.477)]
    assert decide(ours, CHANCE, paper=0.48, rounding=0.005) == verdicts.REPRODUCED
    assert decide(ours, CHANCE, paper=0.48, rounding=0.0005) == verdicts.SMALLER


def test_a_zero_of_the_paper_that_is_met_within_its_rounding_is_a_floor():
    ours, nothing = [Comparand(0.004, 0.002, 0.006)], [of(0.109)]
    assert decide(ours, nothing, wanted="lower", paper=0.0, rounding=0.005) == verdicts.FLOOR
    assert decide(ours, nothing, wanted="lower", paper=0.0, rounding=0.0005) == verdicts.SMALLER


def test_of_several_networks_every_one_counts():
    label, after = [of(0.16), of(0.30)], [of(0.33), of(0.20)]
    assert decide(label, after) == verdicts.NOT_ESTABLISHED  # one either way
    assert decide(label, [of(0.33), of(0.40)]) == verdicts.CONTRARY
    assert decide(label, [of(0.05), of(0.20)]) == verdicts.SHOWN
    assert decide([of(0.7)], [of(0.2), of(0.69)]) == verdicts.NOT_ESTABLISHED
    assert decide([of(0.7)], [of(0.2), of(0.3)]) == verdicts.SHOWN


@pytest.mark.parametrize(
    ("ours", "no_effect", "more", "named"),
    [
        ([of(0.5)], CHANCE, {"wanted": "more"}, "wanted must be 'higher' or 'lower', got 'more'"),
        ([], CHANCE, {}, "got 0 and 1"),
        ([of(0.5)], [], {}, "got 1 and 0"),
        ([of(0.5)] * 2, CHANCE * 3, {}, "got 2 and 3"),
        ([of(0.5)] * 2, CHANCE, {"paper": 0.5}, "paper is one number"),
    ],
)
def test_what_cannot_be_decided_is_refused(ours, no_effect, more, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        decide(ours, no_effect, **more)


def recorded(key, value, profile="cifar10-cpu", width=0.01):
    return {"id": key, "profile": profile, "value": value, "low": value - width, "high": value + width}


def test_without_records_every_claim_has_a_row_that_says_so():
    rows = claim_rows(CLAIMS, PAPER, [])
    assert [row.key for row in rows] == [claim["key"] for claim in CLAIMS]
    assert {row.verdict for row in rows} == {verdicts.NOT_RECORDED, verdicts.NOT_TRIED, verdicts.PROVED}
    assert {row.key for row in rows if row.verdict == verdicts.NOT_TRIED} == {"restricted"}


def test_a_claim_takes_the_records_of_its_data_that_hold_all_its_numbers():
    claims = [{"key": "k", "chapter": "6", "claim": "C", "ids": ["a"], "no_effect": ["b"]}]
    index = [
        recorded("a", 0.5),
        recorded("b", 0.2),
        recorded("a", 0.5, "planted"),  # other data
        recorded("b", 0.2, "planted"),
        recorded("a", 0.1, "cifar10-gpu"),
        recorded("b", 0.2, "cifar10-gpu"),
        recorded("a", 0.1, "cifar10-small"),  # half of the needed share
    ]
    rows = claim_rows(claims, PAPER, index)
    assert [(row.profile, row.ours, row.no_effect, row.verdict) for row in rows] == [
        ("cifar10-cpu", "50.0% [49.0%, 51.0%]", "20.0%", verdicts.SHOWN),
        ("cifar10-gpu", "10.0% [9.0%, 11.0%]", "20.0%", verdicts.CONTRARY),
    ]
    assert "| C (chapter 6), `cifar10-gpu` |" in claim_table(rows, chapters=True)
    assert "`cifar10-cpu`" not in claim_table(rows[:1])


def test_a_row_holds_the_numbers_that_decided_it():
    # So that another rule can be tried on them: the ends of the other interval would turn a claim round.
    claims = [{"key": "k", "chapter": "6", "claim": "C", "ids": ["a"], "no_effect": ["b"], "wanted": "lower"}]
    (row,) = claim_rows(claims, PAPER, [recorded("a", 0.2), recorded("b", 0.5)])
    assert (row.measured[0].value, row.against[0].value, row.published, row.wanted) == (0.2, 0.5, None, "lower")
    assert decide(row.measured, row.against, wanted=row.wanted, paper=row.published) == row.verdict == verdicts.SHOWN
    for row in rows_of_book(BOOK, BOOK / "results"):
        assert bool(row.measured) == (row.verdict not in (verdicts.NOT_RECORDED, verdicts.NOT_TRIED, verdicts.PROVED))


def test_the_map_leads_from_chapter_and_claim_to_evidence_and_verdict():
    claims = [
        {"key": "late", "chapter": "12", "claim": "L", "figure": "fig-ch12-l", "ids": ["a"], "no_effect": 0.1},
        {"key": "early", "chapter": "5", "claim": "E", "ids": ["a"], "no_effect": 0.1, "paper": "table1/D_rand"},
        {"key": "none", "chapter": "5", "claim": "N", "ids": ["missing"], "no_effect": 0.1},
    ]
    rows = claim_rows(claims, PAPER, [recorded("a", 0.47)])
    lines = claim_map(rows, {"5": "05-a", "12": "12-b"}).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == ["{doc}`5 <05-a>`"] * 2 + ["{doc}`12 <12-b>`"]
    assert "47.0% [46.0%, 48.0%] against 10.0%; paper 63.3%" in lines[0]
    comment = [{"key": "c", "chapter": "10", "claim": "C", "ids": ["a"], "no_effect": 0.1, "paper": "goh/rand"}]
    rows_of_comment = claim_rows(comment, PAPER, [recorded("a", 0.47)])
    assert "; Goh 23.5%" in claim_map(rows_of_comment, {"10": "10-a"})  # not the paper's number
    assert "| 23.5% (Goh) |" in claim_table(rows_of_comment)
    assert lines[1].endswith(f"| N | – | {verdicts.NOT_RECORDED} |")
    assert "| {ref}`L <fig-ch12-l>` |" in lines[2]


def test_no_claim_leans_on_a_number_that_is_not_confirmed():
    doubtful = [{"key": "k", "chapter": "4", "claim": "C", "ids": ["a"], "no_effect": 0.1}]
    for key in ("fig2/adversarial/eps0.25", "fig3/correlation"):
        with pytest.raises(ValueError, match="no confirmed number"):
            claim_rows([{**doubtful[0], "paper": key}], PAPER, [recorded("a", 0.5)])
    for claim in CLAIMS:
        assert claim.get("wanted", "higher") in ("higher", "lower"), claim
        assert claim["key"].isidentifier(), claim
    assert len({claim["key"] for claim in CLAIMS}) == len(CLAIMS)


def test_the_committed_records_say_what_came_out_and_what_did_not():
    """The verdicts that a reader must not miss; a new record may change them, and then this test should be read."""
    found = {(row.key, row.profile): row for row in rows_of_book(BOOK, BOOK / "results")}
    assert found["rand", "cifar10-cpu"].verdict == verdicts.SMALLER
    assert (found["rand", "cifar10-cpu"].value, found["rand", "cifar10-cpu"].paper) == ("47.0%", "63.3%")
    assert found["det", "cifar10-cpu"].verdict == verdicts.SMALLER
    assert (found["det", "cifar10-cpu"].value, found["det", "cifar10-cpu"].paper) == ("18.6%", "43.7%")
    for key in ("r_clean", "r_robust", "nr_clean"):
        assert found[key, "cifar10-cpu"].verdict == verdicts.SMALLER
    for key in ("nr_robust", "rand_robust", "det_robust"):  # 0 % beside the paper's 0 %
        assert found[key, "cifar10-cpu"].verdict == verdicts.FLOOR
    for profile in ("cifar10-cpu", "cifar10-cpu-resnet9"):
        assert found["figure3", profile].verdict == verdicts.NOT_ESTABLISHED
    assert found["five_after", "cifar10-cpu-resnet9"].verdict == verdicts.CONTRARY
    assert found["autoattack", "cifar10-cpu"].verdict == verdicts.SHOWN
    assert found["restricted", ""].verdict == verdicts.NOT_TRIED
    assert found["restricted", ""].paper == "96.6%, 87.9%, 64.4%"
    assert "not reproduced" in verdicts.SMALLER


def test_every_number_of_a_claim_is_one_that_its_chapter_records():
    """A misspelt id would read "not recorded yet" for ever."""
    ids = {row["id"] for row in json.loads((BOOK / "results" / "index.json").read_text())}
    for claim in CLAIMS:
        (chapter,) = BOOK.glob(f"{int(claim['chapter']):02d}-*.ipynb")
        coming = glued(chapter)  # measured from now on: no record holds it yet
        forms = forms_of_ids(chapter)
        nothing = claim.get("no_effect", [])
        for key in (*claim.get("ids", []), *(nothing if isinstance(nothing, list) else [])):
            assert key in ids or key in coming or any(form.fullmatch(key) for form in forms), claim["key"]


def test_the_readme_holds_what_the_generator_gives():
    text = (ROOT / "README.md").read_text()
    assert with_parts(text, parts_of(BOOK)) == text, "python -m advfeat.pages.readme"
    begin = MADE.format("a part")
    with pytest.raises(ValueError, match="no '<!-- end of a part"):
        with_parts(begin, {"a part": "text"})
    with pytest.raises(ValueError, match="no '<!-- a part: made"):
        with_parts("nothing", {"a part": "text"})


def test_the_command_writes_the_readme(tmp_path, monkeypatch):
    for name in ("claims.json", "paper.json", "05-non-robust-features.ipynb", "results/index.json"):
        (tmp_path / "book" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "book" / name).write_text((BOOK / name).read_text())
    path = tmp_path / "README.md"
    marks = [line for name in parts_of(BOOK) for line in (MADE.format(name), "old", END.format(name))]
    path.write_text("\n".join(["Before.", *marks, "After.\n"]))
    monkeypatch.setattr(readme, "BOOK", tmp_path / "book")
    monkeypatch.setattr("sys.argv", ["readme"])
    readme.main()
    written = path.read_text()
    assert written.startswith("Before.\n")
    assert written.endswith("After.\n")
    assert "old" not in written
    assert all(text in written for text in parts_of(BOOK).values())


def test_a_chapter_shows_its_own_claims_and_can_quote_them(monkeypatch):
    glued = {}
    monkeypatch.setattr("advfeat.pages.notebook.glue", glued.__setitem__)
    monkeypatch.delenv("ADVFEAT_RESULTS", raising=False)
    shown = answered("06-transferability").data
    assert shown.count("\n| ") + 1 == 2 + sum(row.chapter == "6" for row in rows_of_book(BOOK, BOOK / "results"))
    assert glued["ch06_verdict_figure3"] == "not established"
    assert glued["ch06_answer_figure3"].startswith("0.76 [")
    assert glued["ch06_answer_figure3_2"].startswith("-0.69 [")
    assert "**not established**" in shown


def test_claims_without_a_record_are_a_sentence_and_a_list_and_no_row_of_dashes(monkeypatch):
    glued = {}
    monkeypatch.setattr("advfeat.pages.notebook.glue", glued.__setitem__)
    claims = [
        {"key": "a", "chapter": "9", "claim": "A", "ids": ["a"], "no_effect": 0.1},
        {"key": "b", "chapter": "9", "claim": "B", "ids": ["b"], "no_effect": 0.1},
    ]

    def shown(*index):
        rows = claim_rows(claims, PAPER, index)
        monkeypatch.setattr("advfeat.pages.notebook.rows_of_book", lambda *_, **__: rows)
        return answered("09-fourier-view").data

    none = shown()
    assert "|" not in none
    assert none.startswith("Nothing of this chapter is recorded on photographs yet")
    assert none.endswith("- A\n- B")
    assert glued["ch09_standing"] in none
    assert glued["ch09_verdict_a"] == verdicts.NOT_RECORDED
    some = shown(recorded("a", 0.5), recorded("a", 0.6, "cifar10-gpu"))  # two profiles of one claim
    assert some.count("\n| A") == 2
    assert some.endswith("photographs:\n\n- B")
    assert "| B" not in some
    assert glued["ch09_standing"].startswith("Records decide 1 of this chapter's 2 claims")
    claims.append({"key": "c", "chapter": "9", "claim": "C", "settled": "proved"})
    assert f"\n\n- C: {verdicts.PROVED}." in shown(recorded("a", 0.5))
    claims.pop()
    every = shown(recorded("a", 0.5), recorded("b", 0.6))
    assert "- B" not in every
    assert glued["ch09_standing"].startswith("Every claim of this chapter is decided")


@pytest.mark.parametrize("path", sorted(BOOK.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_chapter_answers_its_claim_and_says_what_comes_next(path):
    cells = nbformat.read(path, as_version=4).cells
    heads = [
        (place, line)
        for place, cell in enumerate(cells)
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    names = [line for _, line in heads]
    where = names.index("## The claim, answered")
    assert names[where : where + 3] == ["## The claim, answered", "## Next", "## Exercises"]
    first, last = heads[where][0], heads[where + 1][0]
    assert [cell.source for cell in cells[first + 1 : last]] == ["page.answered()"]
    answer = cells[first].source
    assert re.search(r"\{glue:text\}`ch\d\d_(answer|value)_", answer) or path.stem.startswith("07"), answer
    assert re.search(r"\{glue:text\}`ch\d\d_verdict_", answer)
    assert len(set(re.findall(r"\{glue:text\}`(ch\d\d_[^`]+)`", answer))) >= 3, "live, recorded and a verdict"
    assert re.search(r"\]\([\w.-]+\.(ipynb|md)\)", cells[last].source), "names the next chapter"


def test_the_counts_of_the_last_chapter_are_those_of_its_map():
    """They are made with the chapter, the map with the pages: after a new record, `make refresh CHAPTER=14`."""
    shown = front_page.glued(nbformat.read(BOOK / "14-what-to-make-of-it.ipynb", as_version=4))
    rows = [row for row in rows_of_book(BOOK, BOOK / "results") if row.chapter != "13"]
    for word, count in notebook.tallied(rows).items():
        assert shown[f"ch14_{word}"] == str(count), word


def test_a_tally_counts_rows_by_verdict_and_claims_once():
    claims = [
        {"key": key, "chapter": chapter, "claim": "C", "ids": [key], "no_effect": 0.1}
        for key, chapter in (("a", "6"), ("b", "6"), ("c", "9"))
    ]
    index = [recorded("a", 0.5), recorded("a", 0.05, "cifar10-gpu"), recorded("b", 0.1)]
    found = notebook.tallied(claim_rows(claims, PAPER, index))
    assert {word: count for word, count in found.items() if count} == {
        "shown": 1, "contrary": 1, "open": 1, "waiting": 1, "claims": 3, "decided": 2, "lines": 3, "unrecorded": "9"
    }  # fmt: skip
    assert notebook.tallied(claim_rows(claims[:2], PAPER, index))["unrecorded"] == "none"
    floor = {**claims[0], "paper": "table1/D_rand/eps0.25", "no_effect": 0.9, "wanted": "lower"}
    assert notebook.tallied(claim_rows([floor], PAPER, [recorded("a", 0.005)]))["floor"] == 1


@pytest.fixture(scope="module")
def extension():
    specification = importlib.util.spec_from_file_location("verdicts_ext", ROOT / "_ext" / "verdicts.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_number_in_a_sentence_is_the_recorded_one(extension):
    index = [recorded("table1/D", 0.925), recorded("table1/D", 0.5, "cifar10-gpu")]
    assert extension.number("table1/D", index) == "92.5% [91.5%, 93.5%]"
    assert extension.number("table1/D @ cifar10-gpu", index) == "50.0% [49.0%, 51.0%]"
    assert extension.number("table1/D @ planted", index) == "–"


def test_a_number_seed_by_seed_is_that_of_the_record_of_the_most_images(extension, tmp_path):
    def keep(profile, images, data="folder", **values):
        config = {"train_images": images, "data": data}
        runs = {
            seed: {"config": config, "values": {"table1/D": {"value": value, "seed": int(seed) % 9}}}
            for seed, value in values.items()
        }
        (tmp_path / profile).mkdir()
        (tmp_path / profile / "record.json").write_text(json.dumps({"runs": runs}))

    assert extension.by_seed("table1/D", tmp_path) == "–"
    keep("cifar10-cpu", 50_000, **{"10": 0.425, "2": 0.431})
    keep("a-small", 100, **{"0": 0.9})
    assert extension.by_seed("table1/D", tmp_path) == "43.1% and 42.5%"
    assert extension.by_seed("table1/D .0%", tmp_path) == "43% and 42%"
    assert extension.by_seed("table1/D .2f first", tmp_path) == "0.43"
    assert extension.by_seed("table1/D first", tmp_path) == "43.1%"
    assert extension.by_seed("table1/none", tmp_path) == "–"
    assert extension.by_seed("table1/none mean", tmp_path) == "–"
    assert extension.by_seed("table1/D .2% mean", tmp_path) == "42.80%"
    keep("b-larger", 90_000, **{"0": 0.1, "9": 0.3, "1": 0.6})  # two of one network, of seed 0, count once
    assert extension.by_seed("table1/D .0% mean", tmp_path) == "40%"
    keep("c-photographs", 10, "cifar10", **{"0": 0.7})  # the paper's images come first, as in notebook.recorded
    assert extension.by_seed("table1/D .0% mean", tmp_path) == "70%"
    assert extension.PAPERS_DATA == notebook.PAPERS_DATA


def test_a_published_number_is_the_papers(extension):
    assert extension.published("table1/D_rand", PAPER) == "63.3%"
    assert extension.published("table1/D_rand .0%", PAPER) == "63%"
    with pytest.raises(KeyError, match="table1/none"):
        extension.published("table1/none", PAPER)


def glued(chapter):
    """The ids of the numbers that a chapter measures: each is glued where it is measured."""
    return set(re.findall(r'"name": "ch\d\d_([^"]+)"', chapter.read_text()))


def forms_of_ids(chapter):
    """The ids that a chapter forms in its code, with anything in each brace: some it measures on real images only."""
    cells = json.loads(chapter.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    tree = ast.parse(re.sub(r"^%.*", "", code, flags=re.M))
    formed = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = [[part.value if isinstance(part, ast.Constant) else None for part in node.values] for node in formed]
    ids = [of for of in parts if isinstance(of[0], str) and re.match(r"[a-z0-9-]+/", of[0])]
    return [re.compile("".join(".+" if part is None else re.escape(part) for part in of)) for of in ids]


# Measured since the records were made. The page says that a dash stands for a number that is not recorded yet.
NOT_RECORDED = {
    "table1/D_det/after", "table1/control",
    "table1/D_rand/robust-source/learned", "table1/D_rand/robust-source/reached",
}  # fmt: skip


def test_every_number_that_a_chapter_takes_from_its_record_or_the_paper_is_there(extension):
    for path in BOOK.glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        for asked in set(re.findall(r"\{seeds\}`([^`]+)`", text)):
            # A number that is measured from now on: the page says that a dash stands for one that is not recorded yet.
            coming = asked.split()[0] in glued(path)
            assert coming or extension.by_seed(asked, BOOK / "results" / path.stem) != "–", (path.stem, asked)
        for asked in re.findall(r"\{published\}`([^`]+)`", text):
            assert extension.published(asked, PAPER), (path.stem, asked)


def test_every_number_that_a_page_takes_from_the_records_is_there(extension):
    index = json.loads((BOOK / "results" / "index.json").read_text())
    wanted = [key for page in BOOK.glob("*.md") for key in re.findall(r"\{recorded\}`([^`]+)`", page.read_text())]
    assert wanted
    for key in wanted:
        assert extension.number(key, index) != "–", key


@pytest.mark.parametrize("records", [False, True], ids=["none", "committed"])
def test_a_page_with_the_box_builds_strictly(tmp_path, records):
    labels = sorted({claim["figure"] for claim in CLAIMS if claim.get("figure")})
    targets = "\n\n".join(f"({label})=\n## {label}" for label in labels)
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]
    assert config["local_extensions"]["verdicts"] == "_ext"
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / '_ext')!r})\nextensions = ['myst_parser', 'verdicts']\n"
    )
    (tmp_path / "index.md").write_text(
        f"# What\n\nD_det: {{recorded}}`table1/D_det`.\n\n```{{verdicts}}\n```\n\n{targets}\n"
    )
    for name in ("paper.json", "claims.json"):
        (tmp_path / name).write_text((BOOK / name).read_text())
    if records:
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / "index.json").write_text((BOOK / "results" / "index.json").read_text())
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "-E", str(tmp_path), str(tmp_path / "html")]
    environment = {key: value for key, value in os.environ.items() if key != "ADVFEAT_RESULTS"}
    built = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    html = (tmp_path / "html" / "index.html").read_text()
    rows = [row for row in rows_of_book(tmp_path, tmp_path / "results") if row.front]
    assert html.count("<tr ") == len(rows) + 1
    assert ("D_det: 18.6% [13.4%, 23.7%]" in html) == records
    assert ("not reproduced" in html.split("</table>")[0]) == records
    assert "not tried" in html
