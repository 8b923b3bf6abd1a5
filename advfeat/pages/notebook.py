"""Verdicts, and tables of published and recorded values, as chapters show them; or the reason why there is none."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.core.formatters import format_display_data
from IPython.display import Markdown, display

from advfeat.autoattack import installed
from advfeat.estimates import Estimate, signless_zero
from advfeat.experiments.making import Trained
from advfeat.experiments.profiles import profile_name
from advfeat.experiments.records import BOOK, Record, engine_of, load_record, readable_records, results_root
from advfeat.experiments.run import Run
from advfeat.experiments.settings import PLACES
from advfeat.measures import accuracy
from advfeat.pages import verdicts
from advfeat.pages.verdicts import ClaimRow, claim_table, rows_of_book
from advfeat.pages.wording import in_words, threat_in_words

PAPERS_DATA = "cifar10"
"""The data set that the paper's numbers are of, with few exceptions."""
PAPER = BOOK / "paper.json"
"""The paper's own numbers: id → value and where it stands."""


def glue(name: str, value: object) -> None:
    """Make a value available to the text of the book as ``name``; without myst-nb (on Colab, say) do nothing."""
    # The output of ``myst_nb.glue(..., display=False)``, without its import, which takes each chapter two seconds.
    if importlib.util.find_spec("myst_nb") is not None:
        shown, about = format_display_data(value)
        about["scrapbook"] = {"name": name, "mime_prefix": (kept := "application/papermill.record/")}
        display({kept + kind: text for kind, text in shown.items()}, raw=True, metadata=about)


def check_record(
    chapter: str,
    *,
    profile: str,
    seed: int = 0,
    parameters: Mapping[str, object] | None = None,
    **settings: Any,
) -> None:
    """Refuse a record that would end the run after hours: another seed with other settings, or a damaged file.

    A record of another chapter that cannot be read ends nothing; a warning names it.

    Args:
        parameters: of the chapter, beyond those of ``Run``; those count that the chapter records.
        settings: arguments of ``Run`` besides the profile.

    Raises:
        ValueError: that is so; the message names the settings, or the file.
    """
    name = profile_name(profile)
    folder = results_root() / chapter / name
    if (folder / "record.json").exists():
        opened = Run(profile, **settings)
        wanted = opened.describe()
        for other, run in load_record(chapter, name).runs.items():
            config = run["config"]
            # Settings that have their default may not be named, here or there.
            named = [*wanted, *(name for name in config if name in PLACES and name not in wanted)]
            differ = [name for name in named if config.get(name) != wanted.get(name)]
            differ += [name for name, value in (parameters or {}).items() if config.get(name, value) != value]
            differ += ["engine"] if engine_of(run) != engine_of({"provenance": opened.provenance}) else []
            if other != seed and differ:
                raise ValueError(
                    f"{folder} holds seed {other} with other settings ({', '.join(differ)}); record this run elsewhere "
                    "(ADVFEAT_RESULTS names the folder), or delete the old record"
                )
    readable_records()


def recorded(chapter: str, *, by: str = "", data: str = "") -> list[Record]:
    """The records of a chapter on one data set, largest profile first; without one, says so and names the command.

    One that cannot be read is left out, with a warning that names it.

    Args:
        by: the command.
        data: the data set, a name of ``datasets.DATASETS``. Default: CIFAR-10, on which the paper's numbers are; where
            that is not recorded, whatever is.
    """
    found = readable_records(chapter)
    asked = [record for record in found if record.data == (data or PAPERS_DATA)]
    found = asked if asked or data else found
    if not found:
        command = by or f"make record CHAPTER={chapter[:2]} PROFILE=cifar10-cpu"
        display(Markdown(f"*Nothing is recorded yet. `{command}` does it.*"))
    return sorted(found, key=lambda record: -max(run["config"].get("train_images", 0) for run in record.runs.values()))


