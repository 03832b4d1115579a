// Sort tables by a click on a heading, filter their lines, and show titles as tips at once.  The page is complete without.
(() => {
  "use strict";

  const valueOf = (row, column) => {
    const cell = [...row.cells].find((_, n) => n === column);
    const text = cell ? (cell.dataset.value ?? cell.textContent.trim()) : "";
    const number = parseFloat(text.replace("\u2212", "-"));
    return Number.isNaN(number) ? text : number;
  };

  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };

  const sortBy = (table, heading, column) => {
    const descending = heading.getAttribute("aria-sort") !== "descending";
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => compare(valueOf(a, column), valueOf(b, column)) * (descending ? -1 : 1));
    table.tBodies[0].append(...rows);
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows].at(-1).cells;
    [...headings].forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => sortBy(table, heading, column));
    });
    if (table.tBodies[0].rows.length < 10) continue;
    const field = document.createElement("input");
    field.type = "search";
    field.className = "filter";
    field.placeholder = "filter";
    field.setAttribute("aria-label", "show only lines that contain this text");
    field.addEventListener("input", () => {
      const wanted = field.value.toLowerCase();
      for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
    const place = table.closest(".scroll");
    const caption = place.previousElementSibling;
    if (caption?.classList.contains("caption")) caption.append(field);
    else place.before(field);
  }

  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  document.addEventListener("pointerover", (event) => {
    const target = event.target.closest("[title], [data-tip]");
    if (!target) {
      tip.hidden = true;
      return;
    }
    if (target.title) {  // not shown a second time by the browser
      target.dataset.tip = target.title;
      target.setAttribute("aria-description", target.title);
      target.removeAttribute("title");
    }
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const box = target.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${box.bottom + tip.offsetHeight + 12 > innerHeight ? box.top - tip.offsetHeight - 6 : box.bottom + 6}px`;
  });
})();
