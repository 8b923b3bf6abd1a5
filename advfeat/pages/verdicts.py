"""The verdict on each of the book's claims, by one rule, from the records alone.

A claim (``book/claims.json``) names recorded numbers, their values if there were no effect, and the published number if
one is confirmed: the paper's, or that of a work that answers it. The front page, the README and the end of every
chapter show the same verdicts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOT_TRIED = "**not tried**"
NOT_RECORDED = "not recorded yet"
PROVED = "proved, and checked by simulation"
NOT_ESTABLISHED = "**not established**"
CONTRARY = "**the other way round**"
REPRODUCED = "reproduced"
FLOOR = "the same floor"
UNCERTAIN = "same direction, size uncertain"
SMALLER = "same direction, smaller: the published size is **not reproduced**"
SHOWN = "shown"

_SETTLED = {"not tried": NOT_TRIED, "proved": PROVED}

RULE = (
    "A verdict follows from the 95% interval of our value, by one rule. *Not established*: the interval contains the "
    "value of no effect, or overlaps its interval. *The other way round*: the interval lies on the wrong side of no "
    "effect. *Reproduced*: it lies on the right side, nearer to the published number than to no effect, and reaches "
    "that number or goes beyond it. *The same floor*: so it is, and the published number is zero: nothing is left "
    "there and nothing here, and no size was met. *Same direction, smaller*: the interval ends before the published "
    "number, so the size is not reproduced. *Same direction, size uncertain*: it reaches the published number, but "
    "also the half of the way that is nearer to no effect. *Shown*: it lies on the right side, and there is no "
    "confirmed published number to compare it with. A claim about several networks must be true of each."
)
"""The rule, in words, as the front page prints it."""

HEADER = ("claim", "ours [95% interval]", "no effect", "published", "verdict")


@dataclass(frozen=True)
class Comparand:
    """A number that a claim compares, with its 95% interval. The interval of an exact number is the number itself."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Comparand:
        """A number without error."""
        return cls(value, value, value)


@dataclass(frozen=True)
class ClaimRow:
    """One claim at one profile, as it is shown.

    ``key`` names the claim, ``chapter`` is the number of its chapter as text, ``front`` says whether the front page
    shows it, ``label`` is the label of the figure that computes it, or empty, and ``value`` is our value without its
    interval. ``measured``, ``against``, ``published`` and ``wanted`` are the arguments of ``decide``, as numbers; a
    claim that no record decides has none. ``by`` is who published ``paper``, if not the paper itself or its authors.
    """

    key: str
    chapter: str
    front: bool
    claim: str
    label: str
    value: str
    ours: str
    no_effect: str
    paper: str
    verdict: str
    profile: str = ""
    measured: tuple[Comparand, ...] = ()
    against: tuple[Comparand, ...] = ()
    published: float | None = None
    wanted: str = "higher"
    by: str = ""


