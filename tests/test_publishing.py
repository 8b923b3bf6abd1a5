"""What publishing needs: equal versions, equal addresses, workflows, and hosted notebooks."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import advfeat
from advfeat.pages import hosted
from advfeat.pages.addresses import Addresses, addresses, pages_of, readdress, tracked

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
ZENODO = json.loads((ROOT / ".zenodo.json").read_text())
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
CHAPTERS = sorted((ROOT / "book").glob("[0-9]*.ipynb"))


def test_the_version_is_the_same_everywhere():
    assert PROJECT["version"] == advfeat.__version__ == str(CITATION["version"]) == ZENODO["version"]
    heads = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == "Unreleased"
    assert len(heads) == 1 or heads[1] == PROJECT["version"]


def test_titles_and_licences_agree():
    assert CITATION["title"] == ZENODO["title"]
    assert CITATION["license"] == PROJECT["license"] == ZENODO["license"].upper()
    assert [one["name"] for one in CITATION["authors"]] == [one["name"] for one in ZENODO["creators"]]
    assert ZENODO["keywords"] == PROJECT["keywords"]


def test_addresses_are_the_same_everywhere():
    repository, pages = addresses()
    assert CONFIG["repository"]["url"] == CITATION["repository-code"] == repository
    assert CONFIG["html"]["baseurl"] == CITATION["url"] == pages
    assert "ogp_site_url" not in CONFIG["sphinx"]["config"], "_ext/previews takes it from html.baseurl"
    assert repository in [of["identifier"] for of in ZENODO["related_identifiers"]]
    for path in (ROOT / "README.md", ROOT / "book" / "intro.md"):
        assert f"git clone {repository}" in path.read_text()


def test_one_command_moves_the_project(tmp_path):
    """The files of the checkout are copied, so this also finds a kind of file that the command would pass over."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("no git checkout")
    every = [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]
    every = [path for path in every if path.parts[:2] != ("book", "results")]
    for path in every:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    old, new = addresses(), Addresses("https://github.com/else/where", "https://book.example.org/")
    changed = readdress(tmp_path, [path for path in tracked(ROOT) if (tmp_path / path).exists()], new)
    assert Path("_config.yml") in changed
    assert addresses(tmp_path) == new
    for path in every:
        data = (tmp_path / path).read_bytes()
        assert old.repository.encode() not in data, path
        assert old.pages.encode() not in data, path
    cell = json.loads((tmp_path / "book" / CHAPTERS[0].name).read_text())["cells"][1]
    assert cell == {**hosted.first_cell(new.repository), "execution_count": 1}


def test_an_address_that_only_begins_like_ours_stays(tmp_path):
    old, _ = addresses()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "page.md").write_text(f"{old} {old}.git {old}/blob/main/a {old}-two")
    readdress(tmp_path, [Path("page.md")], Addresses("https://github.com/me/mine", "https://me.github.io/mine/"))
    new = "https://github.com/me/mine"
    assert (tmp_path / "page.md").read_text() == f"{new} {new}.git {new}/blob/main/a {old}-two"
    with pytest.raises(ValueError, match="slash"):
        readdress(tmp_path, [], Addresses(new, "https://me.github.io/mine"))


def test_pages_lie_where_github_puts_them():
    repository, pages = addresses()
    assert pages_of(repository) == pages
    assert pages_of("https://github.com/Me/My.Book") == "https://me.github.io/My.Book/"
    for bad in ("github.com/me/book", "https://github.com/me", "https://example.org/me/book"):
        with pytest.raises(ValueError, match="OWNER/NAME"):
            pages_of(bad)


# The workflows.


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_actions_are_pinned_to_commits_with_their_version_beside_them():
    for name in WORKFLOWS:
        uses = re.findall(r"uses: (.*)", (ROOT / ".github" / "workflows" / name).read_text())
        assert uses
        for action in uses:
            assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_workflows_may_do_no_more_than_they_must():
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            assert job.get("permissions", {}) == ({"pages": "write", "id-token": "write"} if name == "publish" else {})
            assert job["timeout-minutes"]
        for step in steps(workflow):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
    assert "secrets." not in json.dumps(WORKFLOWS)


def test_workflows_run_the_commands_that_people_type():
    assert [step["run"] for step in steps(WORKFLOWS["ci.yml"]) if "run" in step] == [".ci/run"]
    build, publish = WORKFLOWS["pages.yml"]["jobs"].values()
    assert [step["run"] for step in build["steps"] if "run" in step] == ["make book"]
    (folder,) = [step["with"]["path"] for step in build["steps"] if "upload-pages" in step.get("uses", "")]
    assert f"PAGES := {folder}\n" in (ROOT / "Makefile").read_text()
    assert publish["needs"] == "build"
    # YAML reads `on` as true. Pages of a pull request are built by the tests, and never published.
    assert set(WORKFLOWS["pages.yml"][True]) == {"push", "workflow_dispatch"}
    assert WORKFLOWS["pages.yml"][True]["push"]["branches"] == [CONFIG["repository"]["branch"]]


