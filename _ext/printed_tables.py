"""A table in HTML, as pandas writes it, read into the nodes of a table."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

from docutils import nodes


class _Reader(HTMLParser):
    """Rows of (is a heading, text, columns, rows) for each table."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[list[list[tuple[bool, str, int, int]]]] = []
        self.heads: list[int] = []
        self.cell: list[str] | None = None
        self.span = (1, 1)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by the parser."""
        given = dict(attrs)
        if tag == "table":
            self.tables.append([])
            self.heads.append(0)
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = []
            self.span = (int(given.get("colspan") or 1), int(given.get("rowspan") or 1))

    def handle_endtag(self, tag: str) -> None:
        """Called by the parser."""
        if tag in ("td", "th"):
            self.tables[-1][-1].append((tag == "th", "".join(self.cell or []).strip(), *self.span))
            self.cell = None
        elif tag == "thead":
            self.heads[-1] = len(self.tables[-1])

    def handle_data(self, data: str) -> None:
        """Called by the parser."""
        if self.cell is not None:
            self.cell.append(data)


Cell = tuple[str, int, int]


def grid(html: str) -> list[tuple[list[list[Cell]], list[list[Cell]]]]:
    """Head and body of each table: rows of (text, columns, rows).

    pandas writes the names of the index into a row of its own, below those of the columns; they move up into it.
    """
    reader = _Reader()
    reader.feed(html)
    reader.close()
    found = []
    for table, heads in zip(reader.tables, reader.heads, strict=True):
        rows = [[(text, columns, lines) for _, text, columns, lines in row] for row in table]
        head, body = rows[:heads], rows[heads:]
        if len(head) > 1:
            *above, columns, names = head
            joined = _joined(columns, names)
            head = [*above, joined] if joined else head
        found.append((head, body))
    return found


def _joined(columns: list[Cell], names: list[Cell]) -> list[Cell] | None:
    """One row of two, if no column has a text in both."""
    pairs = list(zip(columns, names, strict=False))
    if len(columns) != len(names) or any(above[0] and below[0] for above, below in pairs):
        return None
    if any(cell[1:] != (1, 1) for cell in (*columns, *names)):
        return None
    return [above if above[0] else below for above, below in pairs]


def tables_of(html: str) -> list[nodes.Node]:
    """The tables of a piece of HTML."""
    return [_table(head, body) for head, body in grid(html)]


def _table(head: list[list[Cell]], body: list[list[Cell]]) -> nodes.table:
    width = max(sum(columns for _, columns, _ in row) for row in (*head, *body))
    group = nodes.tgroup(cols=width)
    group += [nodes.colspec(colwidth=1) for _ in range(width)]
    if head:
        group += nodes.thead("", *map(_row, head))
    group += nodes.tbody("", *map(_row, body))
    return nodes.table("", group, classes=["dataframe"])


def _row(cells: list[Cell]) -> nodes.row:
    row = nodes.row()
    for text, columns, lines in cells:
        entry = nodes.entry("", *([nodes.paragraph("", text)] if text else []))
        if columns > 1:
            entry["morecols"] = columns - 1
        if lines > 1:
            entry["morerows"] = lines - 1
        row += entry
    return row


NO_BREAK = "\N{NO-BREAK SPACE}"
INTERVAL = re.compile(r"\[[^\[\]]{1,24}\]")
WORD = re.compile(r"[^ \n-]+-?")
"""A piece of a text in which no line ends."""

LINE = 104
"""Letters of a table's size that a line of the text is wide."""

GAP = 2
"""Letters that the space between two columns is wide."""


def columns_of(table: nodes.table) -> tuple[str, int]:
    """The columns of a table for LaTeX, and about how many lines it has.

    A table that fits has columns as wide as their longest cells. Otherwise no column is narrower than its longest word,
    where that is possible, and the rest of the line goes to the columns by what they lack.
    """
    rows = [list(row.children) for row in table.findall(nodes.row)]
    count = next(table.findall(nodes.tgroup))["cols"]
    texts: list[list[str]] = [[] for _ in range(count)]
    for row in rows:
        at = 0
        for entry in row:
            if not entry.get("morecols"):
                texts[min(at, count - 1)].append(_printed(entry))
            at += entry.get("morecols", 0) + 1
    longest = [max((len(text) for text in column if text), default=1) for column in texts]
    line = LINE - GAP * count
    if sum(longest) <= line:
        return "l" * count, len(rows)
    words = [max((len(word) for text in column for word in WORD.findall(text)), default=1) + 2 for column in texts]
    shares = _shares(longest, words, line)
    total = round(10 * (sum(shares) + GAP * count))
    spec = "".join(rf">{{\raggedright\arraybackslash}}\X{{{round(10 * (share + GAP))}}}{{{total}}}" for share in shares)
    return spec, sum(_lines(row, shares) for row in rows)


def _shares(longest: list[int], words: list[int], line: int) -> list[float]:
    """The letters that each column gets of a line, from those of its longest cell and of its longest word."""
    spare = line - sum(words)
    lacking = [max(long - word, 0) for long, word in zip(longest, words, strict=True)]
    if spare <= 0 or not sum(lacking):
        return [float(word) for word in words]
    weights = [lack**0.7 for lack in lacking]  # a letter more shortens a long text by less than a short one
    wanted = [word + spare * weight / sum(weights) for word, weight in zip(words, weights, strict=True)]
    shares = [min(*pair) for pair in zip(wanted, map(float, longest), strict=True)]
    shares[shares.index(max(shares))] += max(line - sum(shares), 0)
    return shares


def _lines(row: list[nodes.Element], shares: list[float]) -> int:
    """The lines of a row: those of its highest cell."""
    cells = zip(row, shares, strict=False)  # a cell may be several columns wide
    return max((math.ceil(len(_printed(entry)) / max(share, 1)) for entry, share in cells), default=1)


def keep_together(table: nodes.table) -> None:
    """No line ends within an interval, or before the sign between a number and its uncertainty."""
    for text in list(table.findall(nodes.Text)):
        if not isinstance(text.parent, nodes.math):
            tied = INTERVAL.sub(lambda found: found[0].replace(" ", NO_BREAK), text.astext())
            text.parent.replace(text, nodes.Text(tied.replace(" ± ", f"{NO_BREAK}±{NO_BREAK}")))


def _printed(entry: nodes.Element) -> str:
    """The text of a cell; a formula takes about half the letters of its source."""
    texts = entry.findall(nodes.Text)
    return "".join("m" * (len(text) // 2) if isinstance(text.parent, nodes.math) else text.astext() for text in texts)
