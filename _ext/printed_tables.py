"""A table in HTML, as pandas writes it, read into the nodes of a table."""

from __future__ import annotations

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
"""Letters of a table's size that a line of the text is wide, less what lies between the columns."""

GAP = 2
"""Letters that the space between two columns is wide."""


def columns_of(table: nodes.table) -> tuple[str, int]:
    """The columns of a table for LaTeX, and about how many lines it has.

    A table that fits has columns as wide as their longest cells. Otherwise no column is narrower than its longest word,
    where that is possible, and the rest of the line goes to the columns in proportion to what they lack.
    """
    rows = [list(row.children) for row in table.findall(nodes.row)]
    group = next(table.findall(nodes.tgroup))
    width = group["cols"]
    texts: list[list[str]] = [[] for _ in range(width)]
    for row in rows:
        at = 0
        for entry in row:
            if not entry.get("morecols"):
                texts[min(at, width - 1)].append(_printed(entry))
            at += entry.get("morecols", 0) + 1
    whole = [max(map(len, column), default=1) or 1 for column in texts]
    line = LINE - GAP * width
    if sum(whole) <= line:
        return "l" * width, len(rows)
    words = [max((len(word) for text in column for word in WORD.findall(text)), default=1) + 2 for column in texts]
    spare = line - sum(words)
    lacking = [max(long - short, 0) for long, short in zip(whole, words, strict=True)]
    if spare <= 0 or not sum(lacking):
        shares = [float(word) for word in words]
    else:  # a long text gains less from a letter more than a short one
        weights = [lack**0.7 for lack in lacking]
        shares = [
            min(word + spare * weight / sum(weights), long)
            for word, weight, long in zip(words, weights, whole, strict=True)
        ]
        shares[shares.index(max(shares))] += max(line - sum(shares), 0)
    lines = sum(
        max(
            (-(-len(_printed(entry)) // max(int(share), 1)) for entry, share in zip(row, shares, strict=False)),
            default=1,
        )
        for row in rows
    )
    total = sum(shares) + GAP * width
    spec = "".join(
        rf">{{\raggedright\arraybackslash}}\X{{{round(10 * (share + GAP))}}}{{{round(10 * total)}}}" for share in shares
    )
    return spec, lines


def keep_together(table: nodes.table) -> None:
    """No line ends within an interval, or before the sign between a number and its uncertainty."""
    for text in list(table.findall(nodes.Text)):
        if isinstance(text.parent, nodes.math):
            continue
        tied = INTERVAL.sub(lambda found: found[0].replace(" ", NO_BREAK), text.astext()).replace(
            " ± ", f"{NO_BREAK}±{NO_BREAK}"
        )
        text.parent.replace(text, nodes.Text(tied))


def _printed(entry: nodes.Element) -> str:
    """The text of a cell; a formula takes about half the letters of its source."""
    parts = [
        text.astext() if not isinstance(text.parent, nodes.math) else "m" * (len(text) // 2)
        for text in entry.findall(nodes.Text)
    ]
    return "".join(parts)
