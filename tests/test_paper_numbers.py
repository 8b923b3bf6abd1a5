"""The table of the paper's numbers: recorded numbers stand beside them, gaps are named, and the page builds."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from advfeat.experiments.record_writing import index_rows

ROOT = Path(__file__).resolve().parent.parent
PAPER = json.loads((ROOT / "book" / "paper.json").read_text())


@pytest.fixture(scope="module")
def extension():
    specification = importlib.util.spec_from_file_location("paper_numbers", ROOT / "_ext" / "paper_numbers.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def recorded(key: str, value: float, profile: str) -> dict:
    return {"id": key, "value": value, "low": value - 0.01, "high": value + 0.02, "n": 10_000, "seeds": 2} | {
        "profile": profile
    }


def test_without_records_every_number_has_a_row_that_says_so(extension):
    rows = extension.table_rows(PAPER, [])
    own = [entry for entry in PAPER.values() if entry.get("by", "paper") == "paper"]
    names = [re.sub(r"\{ref\}`(.*) <[a-z0-9-]+>`", r"\1", row[0]) for row in rows]
    assert names == [entry["where"].split(";")[0] for entry in own]
    assert len(set(names)) == len(names)
    for row in rows:
        elsewhere = "Restricted ImageNet" in row[0]
        assert row[2] == (extension.NOT_COMPUTED if elsewhere else extension.MISSING)
    shown = {name: row[1] for name, row in zip(names, rows, strict=True)}
    assert shown["Table 1, CIFAR-10, trained on D_det"] == "43.7%"
    # As many places as the source gives.
    assert shown["Fig. 2b, trained on D_R, ε = 0.25"] == "48%"
    assert shown["Fig. 2b, trained on D, clean"] == "95.25%"
    # Neither a number that others report nor a point of a plot is the paper's number.
    where = [entry["where"] for entry in own]
    doubtful = [words.split(";")[0] for words in where if "second-hand" in words or words.startswith("Fig. 3")]
    assert len(doubtful) == 2 + 11
    assert {name for name in names if shown[name] == "–"} == set(doubtful)


def test_a_record_stands_beside_the_number_of_the_same_data_only(extension):
    index = [
        recorded("table1/D_det", 0.3, "cifar10-cpu"),
        recorded("table1/D_det", 0.4, "cifar10-gpu"),
        recorded("table1/D_det", 0.8, "planted"),
        recorded("table1/D_rand", 0.7, "restricted-imagenet"),
        recorded("fig3/correlation", -0.25, "cifar10-cpu"),
        recorded("table1/D_det/eps0.1", 0.1, "cifar10-cpu"),
    ]
    rows = extension.table_rows(PAPER, index)
    where = "{ref}`Table 1, CIFAR-10, trained on D_det <fig-ch05-table1>`"
    assert [row for row in rows if row[0] == where] == [
        (where, "43.7%", "30.0% [29.0%, 32.0%]", "`cifar10-cpu`, n = 10,000, 2 seeds"),
        (where, "43.7%", "40.0% [39.0%, 42.0%]", "`cifar10-gpu`, n = 10,000, 2 seeds"),
    ]
    ours = {row[0]: row[2] for row in rows}
    assert ours["Table 1, Restricted ImageNet, trained on D_rand"] == "70.0% [69.0%, 72.0%]"
    assert ours["{ref}`Table 1, CIFAR-10, trained on D_rand <fig-ch05-table1>`"] == extension.MISSING
    assert (
        ours["{ref}`Fig. 3, correlation of the two <fig-ch06-fig3>`"] == "-0.25 [-0.26, -0.23]"
    )  # no rate, so no percent


def test_the_table_takes_the_committed_records(extension):
    """A chapter with a record of CIFAR-10 has recorded every number of the paper that the table says it computes."""
    index = index_rows()
    recorded_ids = {row["id"] for row in index if row["profile"].startswith("cifar10")}
    missing = {row[0] for row in extension.table_rows(PAPER, index) if row[2] == extension.MISSING}
    tables = {"table1/": "ch05", "fig2/": "ch04", "fig3/": "ch06"}
    for begin, chapter in tables.items():
        if any(key.startswith(begin) for key in recorded_ids):
            assert not [name for name in missing if f"fig-{chapter}-" in name]


@pytest.mark.parametrize("records", [None, [recorded("table1/D_det", 0.345, "cifar10-cpu")]], ids=["none", "one"])
def test_a_page_with_the_table_builds_strictly(tmp_path, records):
    labels = sorted({entry["computed"] for entry in PAPER.values() if entry.get("computed")})
    targets = "\n\n".join(f"({label})=\n## {label}" for label in labels)
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]
    assert config["local_extensions"]["paper_numbers"] == "_ext"
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / '_ext')!r})\nextensions = ['myst_parser', 'paper_numbers']\n"
    )
    (tmp_path / "index.md").write_text(f"# Numbers\n\n```{{paper-numbers}}\n```\n\n{targets}\n")
    (tmp_path / "paper.json").write_text(json.dumps(PAPER))
    if records:
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / "index.json").write_text(json.dumps(records))
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "-E", str(tmp_path), str(tmp_path / "html")]
    environment = {key: value for key, value in os.environ.items() if key != "ADVFEAT_RESULTS"}
    built = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    html = (tmp_path / "html" / "index.html").read_text()
    own = sum(entry.get("by", "paper") == "paper" for entry in PAPER.values())
    assert html.count("<tr ") == own + 1
    elsewhere = html.count("not in this book")
    assert elsewhere == 3  # Restricted ImageNet
    assert html.count("not recorded yet") == own - elsewhere - len(records or [])
    assert ("34.5% [33.5%, 36.5%]" in html) == bool(records)
    assert 'href="#fig-ch05-table1"' in html
