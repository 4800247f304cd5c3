// The tokens of the two prompts, one column for each position.

import { RUNS } from "./state.js";

/** The tokens as they came last: {clean, corrupted, differ, common, warnings}. */
export let rows = { clean: [], corrupted: [], differ: [], common: [0, 0], warnings: [] };

export function tokenElement(text) {
  return make("bdi", { class: "token" }, text);
}

/** The token of a run at a position, as text. */
export const tokenText = (run, pos) => rows[run][pos]?.text ?? "";

export const differs = (pos) => rows.differ.includes(pos);

/** The columns: for each a pair of positions, null where one prompt has no token. */
function columns() {
  const [front, back] = rows.common;
  const counts = RUNS.map((run) => rows[run].length);
  const middles = counts.map((count) => count - front - back);
  const all = [];
  for (let i = 0; i < front; i++) all.push([i, i]);
  for (let i = 0; i < Math.max(...middles); i++) all.push(middles.map((n) => (i < n ? front + i : null)));
  for (let i = 0; i < back; i++) all.push(counts.map((count) => count - back + i));
  return all;
}

export function showTokens(newRows) {
  rows = newRows;
  const equal = rows.clean.length === rows.corrupted.length;
  const columnOf = (places) => {
    const shown = places.map((pos, i) =>
      pos === null ? make("span", { class: "token gap" }, "·") : tokenElement(rows[RUNS[i]][pos].text),
    );
    const texts = places.map((pos, i) => (pos === null ? null : rows[RUNS[i]][pos].text));
    const number = equal ? String(places[0]) : places.map((pos) => pos ?? "·").join("/");
    const kind = texts[0] === texts[1] ? "place" : "place differs";
    return make("div", { class: kind }, make("span", { class: "number" }, number), ...shown);
  };
  byId("tokens").replaceChildren(...(equal ? rows.clean.map((_, i) => [i, i]) : columns()).map(columnOf));
  const s = rows.differ.length === 1 ? "" : "s";
  const counted = equal
    ? `${rows.clean.length} tokens each, the clean prompt's above the corrupted one's; they differ at position${s} ${rows.differ.join(", ")}.`
    : unequal();
  byId("token-note").textContent = [counted, ...rows.warnings].join(" ");
}

/** What to change, where the numbers of tokens differ. */
function unequal() {
  const [front, back] = rows.common;
  const parts = RUNS.map((run) => {
    const tokens = rows[run].slice(front, rows[run].length - back).map((token) => token.text);
    return `“${tokens.join("/")}” (${tokens.length})`;
  });
  return (
    `${rows.clean.length} tokens against ${rows.corrupted.length}. They differ in ${parts.join(" against ")}: ` +
    "give words of equally many tokens there."
  );
}
