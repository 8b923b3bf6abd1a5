"""Progress bars appear where they are meant to appear, and nowhere else."""

import os
import pty
import re
import sys
import types

import pytest

from advfeat.progress import progress


def work(initial=0):
    with progress(total=100, unit="img", description="train", initial=initial) as bar:
        bar.update(100 - initial)
        return bar


def test_a_named_file_gets_the_work_its_rate_and_nothing_else_does(tmp_path, monkeypatch, capfd):
    log = tmp_path / "log"
    monkeypatch.setenv("ADVFEAT_PROGRESS", str(log))
    work(initial=40)
    text = log.read_text()
    assert "train: 100%" in text
    assert re.search(r"100/100 .*img/s", text)
    assert capfd.readouterr() == ("", "")


def test_off_is_silent(monkeypatch, capfd):
    monkeypatch.setenv("ADVFEAT_PROGRESS", "off")
    assert work().disable
    assert capfd.readouterr() == ("", "")


def test_without_a_terminal_or_a_notebook_it_is_silent(monkeypatch, capfd):
    monkeypatch.delenv("ADVFEAT_PROGRESS")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    work()
    assert capfd.readouterr() == ("", "")


def test_in_a_notebook_it_shows_and_goes_away(monkeypatch, capfd):
    monkeypatch.delenv("ADVFEAT_PROGRESS")
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    work()
    shown = capfd.readouterr().err
    assert "train:" in shown
    assert shown.rsplit("\r", 1)[-1].strip() == ""  # the last thing drawn is an empty line


def test_a_terminal_that_is_gone_does_not_end_the_work(monkeypatch, tmp_path):
    monkeypatch.setenv("ADVFEAT_PROGRESS", str(tmp_path / "pts" / "3"))
    assert work().disable


def test_a_terminal_that_goes_away_does_not_end_the_work(monkeypatch):
    ours, theirs = pty.openpty()
    monkeypatch.setenv("ADVFEAT_PROGRESS", os.ttyname(theirs))
    with progress(total=2, unit="img", description="x") as bar:
        os.close(ours)
        os.close(theirs)
        bar.mininterval = 0
        bar.update(2)
    assert bar.fp.closed


def test_the_file_is_closed_when_the_work_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVFEAT_PROGRESS", str(tmp_path / "log"))
    streams = []

    def fail():
        with progress(total=2, unit="img", description="x") as bar:
            streams.append(bar.fp)
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    assert streams[0].closed
