// What the tests ask of an open page, in one call. Everything that is listed is a fault but for `headings` and `folds`.
() => {
  const line = (element) => element.outerHTML.replace(/\s+/g, " ").slice(0, 160);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const text = (element) => element.innerText.replace(/\s+/g, " ").trim();

  const raw = /\$[^$\n]{1,200}\$|\\\(|\\\[|\\begin\{|\\mathcal|np\.float\d+\(/;
  const formulas = all("mjx-merror, [data-mjx-error]").map(line);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (raw.test(node.data) && !node.parentElement.closest("pre, code, script, style, mjx-container")) {
      formulas.push(node.data.trim().slice(0, 160));
    }
  }
  for (const name of ["alt", "aria-label", "title"]) {
    formulas.push(...all(`[${name}]`).map((e) => e.getAttribute(name)).filter((value) => raw.test(value)));
  }

  const tables = [];
  for (const table of all("article table")) {
    const named = table.caption?.textContent.trim() || table.getAttribute("aria-label") || table.getAttribute("aria-labelledby");
    if (!named) tables.push(`no name: ${line(table)}`);
    for (const head of table.querySelectorAll("th")) {
      if (!head.getAttribute("scope")) tables.push(`no scope: ${line(head)}`);
      if (!head.textContent.trim() && !head.querySelector("img")) tables.push(`an empty head: ${line(head)}`);
    }
  }

  const images = [];
  for (const image of all("main img")) {
    const top = image.getBoundingClientRect().top + window.scrollY;
    const waits = image.loading === "lazy" || image.src.startsWith("data:"); // the page itself holds those
    if (image.checkVisibility() && top > window.innerHeight && !waits) images.push(line(image));
    if (!image.hasAttribute("alt")) images.push(`no alternative text: ${line(image)}`);
  }

  return {
    formulas,
    tables,
    eager_images: images,
    headings: all("main :is(h1, h2, h3, h4, h5, h6)").filter((e) => e.checkVisibility()).map((e) => [+e.tagName[1], text(e)]),
    folds: all("details > summary, button.toggle-button").filter((e) => e.checkVisibility())
      .map((e) => e.getAttribute("aria-label") || text(e)),
    title: document.title,
    description: document.querySelector("meta[name=description]")?.content || "",
  };
}
