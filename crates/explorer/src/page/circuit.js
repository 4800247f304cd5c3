// The walk along a circuit: from a reader along its strongest edges, some of which are pinned.

import { QUESTION, on, question, set, state } from "./state.js";
import { newest, once } from "./api.js";
import { save as saveFile } from "./share.js";

const askWalk = newest("walk");
const askWorth = newest("worth");

/** The readers that were walked through. */
let path = [];
/** The effects that are known, by the name of their edge. */
const scores = new Map();

const MOST_SHOWN = 40;

/** What effects and values depend on, and what the shown ones are of; empty after one was stopped by a sweep. */
const KEYS = QUESTION.filter((name) => name !== "site" && name !== "scale");
let measured = "";

function note(text) {
  byId("walk-note").textContent = text;
}

// ---- One reader ------------------------------------------------------------------------------------

function walk() {
  const reader = state.reader;
  if (reader === null) return byId("edges").replaceChildren();
  byId("reader").value = reader;
  note("measuring…");
  return askWalk({ ask: question(), reader }, (line) => {
    if (line.refused) note(line.refused.message);
    if (line.progress) note(`measuring… ${Math.round(100 * line.progress)}%`);
    if (line.walk) show(line.walk);
    if (line.stopped) measured = "";
  });
}

function go(reader) {
  const back = path.indexOf(reader);
  path = back >= 0 ? path.slice(0, back + 1) : [...path, reader];
  set({ reader });
}

function edgeRow(edge, reach) {
  const pin = make("input", { type: "checkbox", "aria-label": `pin ${edge.name}` });
  pin.checked = state.pins.includes(edge.name);
  pin.addEventListener("change", () => toggle(edge.name));
  const bar = make("i", { class: edge.effect < 0 ? "low" : "high" });
  const width = edge.effect === null ? 0 : (50 * Math.abs(edge.effect)) / reach;
  bar.style.setProperty("width", `${width.toFixed(2)}%`);
  bar.style.setProperty("left", `${(edge.effect < 0 ? 50 - width : 50).toFixed(2)}%`);
  const onward = edge.readers.map((reader) => {
    const button = make("button", { type: "button", "data-reader": reader }, `→ ${reader}`);
    button.addEventListener("click", () => go(reader));
    return button;
  });
  return make(
    "tr",
    { "data-edge": edge.name },
    make("td", {}, pin),
    make("td", {}, edge.writer),
    make("td", { class: "effect" }, signed(edge.effect)),
    make("td", { class: "bar-cell" }, make("div", { class: "bar-of" }, bar)),
    make("td", {}, ...onward),
  );
}

function show({ reader, edges }) {
  for (const edge of edges) scores.set(edge.name, edge.effect);
  if (!path.includes(reader)) path = [...path, reader];
  const shown = edges.slice(0, MOST_SHOWN);
  const reach = Math.max(...edges.map((edge) => Math.abs(edge.effect ?? 0))) || 1;
  const heads = ["pin", "writer", "effect", "", "go on to"].map((text) => make("th", { scope: "col" }, text));
  const table = make("table", { class: "edges" }, make("thead", {}, make("tr", {}, ...heads)));
  table.append(make("tbody", {}, ...shown.map((edge) => edgeRow(edge, reach))));
  byId("edges").replaceChildren(table);
  const most = edges.length > shown.length ? `; the ${shown.length} largest are shown` : "";
  note(`${edges.length} edges into ${reader}, each cut by itself: the change of the metric${most}.`);
  const crumbs = path.map((name) => {
    const button = make("button", { type: "button", "aria-current": name === reader }, name);
    button.addEventListener("click", () => go(name));
    return button;
  });
  byId("path").replaceChildren(...crumbs);
}

// ---- The circuit -----------------------------------------------------------------------------------

function toggle(name) {
  const others = state.pins.filter((pin) => pin !== name);
  set({ pins: others.length < state.pins.length ? others : [...state.pins, name] });
}

const known = () => state.pins.map((name) => ({ name, score: scores.get(name) ?? null, pinned: true }));

function showPins() {
  const item = (name) => {
    const remove = make("button", { type: "button", "aria-label": `remove ${name}` }, "✕");
    remove.addEventListener("click", () => toggle(name));
    return make("li", {}, remove, ` ${name} `, scores.has(name) ? signed(scores.get(name)) : "");
  };
  byId("pins").replaceChildren(...state.pins.map(item));
  byId("edges").querySelectorAll("tr[data-edge]").forEach((row) => {
    row.querySelector("input").checked = state.pins.includes(row.dataset.edge);
  });
  for (const id of ["save", "unpin"]) byId(id).disabled = state.pins.length === 0;
}

function judge() {
  showPins();
  if (state.pins.length === 0) {
    return byId("worth").replaceChildren("No edge is pinned yet.");
  }
  return askWorth({ ask: question(), edges: known() }, (line) => {
    if (line.refused) byId("worth").replaceChildren(line.refused.message);
    if (line.worth) showWorth(line.worth);
    if (line.stopped) measured = "";
  });
}

function showWorth({ edges, of, of_use, value, empty, whole, faithfulness }) {
  const meter = make("span", { class: "meter" }, make("i"));
  meter.firstChild.style.setProperty("width", `${100 * Math.min(1, Math.max(0, faithfulness ?? 0))}%`);
  const idle = edges - of_use;
  const which = of_use === 0 ? "none of them lies" : `${of_use} of them lie`;
  const open = idle === 0 ? "" : ` Of these, ${which} on a path from input to logits; only such edges carry anything.`;
  byId("worth").replaceChildren(
    `${edges} of ${of} edges: faithfulness `,
    make("strong", { id: "faithfulness" }, exact(faithfulness, 4)),
    meter,
    `the metric of the circuit is ${signed(value)}; of no edge ${signed(empty)}, of all ${signed(whole)}.${open}`,
  );
}

async function save() {
  const line = await once("save", { edges: known() });
  if (line.refused) return note(line.refused.message);
  return saveFile(new Blob([line.file], { type: "application/json" }), "circuit.json");
}

async function load(event) {
  const chosen = event.target.files[0];
  if (!chosen) return;
  const line = await once("load", { text: await chosen.text() });
  event.target.value = "";
  if (line.refused) return note(line.refused.message);
  for (const { name, score } of line.edges) if (score !== null) scores.set(name, score);
  set({ pins: line.edges.map((edge) => edge.name) });
  note(`loaded ${line.edges.length} edges`);
}

export function startCircuit() {
  const readers = ["logits"];
  for (let layer = page.n_layer - 1; layer >= 0; layer--) {
    readers.push(`m${layer}`);
    for (let head = 0; head < page.n_head; head++) readers.push(...["q", "k", "v"].map((input) => `a${layer}.h${head}<${input}>`));
  }
  byId("readers").replaceChildren(...readers.map((value) => make("option", { value })));
  byId("walk").addEventListener("click", () => {
    path = [];
    const reader = byId("reader").value.trim() || "logits";
    if (reader === state.reader) walk();
    else set({ reader });
  });
  byId("reader").addEventListener("keydown", (event) => {
    if (event.key === "Enter") byId("walk").click();
  });
  byId("save").addEventListener("click", save);
  byId("load").addEventListener("change", load);
  byId("unpin").addEventListener("click", () => set({ pins: [] }));
  on(["reader"], walk);
  on(["pins"], judge);
  judge();
}

/** Measures anew what is shown, if the question has changed. */
export function refreshCircuit() {
  const wanted = JSON.stringify(KEYS.map((name) => state[name]));
  if (wanted === measured) return;
  measured = wanted;
  scores.clear();
  walk();
  judge();
}