def answered(chapter: str) -> Markdown:
    """The verdicts on a chapter's claims as a table, from the records; its text can quote them.

    Claims without a number of anybody, proved or not recorded yet, stand in lists and not in rows of dashes. Glued for
    each claim ``KEY`` of chapter NN: ``chNN_answer_KEY``, our value with its interval, ``chNN_value_KEY`` without,
    ``chNN_against_KEY``, that of no effect, ``chNN_paper_KEY`` and ``chNN_verdict_KEY``. Where several profiles
    recorded it, those of the second end in ``_2``. ``chNN_standing`` is one sentence for the top of the page: how many
    of the claims records decide.

    Args:
        chapter: stem of the chapter's file.
    """
    number = chapter[:2]
    rows = rows_of_book(BOOK, results_root(), chapter=str(int(number)))
    for place, row in enumerate(rows):
        before = sum(other.key == row.key for other in rows[:place])
        ending = f"{row.key}_{before + 1}" if before else row.key
        glue(f"ch{number}_answer_{ending}", row.ours)
        glue(f"ch{number}_value_{ending}", row.value)
        glue(f"ch{number}_against_{ending}", row.no_effect)
        glue(f"ch{number}_paper_{ending}", row.paper)
        glue(f"ch{number}_verdict_{ending}", row.verdict.replace("*", ""))
    waiting = [row.claim for row in rows if row.verdict == verdicts.NOT_RECORDED]
    known = [row for row in rows if row.verdict != verdicts.NOT_RECORDED]
    numbers = [row for row in known if not row.ours == row.paper == "–"]
    standing = _standing(known, len(waiting))
    glue(f"ch{number}_standing", standing)
    parts = [claim_table(numbers)] if numbers else []
    parts += ["\n".join(f"- {row.claim}: {row.verdict}." for row in known if row not in numbers)]
    if waiting:
        parts += ["Not recorded yet, and open on photographs:" if known else f"{standing} Open on photographs:"]
        parts += ["\n".join(f"- {claim}" for claim in waiting)]
    return Markdown("\n\n".join(part for part in parts if part))


def _standing(known: Sequence[ClaimRow], waiting: int) -> str:
    """How many claims records decide, in a sentence, for ``known`` rows and the number of claims that wait."""
    decided = len({row.key for row in known})
    if not decided:
        return "Nothing of this chapter is recorded on photographs yet: its numbers hold for the planted world only."
    if waiting:
        return (
            f"Records decide {decided} of this chapter's {decided + waiting} claims so far: "
            "the others are tried on the planted world only."
        )
    return "Every claim of this chapter is decided; the verdicts stand at its end."


def tallied(rows: Sequence[ClaimRow]) -> dict[str, int | str]:
    """How many rows have which verdict, by words for a text; ``decided`` counts claims, ``lines`` their rows.

    ``unrecorded`` lists the chapters that have claims, none of them decided.
    """
    words = {"reproduced": verdicts.REPRODUCED, "floor": verdicts.FLOOR, "shown": verdicts.SHOWN}
    words |= {"open": verdicts.NOT_ESTABLISHED, "contrary": verdicts.CONTRARY, "waiting": verdicts.NOT_RECORDED}
    by_word: dict[str, int | str] = {word: sum(row.verdict == of for row in rows) for word, of in words.items()}
    smaller = sum(row.verdict in (verdicts.SMALLER, verdicts.UNCERTAIN) for row in rows)
    waiting = {row.chapter for row in rows if row.verdict == verdicts.NOT_RECORDED}
    none = waiting - {row.chapter for row in rows if row.verdict != verdicts.NOT_RECORDED}
    measured = [row.key for row in rows if row.measured]
    counts = {"claims": len({row.key for row in rows}), "decided": len(set(measured)), "lines": len(measured)}
    return {**by_word, **counts, "smaller": smaller, "unrecorded": ", ".join(sorted(none, key=int)) or "none"}


def spread(values: Iterable[float], spec: str = ".0%") -> str:
    """The smallest and the largest of some values, for a sentence: "12% to 16%"; a dash where there is none."""
    found = list(values)
    written = [format(end, signless_zero(spec)) for end in (min(found), max(found))] if found else ["–"]
    return " to ".join(written)


def autoattack_accuracies(
    run: Run, trained: Trained, *, radii: Sequence[float] = (), required: bool = False
) -> dict[float, Estimate]:
    """Radius → accuracy under AutoAttack, at ``radii`` or else the profile's own; where it is not measured, the page
    says why.

    A profile that asks for no radius is asked for none.

    Raises:
        ModuleNotFoundError: the measurement is ``required``, as for a record, and AutoAttack is not installed.
    """
    profile = run.profile
    if profile.evaluation.autoattack_eps and (required or installed()):
        return {
            eps: accuracy(trained.model, run.autoattack_set(trained, eps))
            for eps in radii or profile.evaluation.autoattack_eps
        }
    if profile.evaluation.autoattack_eps:
        display(Markdown('*AutoAttack is not installed here: `pip install "advfeat[autoattack]"` adds it.*'))
    else:
        display(
            Markdown(f"*AutoAttack takes long, and the profile `{profile.name}` leaves it out; recorded runs do it.*")
        )
    return {}


