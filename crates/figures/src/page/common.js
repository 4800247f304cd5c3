// What the pages have in common: small helpers, tables that can be sorted, light and dark, the tooltip.
//
// All that a page shows lies as JSON in the element "data". Nothing is fetched, and no text is ever read
// as markup: nodes are made by `make`, which puts text in as text.
"use strict";

const page = JSON.parse(document.getElementById("data").textContent);

// ---- Helpers -----------------------------------------------------------------------------------

const byId = (id) => document.getElementById(id);

/** A new element with these attributes and children; a child that is a string becomes text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A number with the given digits after the point and a true minus sign. Null is no number. */
function number(value, digits) {
  if (value === null) return "no number";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** A number as `number` writes it, or with a power of ten where that would show nothing but zeros. */
function exact(value, digits) {
  const vanishes = value !== null && value !== 0 && Math.abs(value) < 0.5 * 10 ** -digits;
  return vanishes ? value.toExponential(1).replaceAll("-", "−") : number(value, digits);
}

/** A number with its sign. */
function signed(value, digits = 4) {
  return (value > 0 ? "+" : "") + exact(value, digits);
}

/** The difference of two numbers, null if one of them is none. */
function difference(a, b) {
  return a === null || b === null ? null : a - b;
}

/** Fills a definition list with pairs of a name and its value. */
function fillList(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

/** Fills a select element with texts; their values are 0, 1, 2… */
function fillSelect(select, texts) {
  select.replaceChildren(...texts.map((text, i) => make("option", { value: i }, text)));
}

/** Moves the focus, and the tab stop, from one of several elements to another. */
function focusOn(from, to) {
  from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

// ---- Tables that can be sorted -------------------------------------------------------------------

/**
 * A table with a button in each heading that sorts by that column, first upwards, then downwards.
 *
 * `columns` has for each column its title, whether it is a "number" or a "word", the value of a row to
 * sort by, and what to show of a row (by default the value). `kind` gives a row's class. The result's
 * `fill` puts other rows in and keeps the order that was chosen.
 */
function sortableTable(caption, columns, kind = () => "") {
  const body = make("tbody");
  const title = make("caption", {}, caption);
  const headings = columns.map((column, i) => {
    const button = make("button", { type: "button" }, column.title);
    button.addEventListener("click", () => {
      const same = sorted.column === i;
      sorted = { column: i, downwards: same ? !sorted.downwards : false };
      show();
    });
    return make("th", { scope: "col", class: column.type }, button);
  });
  const element = make("table", { class: "sortable" }, title, make("thead", {}, make("tr", {}, ...headings)), body);
  let rows = [];
  let sorted = { column: 0, downwards: false };

  function compare(a, b) {
    // What is no number comes last, whichever way.
    if (a === null || b === null) return (a === null) - (b === null);
    const order = typeof a === "string" ? a.localeCompare(b) : a - b;
    return sorted.downwards ? -order : order;
  }

  function show() {
    const { value } = columns[sorted.column];
    headings.forEach((heading, i) => {
      if (i !== sorted.column) heading.removeAttribute("aria-sort");
      else heading.setAttribute("aria-sort", sorted.downwards ? "descending" : "ascending");
    });
    body.replaceChildren(
      ...[...rows]
        .sort((a, b) => compare(value(a), value(b)))
        .map((row) => {
          const cells = columns.map((column) =>
            make("td", { class: column.type }, column.show ? column.show(row) : String(column.value(row))),
          );
          return make("tr", { class: kind(row) }, ...cells);
        }),
    );
  }

  return {
    element,
    setCaption: (...texts) => title.replaceChildren(...texts),
    fill(newRows) {
      rows = newRows;
      show();
    },
  };
}

// ---- Light and dark ------------------------------------------------------------------------------

function startTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => byId("theme").setAttribute("aria-pressed", isDark());
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  show();
}

// ---- The tooltip ---------------------------------------------------------------------------------

/** The element whose facts the tooltip shows. */
let tooltipOf = null;

/** Shows the facts of an element beside it. */
function showTooltip(element, facts) {
  const tooltip = byId("tooltip");
  const list = make("dl");
  fillList(list, facts);
  list.querySelectorAll("dd").forEach((value, i) => (value.dataset.fact = facts[i][0]));
  tooltip.replaceChildren(list);
  tooltip.hidden = false;
  tooltipOf = element;
  placeTooltip();
}

/** Puts the tooltip beside its element: above it where there is room, else below. */
function placeTooltip() {
  const tooltip = byId("tooltip");
  if (tooltip.hidden) return;
  const GAP = 8;
  const at = tooltipOf.getBoundingClientRect();
  const size = tooltip.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  const left = Math.max(GAP, Math.min(at.left + at.width / 2 - size.width / 2, width - size.width - GAP));
  const top = at.top - size.height - GAP;
  tooltip.style.setProperty("left", `${left}px`);
  tooltip.style.setProperty("top", `${top >= 0 ? top : at.bottom + GAP}px`);
}

function hideTooltip() {
  byId("tooltip").hidden = true;
}

