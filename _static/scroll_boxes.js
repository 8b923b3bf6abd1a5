// A box that is wider than the column scrolls sideways. It is then reached by the keyboard, has a name, and its edge
// fades where there is more (accessible.css). Whether it is too wide depends on the window, so this is asked again
// whenever its size changes; a folded cell has none until it is opened.
(() => {
  const KINDS = [
    ["pre", "Code", "group"], // a landmark for each line of code would bury all others
    ["mjx-container", "Formula", "group"],
    ["div.math", "Formula", "group"],
    [".scroll-box", "Table", "region"],
    ["figure", "Figure", "region"],
    [".output, .cell_output", "Output", "region"],
  ];
  const counts = {};
  const known = new Set();

  const wide = (box) =>
    box.scrollWidth > box.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(box).overflowX);

  const edges = (box) => {
    const more = box.scrollWidth - box.clientWidth - box.scrollLeft;
    box.classList.toggle("scrolls-on", more > 1);
    box.classList.toggle("scrolls-back", box.scrollLeft > 1);
  };

  const name = (box, kind, number) => {
    const table = box.querySelector("table");
    const caption = box.querySelector("figcaption .caption-number, caption");
    const own = table?.getAttribute("aria-label") || caption?.textContent.trim();
    return `${kind} ${number}${own ? `, ${own}` : ""}, scrolls sideways`;
  };

  const look = (box, kind, role) => {
    const scrolls = wide(box);
    if (scrolls && !box.classList.contains("scrolls")) {
      counts[kind] = (counts[kind] || 0) + 1;
      box.dataset.scrollName ??= name(box, kind, counts[kind]);
      box.tabIndex = 0;
      box.setAttribute("role", role);
      box.setAttribute("aria-label", box.dataset.scrollName);
    } else if (!scrolls && box.classList.contains("scrolls")) {
      for (const attribute of ["role", "aria-label", "tabindex"]) box.removeAttribute(attribute);
    }
    box.classList.toggle("scrolls", scrolls);
    edges(box);
  };

  const find = () => {
    for (const [selector, kind, role] of KINDS) {
      for (const box of document.querySelectorAll(`.bd-article :is(${selector})`)) {
        if (known.has(box)) continue;
        known.add(box);
        const again = () => look(box, kind, role);
        new ResizeObserver(again).observe(box);
        box.addEventListener("scroll", () => edges(box), { passive: true });
        again();
      }
    }
  };

  document.addEventListener("DOMContentLoaded", find);
  window.addEventListener("load", () => {
    find();
    window.MathJax?.startup?.promise?.then(find);
  });
})();
