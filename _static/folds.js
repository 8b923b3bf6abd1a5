// The button of a folded solution is named by its title: "Solution to Exercise 18 (One in ten)". The script that makes
// the buttons gives all of them one name.
window.addEventListener("load", () => {
  for (const button of document.querySelectorAll(".admonition-title > .toggle-button")) {
    button.setAttribute("aria-label", button.parentElement.textContent.replace(/\s+/g, " ").trim());
  }
});