# Hosted notebooks.


def test_every_chapter_begins_with_the_same_cell_for_hosted_notebooks():
    for path in CHAPTERS:
        cells = json.loads(path.read_text())["cells"]
        assert cells[1] == {**hosted.first_cell(addresses().repository), "execution_count": 1}, (
            "python -m advfeat.pages.hosted"
        )
        assert [cell["id"] for cell in cells].count("hosted") == 1


def test_the_cell_is_written_once_and_the_cells_behind_it_are_counted_anew(tmp_path):
    code = {"cell_type": "code", "id": "a", "metadata": {}, "source": "1"}
    ran = {**code, "execution_count": 1, "outputs": [{"output_type": "execute_result", "execution_count": 1}]}
    title = {"cell_type": "markdown", "id": "t", "metadata": {}, "source": "# T"}
    path = tmp_path / "01-a.ipynb"
    path.write_text(json.dumps({"cells": [title, ran]}))
    assert hosted.write_first_cells(tmp_path, "https://github.com/me/one") == [path]
    assert hosted.write_first_cells(tmp_path, "https://github.com/me/one") == []
    assert hosted.write_first_cells(tmp_path, "https://github.com/me/two") == [path]
    cells = json.loads(path.read_text())["cells"]
    assert [cell["id"] for cell in cells] == ["t", "hosted", "a"]
    assert [cell["execution_count"] for cell in cells[1:]] == [1, 2]
    assert cells[2]["outputs"][0]["execution_count"] == 2
    assert "me/two" in "".join(cells[1]["source"])
    # A chapter that was not run yet stays so.
    new = hosted.with_first_cell({"cells": [title, {**code, "execution_count": None, "outputs": []}]}, "x")["cells"]
    assert [cell["execution_count"] for cell in new[1:]] == [None, None]


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The commands that a cell asks for, in an empty folder; none of them runs."""
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.append(command))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return asked


SOURCE = "".join(hosted.first_cell("https://github.com/me/book")["source"])


def test_where_the_library_is_installed_the_cell_does_nothing(commands):
    before, names = list(sys.path), {}
    exec(SOURCE, names)
    assert not commands
    assert sys.path == before
    assert not {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_where_it_is_not_installed_the_cell_fetches_and_installs_it(commands, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    exec(SOURCE, {})
    book = str(tmp_path / hosted.CLONE)
    clone, install = commands
    assert clone[:2] == ["git", "clone"]
    assert clone[-2:] == ["https://github.com/me/book", book]
    assert install[:4] == [sys.executable, "-m", "pip", "install"]
    assert install[-2:] == ["-e", book]
    assert sys.path[0] == book, "an editable install is found by the next process only"
    # A second try, after an install that failed, does not clone into a folder that is there.
    (tmp_path / hosted.CLONE).mkdir()
    (tmp_path / hosted.CLONE / "pyproject.toml").write_text("")
    commands.clear()
    exec(SOURCE, {})
    assert commands == [install]


def test_every_package_of_the_library_is_installed():
    """Without a checkout a package that is not listed would be missing."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "advfeat").rglob("__init__.py")}
    assert set(listed) == found


def test_the_clone_is_not_taken_for_the_library(tmp_path):
    """A folder named like the package would be found as a package without contents, and nothing be installed."""
    (tmp_path / hosted.CLONE).mkdir()
    code = "import importlib.util; print(importlib.util.find_spec('advfeat'))"
    command = [sys.executable, "-S", "-c", code]  # -S: without the packages of this environment
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    found = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=True)
    assert found.stdout == "None\n"


def test_the_cell_fits_a_page_and_is_on_none():
    assert max(map(len, SOURCE.splitlines())) <= 92
    assert hosted.first_cell("x")["metadata"]["tags"] == ["remove-cell"]


def test_chapters_are_opened_on_colab_and_binder():
    assert set(CONFIG["launch_buttons"]) == {"notebook_interface", "colab_url", "binderhub_url"}
    assert not CONFIG["repository"]["path_to_book"]


def test_binder_installs_the_book_with_a_python_that_it_supports():
    environment = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text())
    (python,) = [one.removeprefix("python=") for one in environment["dependencies"] if one.startswith("python=")]
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    assert int(low) <= int(python.removeprefix("3.")) < int(high)
    build = ROOT / ".binder" / "postBuild"
    assert os.access(build, os.X_OK), "Binder runs it as a program"
    (line,) = [line for line in build.read_text().splitlines() if "pip install" in line]
    assert set(re.search(r"\.\[([\w,]+)\]", line)[1].split(",")) <= set(PROJECT["optional-dependencies"])
    assert "-c constraints.txt" in line
    assert subprocess.run(["bash", "-n", str(build)], check=False).returncode == 0
