"""The way out of Jupyter Book 1 stays open: MyST's own engine reads the whole book once the roles are text."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from myst_translation import translate

pytestmark = pytest.mark.myst


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    engine = os.environ.get("ADVFEAT_MYST")
    if not engine:
        pytest.fail("ADVFEAT_MYST must name MyST's engine; `make myst` does so")
    folder = tmp_path_factory.mktemp("myst")
    became = translate(folder)
    # Its Node and npm are beside it. --strict: an error ends it.
    path = os.pathsep.join((str(Path(engine).parent), os.environ["PATH"]))
    command = [engine, "build", "--site", "--strict", "--ci"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    return folder, became, done.returncode, done.stdout + done.stderr


def test_it_reads_every_page_without_a_warning(built):
    folder, _, code, said = built
    assert code == 0, said
    complaints = [line for line in said.splitlines() if "⛔" in line or "⚠" in line]
    assert not complaints, "\n".join(complaints)
    read = {Path(page["location"]).name for page in pages_of(folder)}
    assert read == {path.name for path in (folder / "book").iterdir() if path.is_file() and path.suffix != ".bib"}


def test_every_number_of_the_text_stands_in_it(built):
    folder, became, _, _ = built
    assert sum(map(len, became.values())) > 900
    checked = 0
    for page in pages_of(folder):
        text = " ".join(texts(page["mdast"]))
        assert "{glue:text}" not in text
        for shown in became.get(Path(page["location"]).stem, []):
            if re.fullmatch(r"[\d.,% ]*\d%?", shown):  # in words it sets quotation marks of its own
                assert shown in text, (page["location"], shown)
                checked += 1
    assert checked > 500


def pages_of(folder):
    return [json.loads(path.read_text()) for path in (folder / "_build" / "site" / "content").glob("*.json")]


def texts(node):
    if isinstance(node.get("value"), str):
        yield node["value"]
    for child in node.get("children", ()):
        yield from texts(child)
