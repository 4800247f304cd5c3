// The logit lens: what the base run would say if it stopped earlier.

import { on, question, set, state } from "./state.js";
import { newest } from "./api.js";
import { rows, tokenElement } from "./tokens.js";

const ask = newest("lens");

/** What a lens depends on, and what the shown one is of. */
const KEYS = ["lens", "clean", "corrupted", "a", "b", "direction"];
let shown = "";

/** Shows the lens of the question, unless it is shown already. */
export function showLens() {
  byId("lens-on").checked = state.lens;
  const wanted = JSON.stringify(KEYS.map((name) => state[name]));
  if (wanted === shown) return undefined;
  shown = wanted;
  if (!state.lens) return byId("lens").replaceChildren();
  return ask({ ask: question() }, (line) => {
    if (line.refused) byId("lens").replaceChildren(line.refused.message);
    if (line.lens) draw(line.lens);
    // A sweep went first: it is asked for again after that.
    if (line.stopped) shown = "";
  });
}

function draw({ run, points, tokens, probs, answers, answer_probs, n_tokens }) {
  const heads = [...Array(n_tokens).keys()].map((pos) => make("th", { scope: "col" }, tokenElement(rows[run][pos]?.text ?? "")));
  const lines = points.map((point, p) => {
    const cells = [...Array(n_tokens).keys()].map((pos) => {
      const at = p * n_tokens + pos;
      const last = p === points.length - 1 && pos === n_tokens - 1;
      const cell = make("td", { tabindex: last ? 0 : -1 }, tokenElement(tokens[at]));
      cell.style.setProperty("--share", `${(100 * (probs[at] ?? 0)).toFixed(1)}%`);
      const facts = [["point", point], ["position", String(pos)], ["says", tokens[at]], ["probability", exact(probs[at], 4)]];
      answers.forEach((answer, i) => facts.push([`p(${answer})`, exact(answer_probs[2 * at + i], 4)]));
      cell.setAttribute("aria-label", facts.map(([name, fact]) => `${name} ${fact}`).join(", "));
      for (const type of ["mouseover", "focusin"]) cell.addEventListener(type, () => showTooltip(cell, facts));
      for (const type of ["mouseout", "focusout"]) cell.addEventListener(type, hideTooltip);
      return cell;
    });
    return make("tr", {}, make("th", { scope: "row" }, point), ...cells);
  });
  const head = make("thead", {}, make("tr", {}, make("th", {}, `${run} run`), ...heads));
  byId("lens").replaceChildren(make("table", { class: "lens" }, head, make("tbody", {}, ...lines.reverse())));
}

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** Arrow keys move from cell to cell. */
function onKey(event) {
  const cell = event.target.closest("td");
  if (!cell || !(event.key in ARROWS)) return;
  const [down, right] = ARROWS[event.key];
  const line = cell.parentElement;
  const goal = line.parentElement.rows[line.sectionRowIndex + down]?.cells[cell.cellIndex + right];
  if (goal?.tagName === "TD") focusOn(cell, goal);
  event.preventDefault(); // the page does not scroll as well
}

export function startLens() {
  byId("lens").addEventListener("keydown", onKey);
  byId("lens-on").addEventListener("change", (event) => set({ lens: event.target.checked }));
  on(["lens"], showLens);
}
