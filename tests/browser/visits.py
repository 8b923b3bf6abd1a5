"""One visit to a page, from which all tests of that page take what they judge.

A page is loaded once, wide and light; it then turns dark, gets all its pictures, and becomes as narrow as a phone.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PHONE = {"width": 360, "height": 740}
# Of elements that look alike (tag, classes, colours, size and weight of the letters) the contrast of one is measured:
# of the words of code, the cells of tables and the links of a list, which are most of a page, one of each kind.
# Formulas have no text, as styles draw their letters. Without this the check takes several times as long.
ONE_OF_EACH_LOOK = """() => {
  const ground = (element) => {
    for (let of = element; of; of = of.parentElement) {
      const colour = getComputedStyle(of).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "";
  };
  const seen = new Set();
  for (const element of document.querySelectorAll("[data-again]")) delete element.dataset.again;
  for (const element of document.body.querySelectorAll("*:not(mjx-container *)")) {
    if (![...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())) continue;
    const {color, fontSize, fontWeight, opacity} = getComputedStyle(element);
    const key = [element.tagName, element.className, color, fontSize, fontWeight, opacity, ground(element)].join("|");
    if (seen.has(key)) element.dataset.again = "";
    else if (element.checkVisibility()) seen.add(key);
  }
  axe.configure({rules: [{id: "color-contrast", selector: "*:not([data-again]):not(mjx-container *)"}]});
}"""
# The page of a missing address stands alone, without the theme's script, and takes its colours from the system.
IN_THEME = "theme => [theme, undefined].includes(document.documentElement.dataset.theme)"
# The last rule is an experiment of axe, but the fault is real: a label that hides the words that a button shows. In the
# dark those rules are asked again whose answer a theme can change: of colours, and of what only one theme shows.
AXE = """async (theme) => {
  const rules = theme === "light"
    ? {rules: {"label-content-name-mismatch": {enabled: true}}}
    : {runOnly: ["color-contrast", "link-in-text-block", "image-alt", "region", "svg-img-alt"]};
  const {violations} = await axe.run(document, {resultTypes: ["violations"], preload: false, ...rules});
  return violations.flatMap((v) => v.nodes.map((n) => [v.impact, `${v.id} (${v.impact}): ${n.html.slice(0, 160)}`]));
}"""
TRANSFERRED = """() => performance.getEntries().reduce(
  (sum, entry) => sum + (["navigation", "resource"].includes(entry.entryType) ? entry.transferSize : 0), 0)"""
ALL_IMAGES = """async () => {
  const images = [...document.images];
  for (const image of images) image.loading = "eager";
  await Promise.all(images.map((image) => image.decode().catch(() => {})));
  return images.filter((image) => !image.naturalWidth).map((image) => image.src);
}"""


@dataclass(frozen=True)
class Visit:
    """What one page showed."""

    facts: dict[str, Any]
    """The answers of page_facts.js."""
    complaints: list[str]
    """Errors and warnings in its console, and requests that failed."""
    requests: list[str]
    """All addresses that it asked for."""
    axe: dict[str, list[tuple[str, str]]]
    """Theme → violations: their impact, and what they are."""
    first_load: int
    """Bytes until it was at rest, uncompressed."""
    whole: int
    """The same, with all pictures."""
    missing_images: list[str]
    phone: dict[str, Any]
    """The answers of scroll_facts.js at 360 pixels."""


def script(name: str) -> str:
    """The JavaScript of a file beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def visit(page: Any) -> Visit:
    """Look at an open page that is at rest, in both themes and both widths."""
    first_load = page.evaluate(TRANSFERRED)
    facts = page.evaluate(script("page_facts.js"))
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    axe = {}
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_function(IN_THEME, arg=theme)
        page.evaluate(ONE_OF_EACH_LOOK)  # what looks alike in one theme need not in the other
        axe[theme] = [tuple(found) for found in page.evaluate(AXE, theme)]
    missing_images = page.evaluate(ALL_IMAGES)
    whole = page.evaluate(TRANSFERRED)
    page.set_viewport_size(PHONE)
    phone = page.evaluate(script("scroll_facts.js"))
    return Visit(
        facts=facts,
        complaints=list(page.complaints),
        requests=list(page.requests_made),
        axe=axe,
        first_load=first_load,
        whole=whole,
        missing_images=missing_images,
        phone=phone,
    )
