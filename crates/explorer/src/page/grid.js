// The heatmap: every patched run of the sweep, as a grid that answers to the mouse and the keyboard.

import { RUNS, editText, set, state } from "./state.js";
import { differs, rows, tokenElement, tokenText } from "./tokens.js";

/** The grid as it came last; null before the first. */
export let grid = null;
/** For each cell whether its number is predicted; null if none is. */
let predicted = null;

const base = () => grid.base;
const source = () => (grid.base === "clean" ? "corrupted" : "clean");
const byHead = () => grid.axis === "head";

const valueAt = (row, column) => grid.values[row * grid.shape[1] + column];
const isPredicted = (row, column) => predicted?.[row * grid.shape[1] + column] ?? false;
const cellAt = (row, column) => byId("heatmap").tBodies[0].rows[row].cells[column + 1];
const baseValue = () => grid.unpatched[RUNS.indexOf(base())];
const center = () => grid.center ?? baseValue();

/** The cell that is looked into: the chosen one, or the one that differs most from the base run. */
export function chosenCell() {
  const [nRows, nColumns] = grid.shape;
  if (state.cell) return [Math.min(state.cell[0], nRows - 1), Math.min(state.cell[1], nColumns - 1)];
  const change = (value) => Math.abs(difference(value, baseValue()) ?? 0);
  const best = grid.values.reduce((best, value, i) => (change(value) > change(grid.values[best]) ? i : best), 0);
  return [Math.floor(best / nColumns), best % nColumns];
}

/** Where a cell is, as pairs of a name and a value. */
export function placeOf(row, column) {
  if (byHead()) return [["layer", String(row)], ["head", String(column)]];
  const token = tokenText(base(), column);
  const tokens = differs(column) ? `${token} (${source()}: ${tokenText(source(), column)})` : token;
  return [["layer", String(row)], ["position", String(column)], ["token", tokens]];
}

function factsOf(row, column) {
  const value = valueAt(row, column);
  const change = difference(value, baseValue());
  return [
    ["site", grid.site],
    ...placeOf(row, column),
    [isPredicted(row, column) ? "predicted" : "value", signed(value)],
    ["change", `${signed(change)} from the ${base()} run`],
  ];
}

// ---- Patches that stay -----------------------------------------------------------------------------

function editAt(row, column, value) {
  return { site: grid.site, layer: row, head: byHead() ? column : null, pos: byHead() ? null : column, value };
}

const isAt = (edit, row, column) => {
  const here = editAt(row, column, edit.value);
  return editText(edit) === editText(here);
};

/** Adds the patch of a cell to those that stay, or removes it. */
function keep(row, column, value) {
  const others = state.given.filter((edit) => !isAt(edit, row, column));
  const isThere = others.length < state.given.length;
  set({ given: isThere ? others : [...state.given, editAt(row, column, value)] });
}

export function showGiven() {
  const chip = (edit, i) => {
    const remove = make("button", { type: "button", "aria-label": `remove ${editText(edit)}` }, "✕");
    remove.addEventListener("click", () => set({ given: state.given.filter((_, other) => other !== i) }));
    const options = ["source", "zero", "mean"].map((value) => make("option", { value }, value));
    const value = make("select", { "aria-label": "what is put in" }, ...options);
    value.value = edit.value;
    value.addEventListener("change", () =>
      set({ given: state.given.map((other, j) => (j === i ? { ...other, value: value.value } : other)) }),
    );
    return make("span", { class: "chip" }, editText(edit).split("=")[0], value, remove);
  };
  const chips = state.given.map(chip);
  byId("given").replaceChildren(...(chips.length > 0 ? ["given", ...chips] : []));
}

// ---- Drawing ---------------------------------------------------------------------------------------

function digitsFor(reach) {
  return reach >= 100 ? 0 : reach >= 10 ? 1 : reach >= 0.1 ? 2 : 3;
}

function cellElement(row, column, reach, narrow) {
  const value = valueAt(row, column);
  const cell = make("td", { role: "gridcell", tabindex: -1, "data-row": row, "data-column": column });
  cell.setAttribute("aria-label", factsOf(row, column).map(([name, fact]) => `${name} ${fact}`).join(", "));
  if (state.given.some((edit) => isAt(edit, row, column))) cell.classList.add("kept");
  if (isPredicted(row, column)) cell.classList.add("predicted");
  if (value === null) {
    cell.dataset.side = "none";
    return cell;
  }
  if (!narrow) cell.append(number(value, digitsFor(reach)));
  const share = Math.min(1, Math.abs(value - center()) / reach);
  cell.dataset.side = value < center() ? "low" : "high";
  cell.style.setProperty("--share", `${(100 * share).toFixed(1)}%`);
  cell.classList.toggle("strong", share > 0.6);
  return cell;
}

