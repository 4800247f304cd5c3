// A closer look at one cell: what its run says next, everywhere, and where a head attends.

import { RUNS, on, question, set, state } from "./state.js";
import { newest } from "./api.js";
import { chosenCell, grid, placeOf } from "./grid.js";
import { differs, rows, tokenElement, tokenText } from "./tokens.js";

const ask = newest("look");
const ALL = [...RUNS, "patched"];
const SVG = "http://www.w3.org/2000/svg";

/** What was seen last: for each run its next tokens and its pattern. */
let seen = {};
const tables = {};

/** The head whose pattern is shown: the chosen one, or the chosen cell, or the first of its layer. */
function shownHead() {
  if (grid?.axis === "head") return chosenCell();
  return state.head ?? (grid ? [chosenCell()[0], 0] : [0, 0]);
}

/** Asks for the runs of the chosen cell. */
export function look() {
  if (!grid) return;
  ask({ ask: question(), cell: chosenCell(), head: shownHead() }, (line) => {
    if (line.refused) byId("chosen").textContent = line.refused.message;
    if (!line.looked) return;
    seen = line.looked.seen;
    byId("next-section").dataset.cell = line.looked.cell.join();
    showNext(line.looked.cell);
    showEverywhere();
    showPatterns(line.looked.head);
  });
}

/** What the sweep has said of the two unpatched runs already. */
export function showUnpatched(next) {
  for (const run of RUNS) tables[run].fill(next[run]);
}

function startNext() {
  for (const run of ALL) {
    const answerOf = ({ token }) => {
      const is = (answer) => token === state[answer].replace(/ /g, "␣");
      return is("a") ? "high" : is("b") ? "low" : "";
    };
    tables[run] = sortableTable(
      run,
      [
        { title: "rank", type: "number", value: (next) => next.rank },
        { title: "token", type: "word", value: (next) => next.token, show: (next) => tokenElement(next.token) },
        { title: "id", type: "number", value: (next) => next.id },
        { title: "logit", type: "number", value: (next) => next.logit, show: (next) => number(next.logit, 2) },
        { title: "prob", type: "number", value: (next) => next.prob, show: (next) => exact(next.prob, 4) },
      ],
      answerOf,
    );
    tables[run].element.id = `top-${run}`;
    byId("next").append(tables[run].element);
  }
}

function showNext([row, column]) {
  for (const run of ALL) tables[run].fill(seen[run].top);
  const place = placeOf(row, column).map(([name, value]) => `${name} ${value}`).join(", ");
  tables.patched.setCaption(`patched: layer ${row}, ${grid.axis === "head" ? "head" : "position"} ${column}`);
  const metrics = ALL.map((run) => `${run} ${signed(seen[run].metric)}`).join(", ");
  byId("chosen").textContent = `Patched: ${grid.site}, ${place}. The metric: ${metrics}.`;
}

/** The next tokens after every position of the three runs. */
function showEverywhere() {
  if (!byId("everywhere").open) return;
  const three = (next) =>
    next.flatMap((it) => [tokenElement(it.token), make("span", { class: "share" }, ` ${number(it.prob, 2)} `)]);
  const heads = ["", "token", ...ALL].map((text) => make("th", { scope: "col" }, text));
  const lines = seen.clean.every.map((_, pos) => {
    const own = make("td", { class: differs(pos) ? "differs" : "" }, tokenElement(tokenText(grid.base, pos)));
    return make("tr", {}, make("th", { scope: "row" }, String(pos)), own, ...ALL.map((run) => make("td", {}, ...three(seen[run].every[pos]))));
  });
  const table = make("table", { class: "every" }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...lines));
  byId("everywhere").querySelector(".scroll").replaceChildren(table);
}

// ---- Patterns --------------------------------------------------------------------------------------

const weightOf = (run, dest, src) => seen[run].pattern[(dest * (dest + 1)) / 2 + src];
const shownDest = () => Math.min(state.dest ?? rows[grid.base].length - 1, rows[grid.base].length - 1);

function picture(run, n) {
  const svg = document.createElementNS(SVG, "svg");
  const rectangle = (attributes) => {
    const rect = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ height: 1, ...attributes })) rect.setAttribute(name, value);
    svg.append(rect);
  };
  svg.setAttribute("viewBox", `0 0 ${n} ${n}`);
  svg.setAttribute("class", "pattern");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Attention pattern of the ${run} run: rows attend, columns are attended to`);
  for (let dest = 0; dest < n; dest++) {
    for (let src = 0; src <= dest; src++) {
      const weight = weightOf(run, dest, src);
      if (weight >= 0.005) rectangle({ x: src, y: dest, width: 1, "fill-opacity": weight });
    }
  }
  rectangle({ x: 0, y: shownDest(), width: shownDest() + 1, class: "dest", "stroke-width": n / 150 });
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    set({ dest: Math.floor(((event.clientY - box.top) / box.height) * n) });
  });
  return svg;
}

function strip(run) {
  const dest = shownDest();
  const owner = run === "patched" ? grid.base : run;
  const places = rows[owner].map((token, pos) => {
    const weight = pos <= dest ? weightOf(run, dest, pos) : null;
    const text = weight === null ? "–" : weight.toFixed(2);
    const place = make(
      "span",
      { class: `place${differs(pos) ? " differs" : ""}${weight === null ? " later" : ""}` },
      make("span", { class: "number" }, String(pos)),
      tokenElement(token.text),
      make("span", { class: "number weight" }, text),
    );
    place.style.setProperty("--share", `${(100 * (weight ?? 0)).toFixed(1)}%`);
    return place;
  });
  return make("div", { class: "strip" }, ...places);
}

function showPatterns(head) {
  if (head) [byId("attention-layer").value, byId("attention-head").value] = head;
  const n = rows[grid.base].length;
  fillSelect(byId("attention-dest"), rows[grid.base].map((token, pos) => `${pos} ${token.text}`));
  byId("attention-dest").value = shownDest();
  if (!seen.clean.pattern) {
    byId("attention-runs").replaceChildren(`With ${n} tokens the patterns are too large to show.`);
    return;
  }
  const parts = ALL.map((run) => make("div", { class: "run", "data-run": run }, make("h3", {}, run), strip(run), picture(run, n)));
  byId("attention-runs").replaceChildren(...parts);
}

export function startLook() {
  startNext();
  fillSelect(byId("attention-layer"), [...Array(page.n_layer).keys()].map(String));
  fillSelect(byId("attention-head"), [...Array(page.n_head).keys()].map(String));
  for (const id of ["attention-layer", "attention-head"]) {
    byId(id).addEventListener("change", () => {
      const head = [Number(byId("attention-layer").value), Number(byId("attention-head").value)];
      set(grid?.axis === "head" ? { head, cell: head } : { head });
    });
  }
  byId("attention-dest").addEventListener("change", (event) => set({ dest: Number(event.target.value) }));
  byId("everywhere").addEventListener("toggle", () => seen.clean && showEverywhere());
  on(["cell", "head"], look);
  on(["dest"], () => seen.clean && showPatterns(null));
}
