// Formulas, by the KaTeX that the site brings.
const show = (formula, place, displayMode) =>
  katex.render(formula, place, { displayMode, throwOnError: false });

for (const place of document.querySelectorAll(".arithmatex"))
  show(place.textContent.slice(2, -2), place, place.tagName === "DIV");

// Tables of contents have headings as plain text.
for (const entry of document.querySelectorAll(".md-nav .md-ellipsis")) {
  const parts = entry.textContent.trim().split(/\\\((.*?)\\\)/);
  if (parts.length === 1) continue;
  entry.replaceChildren(
    ...parts.map((part, at) => {
      const place = document.createElement("span");
      if (at % 2) show(part, place, false);
      else place.textContent = part;
      return place;
    }),
  );
}