/** Draws a grid that has come, or a prediction of one. */
export function showGrid(newGrid, predictedCells = null) {
  grid = newGrid;
  predicted = predictedCells;
  const [nRows, nColumns] = grid.shape;
  const narrow = nColumns > 16;
  const reach = grid.values.reduce((most, value) => (value === null ? most : Math.max(most, Math.abs(value - center()))), 0) || 1;
  hideTooltip(); // Its cell is about to go.
  const table = byId("heatmap");
  const hadFocus = table.contains(document.activeElement);
  table.className = `${narrow ? "narrow" : ""} ${predicted ? "preview" : ""}`.trim();
  table.setAttribute("aria-label", `${grid.label} when ${grid.site} is patched, layer by ${grid.axis}`);
  table.replaceChildren();
  const headings = [...Array(nColumns).keys()].map((column) => {
    const label = make("th", { scope: "col" }, make("span", { class: "number" }, String(column)));
    if (!byHead()) label.prepend(tokenElement(tokenText(base(), column)));
    if (!byHead()) label.classList.toggle("differs", differs(column));
    return label;
  });
  table.createTHead().append(make("tr", {}, make("th", { class: "corner" }, "layer"), ...headings));
  const lines = [...Array(nRows).keys()].map((row) => {
    const cells = [...Array(nColumns).keys()].map((column) => cellElement(row, column, reach, narrow));
    return make("tr", {}, make("th", { scope: "row" }, String(row)), ...cells);
  });
  table.createTBody().append(...lines);
  showWords();
  showLegend(reach);
  markChosen();
  if (hadFocus) cellAt(...chosenCell()).focus();
}

function showWords() {
  const title = `Patching ${grid.site} from the ${source()} into the ${base()} run`;
  byId("title").textContent = title;
  document.title = `${title}, live`;
  const given = state.given.length > 0 ? ", given the patches below" : "";
  byId("explanation").textContent =
    `Each cell is one run of the ${base()} prompt in which ${grid.site} of that layer (down), ` +
    (byHead() ? "of that head (across) at every position" : "at that position (across)") +
    `, was replaced by the ${source()} run's${given}. Its number is ${grid.label}.` +
    (predicted ? " Numbers in italics are predicted from one gradient; the exact ones are being computed." : "");
}

/** Which colour means what, and where the unpatched runs lie. */
function showLegend(reach) {
  const bar = make("div", { class: "bar" });
  RUNS.forEach((run, i) => {
    const value = grid.unpatched[i];
    const share = 0.5 + (value - center()) / (2 * reach);
    const text = `${share < 0 ? "◂ " : ""}${run} ${signed(value, 2)}${share > 1 ? " ▸" : ""}`;
    const mark = make("span", { class: run === "clean" ? "mark above" : "mark" }, text);
    mark.style.setProperty("left", `${100 * Math.min(1, Math.max(0, share))}%`);
    bar.append(mark);
  });
  byId("legend").replaceChildren(
    make("span", { class: "end low" }, `${signed(center() - reach, 2)}: ${grid.low}`),
    bar,
    make("span", { class: "end high" }, `${signed(center() + reach, 2)}: ${grid.high}`),
  );
}

/** Marks the cell that is looked into. */
export function markChosen() {
  if (!grid) return;
  const heatmap = byId("heatmap");
  heatmap.querySelectorAll("[aria-selected]").forEach((cell) => cell.removeAttribute("aria-selected"));
  heatmap.querySelectorAll('td[tabindex="0"]').forEach((cell) => (cell.tabIndex = -1));
  const cell = cellAt(...chosenCell());
  cell.setAttribute("aria-selected", "true");
  cell.tabIndex = 0;
}

// ---- Mouse and keyboard ----------------------------------------------------------------------------

function onKey(cell, row, column, event) {
  const [nRows, nColumns] = grid.shape;
  const all = event.ctrlKey;
  const goals = {
    ArrowUp: [row - 1, column],
    ArrowDown: [row + 1, column],
    ArrowLeft: [row, column - 1],
    ArrowRight: [row, column + 1],
    Home: [all ? 0 : row, 0],
    End: [all ? nRows - 1 : row, nColumns - 1],
    PageUp: [0, column],
    PageDown: [nRows - 1, column],
  };
  if (event.key in goals) {
    const [toRow, toColumn] = goals[event.key];
    if (toRow >= 0 && toRow < nRows && toColumn >= 0 && toColumn < nColumns) focusOn(cell, cellAt(toRow, toColumn));
  } else if (event.key === "Enter" || event.key === " ") {
    act(row, column, event);
  } else if (event.key === "Escape") {
    hideTooltip();
  } else {
    return;
  }
  event.preventDefault(); // the page does not scroll as well
}

/** Looks into a cell; with Shift keeps its patch, with Shift and Alt zeros in its place. */
function act(row, column, event) {
  if (event.shiftKey) keep(row, column, event.altKey ? "zero" : "source");
  else set({ cell: [row, column] });
}

export function startGrid() {
  const table = byId("heatmap");
  const onCell = (type, react) =>
    table.addEventListener(type, (event) => {
      const cell = event.target.closest("td");
      if (cell) react(cell, Number(cell.dataset.row), Number(cell.dataset.column), event);
    });
  onCell("mouseover", (cell, row, column) => showTooltip(cell, factsOf(row, column)));
  onCell("focusin", (cell, row, column) => showTooltip(cell, factsOf(row, column)));
  onCell("mouseout", hideTooltip);
  onCell("focusout", hideTooltip);
  onCell("click", (cell, row, column, event) => {
    cell.focus();
    act(row, column, event);
  });
  onCell("keydown", onKey);
  addEventListener("scroll", placeTooltip, { passive: true, capture: true });
}

/** Says that what is shown is of an earlier question. */
export function markStale(isStale) {
  byId("heatmap").classList.toggle("stale", isStale && rows.clean.length > 0);
}