def published_entries() -> dict[str, Any]:
    """The entries of ``book/paper.json``: id → value, who published it, where, and how it is printed there.

    Raises:
        FileNotFoundError: there is no checkout.
    """
    if not PAPER.exists():
        raise FileNotFoundError(f"{PAPER} is not there: published numbers come with a checkout, not with the package")
    published: dict[str, Any] = json.loads(PAPER.read_text(encoding="utf-8"))
    return published


def paper_values(by: str = "paper") -> dict[str, float]:
    """Published numbers, by the ids of the records: rates in [0, 1], from ``book/paper.json``.

    Results that the paper shows without a number that could be confirmed are not among them.
    ``by`` is ``paper`` for the paper's own, ``library`` for those of the networks that its authors published with
    their library, probably the same ones, or another of the names in that file, for the numbers that others report.
    """
    entries = published_entries()
    return {
        key: entry["value"]
        for key, entry in entries.items()
        if entry.get("by", "paper") == by and entry["value"] is not None
    }


def paper_and_ours(
    records: Sequence[Record],
    rows: Mapping[str, str] | Mapping[str, tuple[str, ...]],
    *,
    by: str = "paper",
    heading: str = "paper",
    names: Sequence[str] = ("trained on",),
    spec: str = ".1%",
) -> pd.DataFrame:
    """One row per id in ``rows`` (id → name): the paper's value, and each record's value, interval, n and seeds.

    An id without a published or a recorded value shows a dash. A value of the paper has as many places as its source
    gives; one that is known only through others says so.

    Args:
        by: who published the values, see ``paper_values``.
        heading: of their column.
        names: of the levels of the index; with several of them a row's name is a tuple.
        spec: format of a published value whose entry does not say how its source prints it.
    """
    paper, entries = paper_values(by), published_entries()

    def published(key: str) -> str:
        if key not in paper:
            return "–"
        text = format(paper[key], entries[key].get("printed", spec))
        return f"{text} (second-hand)" if "second-hand" in entries[key]["where"] else text

    index = pd.Index(list(rows.values())).set_names(list(names))  # of tuples pandas makes several levels
    table = pd.DataFrame({heading: [published(key) for key in rows]}, index=index)
    for record in records:
        for key, name in rows.items():
            if key in record.ids():
                summary = record.summary(key)
                table.loc[name, record.profile] = str(summary)
                table.loc[name, f"n, seeds ({record.profile})"] = f"{summary.n:,}, {summary.seeds}"
    return table.fillna("–")


def recorded_table(record: Record, rows: Mapping[str, Mapping[str, str]], *, spec: str = "") -> pd.DataFrame:
    """One row per name, one column per heading (name → heading → id) of recorded numbers with their intervals.

    The last column, ``n, seeds``, is that of the first id of the row. An id that the record lacks shows a dash, a row
    of such ids is left out.
    """
    known, table = set(record.ids()), {}
    for name, of in rows.items():
        found = {heading: record.summary(key) for heading, key in of.items() if key in known}
        if found:
            first = next(iter(found.values()))
            shown = {heading: format(found[heading], spec) if heading in found else "–" for heading in of}
            table[name] = {**shown, "n, seeds": f"{first.n:,}, {first.seeds}"}
    return pd.DataFrame(table).T


def recorded_list(record: Record, kinds: Iterable[str], *, spec: str = ".1%") -> pd.DataFrame:
    """One row per recorded id whose first part is one of ``kinds``, in words: the number, the attack, n and seeds."""
    table = {}
    for key in record.ids():
        if key.split("/")[0] in kinds:
            item = record.summary(key)
            attack, counted = threat_in_words(item.attack), f"{item.n:,}, {item.seeds}"
            table[in_words(key)] = {"found": f"{item:{spec}}", "attack": attack, "n, seeds": counted}
    return pd.DataFrame(table).T


def recorded_attacks(record: Record, kind: str, attacks: Sequence[str]) -> pd.DataFrame:
    """Accuracies under attack, of ids ``kind/…/epsE``: one row per radius, one column for each of ``attacks`` that was
    recorded, which an id's own words name up to its threat.
    """
    table: dict[str, dict[str, str]] = {}
    for key in record.ids():
        item, parts = record.summary(key), key.split("/")
        if parts[0] == kind and item.attack != "none":
            row = table.setdefault(parts[-1].replace("eps", "ε = "), {})
            row[item.attack.split(", l2")[0]] = f"{item}, n = {item.n:,}"
    found = pd.DataFrame(table).T.sort_index().fillna("–")
    return found[[name for name in attacks if name in found]]
