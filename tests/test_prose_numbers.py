"""No measured number is typed into the prose: each is glued, made by a directive, or on the short list below.

Prose means the text of the pages: the Markdown of chapters, pages and README, captions of figures and descriptions.
Code, formulas, roles (a glued number is one) and the generated part of the README are left out. A number that a person
typed is wrong after the next run, and nobody notices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.myst_role import myst_role_plugin

from advfeat.experiments.profiles import PROFILES
from advfeat.pages.readme import END, MADE, parts_of

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
MYST = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, double_inline=True)
MYST = MYST.use(myst_role_plugin).use(colon_fence_plugin)

COUNT = (
    r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty|"
    r"seventy|eighty|ninety|a\ hundred)"
)
PART = r"(?:third|quarter|fifth|sixth|seventh|eighth|ninth|tenth|\w+teenth|twentieth|hundredth|thousandth)"
MEASURED = re.compile(
    rf"""(?ix)
      (?: \d[\d.,]* | \b{COUNT} ) \s? (?: % | per\ ?cent\b )                         # 86 %, one percent
    | (?<! section\ ) (?<! Python\ ) \b \d+ \. \d+ \b                               # 82.6
    | \b {COUNT} [\ -] {PART}s? \b                                                   # nineteen twentieths
    | \b (?: (?: nearly | about | almost | over | under | only | up\ to ) \  )? an?\ {PART}
      (?= \ of\b | \ lie | \ are\b | \ is\b | [.,;)] )                              # nearly a quarter
    | \b (?: about | nearly | almost | roughly ) \ half \ of \b
    | \b (?: [1-9]\d* | {COUNT} ) \ (?: \w+ \  )? (?: in | out\ of ) \ (?: an? \  | every \  )?
      (?: {COUNT} | hundred | thousand ) \b                                           # four in five
    | \b (?: \d+ | {COUNT} ) \ times \b                                              # sixty times
    | \b twice \ (?: as | the ) \b
    | \b {COUNT} \ to \ one \b                                                       # two to one
    | (?<! [×,.\d] ) (?: \b half\ a | \b (?: about | some | by | nearly ) \ {COUNT} | \b \d+ )
      \ (?: percentage\  )? points? \b                                               # half a point
    | \b (?: \d+ | {COUNT} ) \ (?: seconds? | minutes? | hours? ) \b | \b an? \ (?: minute | hour ) \b
    """
)
CONVENTION = re.compile(r"95 ?%(?= intervals?\b|, for a share)|(?<=together with )95 ?%")  # the level of the intervals


def settings() -> set[str]:
    """Radii that a profile attacks or trains with, as a text writes them: chosen, not measured."""
    chosen = {
        value
        for profile in PROFILES.values()
        for field in ("eps", "match_eps", "eval_eps", "curve_eps", "robust_eps", "autoattack_eps")
        for value in _values(profile.recorded()[field])
    }
    return {f"{value:g}" for value in chosen}


def _values(field: object) -> tuple[float, ...]:
    return tuple(field) if isinstance(field, tuple | list) else (field,)


CHANCE = "the rate of an answer that ignores the image, one of ten classes or one of nine wrong ones"
WORLD = "a number of the planted world or of a network in it, chosen and written in the code"
SETTING = "a number of a recipe, a rule or a benchmark, chosen and not measured"
EXAMPLE = "a worked example: the numbers are made up, or follow from each other"
COUNTED = "arithmetic that the reader can do, from numbers in the text or in the code beside it"
PROVED = "follows from a formula of the chapter"
VERSION = "a version of a program"
PLAN = "time that a teacher plans, a limit that is set, or an order of magnitude to plan with"
SOURCE = "how precisely others read the plot"

# Page → phrase as it stands there → why it may be typed.
ALLOWED: dict[str, dict[str, str]] = {
    "README": {
        "Python 3.11 to 3.14": VERSION,
        "2.11 or later": VERSION,
        "from 2.12 on only on macOS": VERSION,
        "is 2.2.2, and this library needs 2.11": VERSION,
        "some ten minutes": PLAN,
        "twice as wide": SETTING,
        "within three minutes": PLAN,
        "0.6 GB for 50,000 images": COUNTED,
    },
    "instructors": {
        "Python 3.11 to 3.14": VERSION,
        "Linux 5.12 or later": VERSION,
        "5.13 or later": VERSION,
        "Landlock from 6.7 on": VERSION,
        "from Linux 6.12 on": VERSION,
        "refused from 6.12 on": VERSION,
        "six meetings of ninety minutes": PLAN,
        "within three minutes": PLAN,
        "90 minutes": PLAN,
        "two times": PLAN,
        "within two minutes": PLAN,
        "longer than a minute in one cell, or three minutes in all": PLAN,
    },
    "intro": {"at most three minutes": PLAN, "one time in ten": CHANCE},
    "every-number": {"twice as wide": SETTING},
    "notation": {"one in ten": CHANCE},
    "01-adversarial-examples": {
        "twelve times as strong": SETTING,
        "about one picture in ten": WORLD,
        "about nine times in ten": WORLD,
        "by up to 1.7": WORLD,
        "amplified ten times": SETTING,
    },
    "02-features-model": {
        "The threshold 0.2": SETTING,
        "within a tenth of it": SETTING,
        "One image in a hundred": WORLD,
        "one image in a hundred": WORLD,
        "ten times as large": EXAMPLE,
    },
    "03-standard-and-robust-training": {
        "of length 0.3 and": WORLD,
        "eight times as strong": SETTING,
        "five times as far as twenty": COUNTED,
        "twice as large": SETTING,
        "three times as high": SETTING,
    },
    "04-robust-datasets": {
        "one in ten does": CHANCE,
        "say to 100%": EXAMPLE,
        "on a fifth of the images": SETTING,
        "four times as long": SETTING,
    },
    "05-non-robust-features": {
        "amplified ten times": SETTING,
        "ten times as strong": SETTING,
        "one time in ten, as random labels must": CHANCE,
        "One in ten": CHANCE,
    },
    "06-transferability": {
        "a boost of 1.7": WORLD,
        "agree in 11%": CHANCE,
        "chance would give 11%": CHANCE,
        "to about 0.3 points": SOURCE,
        "immune and 90% accurate shows about 10%": EXAMPLE,
        "70% accuracy seems to be fooled by 30%": EXAMPLE,
    },
    "07-gaussian-theory": {
        "crosses zero at 0.3": PROVED,
        "of trace 3.9": EXAMPLE,
        "diag(3, 0.2, 0.7)": EXAMPLE,
        "between 0.2 and 3": EXAMPLE,
        "eigenvalues 0.2 and half 3": EXAMPLE,
        "between 0.05 and 3": EXAMPLE,
    },
    "08-robust-representations": {
        "exceeds on 2%": SETTING,
        "four times the steps": SETTING,
        "a tenth of it is enough": SETTING,
    },
    "09-fourier-view": {
        "by an eighth of a period": PROVED,
        "a quarter of a period": PROVED,
        "agree on a quarter of the images": PROVED,
        "four times as long": SETTING,
    },
    "10-bugs-or-features": {"eight times as strong": SETTING},
    "12-honest-evaluation": {
        "five times the steps": SETTING,
        "twice as many passes as steps": PROVED,
    },
    "11-beyond-cifar10": {
        "ten times their texture": SETTING,
        "five times as large": SETTING,
        "Guessing has one in ten": CHANCE,
        "about half of all": WORLD,
        "a texture of length 0.3": WORLD,
    },
    "13-fast-attacks": {
        "A third of the arithmetic": COUNTED,
        "a third of the arithmetic": COUNTED,
        "a quarter of the multiplications": COUNTED,
        "A quarter of the multiplications": COUNTED,
        "four times as much. Three layers": COUNTED,
        "to 0.2 points": SETTING,
    },
}


def said(markdown: str) -> Iterator[str]:
    """The paragraphs, heads and cells of tables of a text, without code, formulas and roles."""
    for token in MYST.parse(markdown):
        if token.type in ("fence", "colon_fence") and token.info.startswith("{"):
            name, _, title = token.info[1:].partition("}")
            if not name.startswith(("math", "code")):
                yield title.strip()
                yield from said(re.sub(r"\A(?:\s*:[\w-]+:.*\n)+", "", token.content))
        elif token.type == "inline":
            words = {"text": None, "softbreak": " ", "hardbreak": " "} | dict.fromkeys(NO_PROSE, "·")
            yield "".join(words[of.type] or of.content for of in token.children or () if of.type in words)


NO_PROSE = ("code_inline", "math_inline", "math_inline_double", "myst_role")


def pages() -> dict[str, list[str]]:
    """Name of a page → its prose, piece by piece."""
    found = {path.stem: list(said(path.read_text())) for path in BOOK.glob("*.md")}
    readme = (ROOT / "README.md").read_text()
    for name in parts_of(BOOK):
        before, _, rest = readme.partition(MADE.format(name))
        readme = before + rest.partition(END.format(name))[2]
    found["README"] = list(said(readme))
    for path in BOOK.glob("*.ipynb"):
        pieces = []
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                pieces += said(cell.source)
            shown = cell.metadata.get("mystnb", {})
            pieces += [shown.get("figure", {}).get("caption", ""), shown.get("image", {}).get("alt", "")]
            pieces.append(cell.metadata.get("shows", ""))
        found[path.stem] = pieces
    return found


def typed(pieces: list[str], allowed: dict[str, str]) -> list[str]:
    """Every measured-looking number that no allowed phrase covers, with the words around it."""
    chosen, found = settings(), []
    for piece in pieces:
        covered = [match.span() for phrase in allowed for match in re.finditer(re.escape(phrase), piece)]
        covered += [match.span() for match in CONVENTION.finditer(piece)]
        for match in MEASURED.finditer(piece):
            inside = any(start <= match.start() and match.end() <= end for start, end in covered)
            if not inside and match.group() not in chosen:
                start = max(0, match.start() - 40)
                found.append(f"{match.group()!r} in …{piece[start : match.end() + 40]}…")
    return found


PAGES = pages()


@pytest.mark.parametrize("page", sorted(PAGES))
def test_no_measured_number_is_typed(page):
    assert not typed(PAGES[page], ALLOWED.get(page, {})), "glue it, take it from the records, or give a reason"


def test_the_list_is_short_and_holds_only_what_is_there():
    assert set(ALLOWED) <= set(PAGES)
    for page, phrases in ALLOWED.items():
        text = "\n".join(PAGES[page])
        assert not [phrase for phrase in phrases if phrase not in text], page
        assert all(phrases.values())
        for phrase in phrases:  # each is needed
            fewer = {key: why for key, why in phrases.items() if key != phrase}
            assert typed(PAGES[page], fewer), (page, phrase)
    assert sum(map(len, ALLOWED.values())) <= 80


@pytest.mark.parametrize(
    "sentence",
    [
        "It is right on 86 % after 91.5%.",
        "on 82.6 and 61.4 % of them",
        "with 10 of a class nearly a quarter lie past the threshold",
        "with 50 about one in a hundred",
        "Only four in five are reached.",
        "Nineteen twentieths of a step are convolutions.",
        "a source network with one seventeenth of the multiply-adds",
        "ahead by up to an eighth.",
        "1.3 times as fast",
        "sixty times the radius",
        "a third of the answers",
        "it took eight minutes on one core",
        "It takes an hour.",
        "half a point less",
        "the curves are about five points too high",
        "the visible wins two to one",
        "less than one percent",
        "it rises from 2.2 and 2.5",
        "twice as often",
        "| trained on | accuracy |\n|---|---|\n| D | 92.5% |",
        ":::{note}\nIt scores 47 % here.\n:::",
        "```{admonition} Found\nIt scores 47 % here.\n```",
        "::::{exercise} One\n:label: ex-one\n\n:::{note}\nIt scores 47 % here.\n:::\n::::",
    ],
)
def test_a_typed_number_is_found_in_every_form_that_has_occurred(sentence):
    assert typed(list(said(sentence)), {})


@pytest.mark.parametrize(
    "sentence",
    [
        "It is right on {glue:text}`ch05_rand` of the images, {recorded}`table1/D_rand` on photographs.",
        "```python\nprint('86 %')\n```",
        "Take $\\epsilon=0.25$, about $0.06$ of it; `eps=0.3` in code.",
        "at 0.5, within 0.25 and 2.5, all radii of a profile",
        "Brackets hold a 95% interval.",
        "section 3.2, with Python 3.11",
        "a second network, the third row, two of them, one in the middle, a third thing",
        "squares of 2×2 points and 20,000 points",
    ],
)
def test_what_is_no_typed_measurement_passes(sentence):
    assert not typed(list(said(sentence)), {})


def test_an_allowed_phrase_allows_itself_only():
    sentence = "A rule fails on more than 5 % of a hundred, and here on 7 %."
    assert len(typed([sentence], {"more than 5 %": "the rule"})) == 1