def decide(
    ours: Sequence[Comparand],
    no_effect: Sequence[Comparand],
    *,
    wanted: str = "higher",
    paper: float | None = None,
    rounding: float = 0.0,
) -> str:
    """The verdict on one claim, by ``RULE``.

    Args:
        ours: our values, one interval for each network that the claim is about.
        no_effect: the values without an effect: one for each of ``ours``, or one for all of them, or several for a
            single one of ours, which then has to differ from each.
        wanted: ``higher`` or ``lower``: the side of no effect on which the claim places our value.
        paper: the published number, or None. It is compared with a single value of ours. One of zero that is wanted
            ``lower`` is a floor: rates do not go below it, so any network that has nothing left reaches it.
        rounding: half of the last place of the published number.

    Raises:
        ValueError: ``wanted`` is another word, ``ours`` or ``no_effect`` is empty, the counts do not fit, or a number
            of the paper is given for several of ours.
    """
    if wanted not in ("higher", "lower"):
        raise ValueError(f"wanted must be 'higher' or 'lower', got {wanted!r}")
    if not ours or not no_effect or not (len(ours) == len(no_effect) or 1 in (len(ours), len(no_effect))):
        raise ValueError(
            f"ours and no_effect must be as many, or one of them a single one; got {len(ours)} and {len(no_effect)}"
        )
    if paper is not None and len(ours) > 1:
        raise ValueError(f"paper is one number, and stands beside one of ours, got {len(ours)}")
    sign = 1 if wanted == "higher" else -1
    count = max(len(ours), len(no_effect))
    measured, nothing = ([*of] * (count // len(of)) for of in (ours, no_effect))
    # Along the wanted direction: each interval from its weak end to its strong end.
    pairs = [((_along(one, sign)), (_along(other, sign))) for one, other in zip(measured, nothing, strict=True)]
    if all(strong < weak_of_none for (_, strong), (weak_of_none, _) in pairs):
        return CONTRARY
    if not all(weak > strong_of_none for (weak, _), (_, strong_of_none) in pairs):
        return NOT_ESTABLISHED
    if paper is None:
        return SHOWN
    weak, strong = pairs[0][0]
    if strong < sign * paper - rounding:
        return SMALLER
    middle = sign * (paper + max(no_effect, key=lambda of: sign * of.value).value) / 2
    if weak <= middle:
        return UNCERTAIN
    return FLOOR if wanted == "lower" and paper <= rounding else REPRODUCED


def _along(interval: Comparand, sign: int) -> tuple[float, float]:
    ends = sorted((sign * interval.low, sign * interval.high))
    return ends[0], ends[1]


def claim_rows(
    claims: Sequence[Mapping[str, Any]], paper: Mapping[str, Mapping[str, Any]], index: Sequence[Mapping[str, Any]]
) -> list[ClaimRow]:
    """One row per claim and profile that recorded it; a claim that no profile recorded gets one row that says so.

    Args:
        claims: each with ``key``, ``chapter``, ``claim``, and ``ids`` of recorded numbers; ``no_effect``, a number or
            ids (also one per entry of ``ids``); optionally ``wanted`` (default: higher), ``paper`` (an id of
            ``paper``), ``format``, ``figure``, ``front`` (false: not on the front page), ``profile`` (how its name
            begins, default: ``cifar10``) and ``settled``, for a claim that no record decides: ``not tried`` or
            ``proved``; ``papers`` are then the ids of the paper's numbers.
        paper: the entries of ``paper.json``.
        index: the rows of ``index.json``.

    Raises:
        ValueError: a claim names a number of the paper that is not confirmed.
    """
    known = {(row["id"], row["profile"]): Comparand(row["value"], row["low"], row["high"]) for row in index}
    rows = []
    for claim in claims:
        published, printed, rounding = "–", None, 0.0
        if claim.get("paper"):
            published, printed, rounding = published_value(paper, claim["paper"])
        about = {
            "key": claim["key"], "chapter": claim["chapter"], "front": claim.get("front", True),
            "claim": claim["claim"], "label": claim.get("figure", ""), "paper": published,
            "by": _other_publisher(paper, claim.get("paper", "")),
        }  # fmt: skip
        if "settled" in claim:
            # The paper's numbers are shown even without a record of ours.
            numbers = ", ".join(published_value(paper, key)[0] for key in claim.get("papers", ()))
            about["paper"] = numbers or "–"
            rows.append(ClaimRow(**about, value="–", ours="–", no_effect="–", verdict=_SETTLED[claim["settled"]]))
            continue
        spec, begins = claim.get("format", ".1%"), claim.get("profile", "cifar10")
        profiles = sorted({str(row["profile"]) for row in index if str(row["profile"]).startswith(begins)})
        found = [at for at in profiles if all((key, at) in known for key in (*claim["ids"], *_no_effect_ids(claim)))]
        if not found:
            rows.append(ClaimRow(**about, value="–", ours="–", no_effect="–", verdict=NOT_RECORDED))
        for at in found:
            ours, against = ([known[key, at] for key in ids] for ids in (claim["ids"], _no_effect_ids(claim)))
            against = against or [Comparand.exactly(claim["no_effect"])]
            rows.append(
                ClaimRow(
                    **about,
                    value=_range(ours, spec),
                    ours=_range(ours, spec) if len(ours) > 1 else _written(ours[0], spec),
                    no_effect=_range(against, spec),
                    verdict=decide(
                        ours, against, wanted=claim.get("wanted", "higher"), paper=printed, rounding=rounding
                    ),
                    profile=at,
                    measured=tuple(ours),
                    against=tuple(against),
                    published=printed,
                    wanted=claim.get("wanted", "higher"),
                )
            )
    return rows


def _no_effect_ids(claim: Mapping[str, Any]) -> list[str]:
    """Ids of the recorded numbers that stand for no effect; none if no effect is a plain number."""
    return [] if isinstance(claim["no_effect"], int | float) else list(claim["no_effect"])


def published_value(paper: Mapping[str, Mapping[str, Any]], key: str) -> tuple[str, float, float]:
    """A confirmed number of the paper as it is printed, the number, and half of its last place."""
    entry = paper[key]
    if entry["value"] is None or "second-hand" in entry["where"]:
        raise ValueError(f"{key} is no confirmed number of the paper, so no claim can be compared with it")
    spec = entry.get("printed", ".1%")
    places = int(re.sub(r"\D", "", spec) or 0) + (2 if spec.endswith("%") else 0)
    return format(entry["value"], spec), float(entry["value"]), 0.5 * 10**-places


def _other_publisher(paper: Mapping[str, Mapping[str, Any]], key: str) -> str:
    """Who published a number if neither the paper nor its authors' library did, as a name; otherwise nothing."""
    by = str(paper[key].get("by", "paper")) if key else "paper"
    return "" if by in ("paper", "library") else by.capitalize()


def _written(of: Comparand, spec: str) -> str:
    spec = f"z{spec}"
    return f"{of.value:{spec}} [{of.low:{spec}}, {of.high:{spec}}]"


def _range(several: Sequence[Comparand], spec: str) -> str:
    """The smallest and the largest value, joined by "to"; a single value as it is."""
    written = [format(of.value, f"z{spec}") for of in sorted(several, key=lambda of: of.value)]
    return written[0] if written[0] == written[-1] else f"{written[0]} to {written[-1]}"


def claim_table(rows: Sequence[ClaimRow], *, links: bool = False, chapters: bool = False) -> str:
    """The rows as a Markdown table; a claim that several profiles recorded says which.

    Args:
        links: whether a claim links to the figure that computes it, by a role that only the pages of the book know.
        chapters: whether a claim is followed by the number of its chapter.
    """
    lines: list[Sequence[str]] = [HEADER, ("---",) * len(HEADER)]
    several = {row.key for row in rows if sum(row.key == other.key for other in rows) > 1}
    for row in rows:
        claim = f"{{ref}}`{row.claim} <{row.label}>`" if links and row.label else row.claim
        claim += f" (chapter {row.chapter})" if chapters else ""
        claim += f", `{row.profile}`" if row.key in several else ""
        published = f"{row.paper} ({row.by})" if row.by else row.paper
        lines.append((claim, row.ours, row.no_effect, published, row.verdict))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def claim_map(rows: Sequence[ClaimRow], documents: Mapping[str, str]) -> str:
    """Chapter, claim, evidence and verdict of each row as a Markdown table, with links that only the book's pages know.

    The evidence is our value and that of no effect, and the published number where there is one.

    Args:
        documents: number of a chapter → name of its page.
    """
    lines = [("chapter", "claim", "evidence", "verdict"), ("---",) * 4]
    several = {row.key for row in rows if sum(row.key == other.key for other in rows) > 1}
    for row in sorted(rows, key=lambda row: int(row.chapter)):
        claim = f"{{ref}}`{row.claim} <{row.label}>`" if row.label else row.claim
        claim += f", `{row.profile}`" if row.key in several else ""
        evidence = [] if row.ours == "–" else [f"{row.ours} against {row.no_effect}"]
        evidence += [] if row.paper == "–" else [f"{row.by or 'paper'} {row.paper}"]
        lines.append(
            (f"{{doc}}`{row.chapter} <{documents[row.chapter]}>`", claim, "; ".join(evidence) or "–", row.verdict)
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rows_of_book(book: Path, results: Path, *, chapter: str = "") -> list[ClaimRow]:
    """The rows for the folder of a book and the folder of its records; of one ``chapter`` (its number), or of all."""
    claims, paper = (json.loads((book / name).read_bytes()) for name in ("claims.json", "paper.json"))
    index = results / "index.json"
    recorded = json.loads(index.read_bytes()) if index.exists() else []
    return claim_rows([of for of in claims if chapter in ("", of["chapter"])], paper, recorded)
