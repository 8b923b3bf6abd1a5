// How wide a page is in this window with all that is folded opened, and the boxes on it that scroll sideways: those that
// a keyboard does not reach, that have no name, or that do not show it.
async () => {
  document.querySelectorAll("details").forEach((details) => (details.open = true));
  document.querySelectorAll(".toggle-hidden > .toggle-button, .toggle-button-hidden").forEach((button) => button.click());
  for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
  const line = (element) => element.outerHTML.replace(/\s+/g, " ").slice(0, 160);
  const boxes = [];
  let number = 0;
  for (const box of document.querySelectorAll("main *")) {
    if (box.scrollWidth <= box.clientWidth + 1 || !box.clientWidth || !box.checkVisibility()) continue;
    const style = getComputedStyle(box);
    if (!/auto|scroll/.test(style.overflowX)) continue;
    number += 1;
    if (box.tabIndex !== 0) boxes.push(`no keyboard reaches it: ${line(box)}`);
    if (!/^(region|group)$/.test(box.getAttribute("role")) || !box.getAttribute("aria-label")) boxes.push(`no name: ${line(box)}`);
    if (!/transparent|rgba\(0, 0, 0, 0\)/.test(style.maskImage)) boxes.push(`nothing shows it: ${line(box)}`);
  }
  const outside = [];
  const width = document.documentElement.clientWidth;
  for (const element of document.documentElement.scrollWidth > width ? document.querySelectorAll("article *") : []) {
    if (element.getBoundingClientRect().right > width + 1) outside.push(line(element));
  }
  return { width: document.documentElement.scrollWidth, window: window.innerWidth, outside, boxes, number };
}
