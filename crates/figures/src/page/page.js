// The page of one activation-patching experiment, after common.js.
//
// page.rs says what each part of the data is. A token is everywhere an index into page.tokens. This file has
// one part for each section of the page, and at the end what sets it all going.

const RUNS = ["clean", "corrupted"];
const base = page.base;
const source = base === "clean" ? "corrupted" : "clean";
const nTokens = page.prompts.clean.tokens.length;

// ---- Helpers -----------------------------------------------------------------------------------

/** A token as an element: in a direction of its own, so that Arabic does not turn its surroundings. */
function token(index) {
  return make("bdi", { class: "token" }, page.tokens.texts[index]);
}

/** The token of a run at a position, as plain text. */
function tokenText(run, pos) {
  return page.tokens.texts[page.prompts[run].tokens[pos]];
}

function differs(pos) {
  return page.prompts.clean.tokens[pos] !== page.prompts.corrupted.tokens[pos];
}

// ---- The two prompts -----------------------------------------------------------------------------

function showPrompts() {
  fillList(byId("texts"), RUNS.map((run) => [run, page.prompts[run].text]));
  const places = [...Array(nTokens).keys()].map((pos) =>
    make(
      "div",
      { class: differs(pos) ? "place differs" : "place" },
      make("span", { class: "number" }, String(pos)),
      ...RUNS.map((run) => token(page.prompts[run].tokens[pos])),
    ),
  );
  byId("prompts").replaceChildren(...places);
  const differing = [...Array(nTokens).keys()].filter(differs);
  byId("differing").textContent =
    `${nTokens} tokens each, the clean prompt's above the corrupted one's; ` +
    `they differ at position${differing.length === 1 ? "" : "s"} ${differing.join(", ")} (marked).`;
}

// ---- The heatmap ---------------------------------------------------------------------------------

/** What is being looked at: a grid, a metric, as it is or as its change from the base run, and a cell. */
const chosen = { grid: 0, metric: 0, asChange: false, row: 0, column: 0 };

const currentGrid = () => page.grids[chosen.grid];
const currentMetric = () => page.metrics[chosen.metric];

function valueAt(row, column) {
  const grid = currentGrid();
  return grid.values[chosen.metric][row * grid.shape[1] + column];
}

function cellAt(row, column) {
  return byId("heatmap").tBodies[0].rows[row].cells[column + 1];
}

/** Where a cell is, as pairs of a name and a value. */
function placeOf(row, column) {
  const place = [["layer", String(row)]];
  if (currentGrid().columns === "head") return [...place, ["head", String(column)]];
  const tokens = differs(column)
    ? `${tokenText(base, column)} (${source}: ${tokenText(source, column)})`
    : tokenText(base, column);
  return [...place, ["position", String(column)], ["token", tokens]];
}

/** Everything that a cell says, as pairs of a name and a value. */
function factsOf(row, column) {
  const value = valueAt(row, column);
  return [
    ["site", currentGrid().site],
    ...placeOf(row, column),
    ["value", signed(value)],
    ["change", `${signed(difference(value, currentMetric().unpatched[base]))} from the ${base} run`],
  ];
}

/** The value that gets the middle colour. */
function centerOf(metric) {
  return (chosen.asChange ? metric.unpatched[base] : null) ?? metric.center;
}

/** Half the width of the colour scale: how far the farthest value lies from the middle. */
function reachOf(values, center) {
  const distances = values.filter((value) => value !== null).map((value) => Math.abs(value - center));
  // A loop, because Math.max takes no more arguments than fit on the stack.
  return distances.reduce((a, b) => Math.max(a, b), 0) || 1;
}

/** How many digits after the point numbers of this size have in a cell: about three that matter. */
function digitsFor(reach) {
  return reach >= 100 ? 0 : reach >= 10 ? 1 : reach >= 0.1 ? 2 : 3;
}

/** Draws the heatmap of the chosen grid and metric, and all that depends on them. */
function showHeatmap() {
  const grid = currentGrid();
  const metric = currentMetric();
  const [nRows, nColumns] = grid.shape;
  const byHead = grid.columns === "head";
  const narrow = nColumns > 16;
  const values = grid.values[chosen.metric];
  const center = centerOf(metric);
  const reach = reachOf(values, center);
  chosen.row = Math.min(chosen.row, nRows - 1);
  chosen.column = Math.min(chosen.column, nColumns - 1);

  hideTooltip(); // Its cell is about to go.
  const table = byId("heatmap");
  table.className = narrow ? "narrow" : "";
  table.setAttribute("aria-label", `${metric.label} when ${grid.site} is patched, layer by ${grid.columns}`);
  table.replaceChildren();

  const headings = [...Array(nColumns).keys()].map((column) => {
    const label = make("th", { scope: "col" }, make("span", { class: "number" }, String(column)));
    if (!byHead) {
      label.prepend(token(page.prompts[base].tokens[column]));
      label.classList.toggle("differs", differs(column));
    }
    return label;
  });
  table.createTHead().append(make("tr", {}, make("th", { class: "corner" }, "layer"), ...headings));

  const body = table.createTBody();
  for (let row = 0; row < nRows; row++) {
    const line = make("tr", {}, make("th", { scope: "row" }, String(row)));
    for (let column = 0; column < nColumns; column++) {
      const value = values[row * nColumns + column];
      const cell = make("td", { role: "gridcell", tabindex: -1 });
      const facts = factsOf(row, column).map(([name, fact]) => `${name} ${fact}`);
      cell.setAttribute("aria-label", facts.join(", "));
      cell.dataset.row = row;
      cell.dataset.column = column;
      if (!narrow) cell.textContent = value === null ? "" : number(chosen.asChange ? value - center : value, digitsFor(reach));
      if (value === null) {
        cell.dataset.side = "none";
      } else {
        const share = Math.abs(value - center) / reach;
        cell.dataset.side = value < center ? "low" : "high";
        cell.style.setProperty("--share", `${(100 * share).toFixed(1)}%`);
        cell.classList.toggle("strong", share > 0.6);
      }
      line.append(cell);
    }
    body.append(line);
  }

  byId("title").textContent = `Patching ${grid.site} from the ${source} into the ${base} run`;
  document.title = `${grid.site}, ${source} into ${base}: activation patching`;
  byId("explanation").textContent =
    `Each cell is one run of the ${base} prompt in which ${grid.site} of that layer (down), ` +
    (byHead ? "of that head (across) at every position" : "at that position (across)") +
    `, was replaced by the ${source} run's. Its number is ${metric.label}` +
    (chosen.asChange ? `, less that of the ${base} run.` : ".");
  showLegend(metric, center, reach);
  showCells();
  choose(chosen.row, chosen.column);
}

/** Which colour means what, and where the unpatched runs lie. */
function showLegend(metric, center, reach) {
  const bar = make("div", { class: "bar" });
  RUNS.forEach((run) => {
    const value = metric.unpatched[run];
    if (value === null) return;
    const share = 0.5 + (value - center) / (2 * reach);
    // A run that lies beyond the scale stands at its end, with an arrow.
    const text = `${share < 0 ? "◂ " : ""}${run} ${signed(value, 2)}${share > 1 ? " ▸" : ""}`;
    const mark = make("span", { class: run === "clean" ? "mark above" : "mark" }, text);
    mark.style.setProperty("left", `${100 * Math.min(1, Math.max(0, share))}%`);
    bar.append(mark);
  });
  const ends = chosen.asChange
    ? [`${signed(-reach, 2)}: below the ${base} run`, `${signed(reach, 2)}: above the ${base} run`]
    : [`${signed(center - reach, 2)}: ${metric.low}`, `${signed(center + reach, 2)}: ${metric.high}`];
  byId("legend").replaceChildren(
    make("span", { class: "end low" }, ends[0]),
    bar,
    make("span", { class: "end high" }, ends[1]),
  );
}

/** Makes a cell the one whose run is shown below. */
function choose(row, column) {
  const heatmap = byId("heatmap");
  heatmap.querySelectorAll("[aria-selected]").forEach((cell) => cell.removeAttribute("aria-selected"));
  heatmap.querySelectorAll('td[tabindex="0"]').forEach((cell) => (cell.tabIndex = -1));
  chosen.row = row;
  chosen.column = column;
  const cell = cellAt(row, column);
  cell.setAttribute("aria-selected", "true");
  cell.tabIndex = 0;
  showTop();
  if (currentGrid().columns === "head" && page.attention) showHead(row, column);
}

/** The cell that differs most from the base run. */
function strongestCell() {
  const unpatched = currentMetric().unpatched[base];
  const grid = currentGrid();
  let best = 0;
  grid.values[chosen.metric].forEach((value, cell, values) => {
    const change = (i) => Math.abs(difference(values[i], unpatched) ?? 0);
    if (change(cell) > change(best)) best = cell;
  });
  return [Math.floor(best / grid.shape[1]), best % grid.shape[1]];
}

function startHeatmap() {
  fillSelect(byId("site"), page.grids.map((grid) => grid.site));
  fillSelect(byId("metric"), page.metrics.map((metric) => metric.label));
  byId("site").addEventListener("change", (event) => {
    chosen.grid = Number(event.target.value);
    [chosen.row, chosen.column] = strongestCell();
    showHeatmap();
  });
  byId("metric").addEventListener("change", (event) => {
    chosen.metric = Number(event.target.value);
    showHeatmap();
  });

  byId("base-name").textContent = base;
  byId("as-change").addEventListener("change", (event) => {
    chosen.asChange = event.target.checked;
    showHeatmap();
  });

  const table = byId("heatmap");
  // One listener for all cells: each event says which one it met.
  const onCell = (type, act) =>
    table.addEventListener(type, (event) => {
      const cell = event.target.closest("td");
      if (cell) act(cell, Number(cell.dataset.row), Number(cell.dataset.column), event);
    });
  onCell("mouseover", (cell, row, column) => showTooltip(cell, factsOf(row, column)));
  onCell("focusin", (cell, row, column) => showTooltip(cell, factsOf(row, column)));
  onCell("mouseout", hideTooltip);
  onCell("focusout", hideTooltip);
  onCell("click", (cell, row, column) => {
    choose(row, column);
    cell.focus();
  });
  onCell("keydown", (cell, row, column, event) => {
    const [nRows, nColumns] = currentGrid().shape;
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
      if (toRow >= 0 && toRow < nRows && toColumn >= 0 && toColumn < nColumns) {
        focusOn(cell, cellAt(toRow, toColumn));
      }
    } else if (event.key === "Enter" || event.key === " ") {
      choose(row, column);
    } else if (event.key === "Escape") {
      hideTooltip();
    } else {
      return;
    }
    event.preventDefault(); // the page does not scroll as well
  });
  // What is scrolled takes its tooltip along; the box around a wide table scrolls too.
  addEventListener("scroll", placeTooltip, { passive: true, capture: true });

  [chosen.row, chosen.column] = strongestCell();
  showHeatmap();
}

// ---- All cells as a table ------------------------------------------------------------------------

let cellsTable = null;

/** Fills the table of all cells, if it is open: a long prompt has thousands. */
function showCells() {
  if (!byId("cells").open) return;
  const grid = currentGrid();
  const unpatched = currentMetric().unpatched[base];
  const byHead = grid.columns === "head";
  const words = byHead ? [] : [{ title: "token", type: "word", value: (cell) => tokenText(base, cell.column) }];
  cellsTable = sortableTable("", [
    { title: "layer", type: "number", value: (cell) => cell.row },
    { title: byHead ? "head" : "position", type: "number", value: (cell) => cell.column },
    ...words,
    { title: "value", type: "number", value: (cell) => cell.value, show: (cell) => signed(cell.value) },
    { title: "change", type: "number", value: (cell) => cell.change, show: (cell) => signed(cell.change) },
  ]);
  cellsTable.setCaption(`${currentMetric().label}; changes are from the ${base} run`);
  const cells = grid.values[chosen.metric].map((value, i) => ({
    row: Math.floor(i / grid.shape[1]),
    column: i % grid.shape[1],
    value,
    change: difference(value, unpatched),
  }));
  cellsTable.fill(cells);
  byId("cells").querySelector(".scroll").replaceChildren(cellsTable.element);
}

// ---- What the runs say next ----------------------------------------------------------------------

/** One table for each of the clean, the corrupted and the patched run. */
const topTables = {};

function startTop() {
  for (const run of [...RUNS, "patched"]) {
    topTables[run] = sortableTable(
      run,
      [
        { title: "rank", type: "number", value: (next) => next.rank },
        {
          title: "token",
          type: "word",
          value: (next) => page.tokens.texts[next.token],
          show: (next) => token(next.token),
        },
        { title: "id", type: "number", value: (next) => page.tokens.ids[next.token] },
        { title: "logit", type: "number", value: (next) => next.logit, show: (next) => number(next.logit, 2) },
        { title: "prob", type: "number", value: (next) => next.prob, show: (next) => exact(next.prob, 4) },
      ],
      ({ token }) => {
        const { low_token, high_token } = currentMetric();
        return token === low_token ? "low" : token === high_token ? "high" : "";
      },
    );
    topTables[run].element.id = `top-${run}`;
    byId("top").append(topTables[run].element);
  }
}

/** Fills the three tables. */
function showTop() {
  const { row, column } = chosen;
  const rowsOf = (top) => top.map(([token, logit, prob], rank) => ({ rank, token, logit, prob }));
  const grid = currentGrid();
  const patched = grid.top[row * grid.shape[1] + column];
  for (const run of RUNS) topTables[run].fill(rowsOf(page.top[run]));
  topTables.patched.fill(rowsOf(patched ?? page.top[base]));
  const place = placeOf(row, column).map(([name, value]) => `${name} ${value}`);
  topTables.patched.setCaption(`patched: layer ${row}, ${grid.columns === "head" ? "head" : "position"} ${column}`);
  byId("chosen").textContent =
    `Patched: ${grid.site}, ${place.join(", ")}: ${signed(valueAt(row, column))}. ` +
    `The other two: the ${source} run ${signed(currentMetric().unpatched[source])}, ` +
    `the ${base} run ${signed(currentMetric().unpatched[base])}` +
    (patched === null ? ", which the patched run repeats number for number." : ".");
}

// ---- Where a head attends ------------------------------------------------------------------------

/** The head that is shown, and the position whose attention is shown. */
const shownHead = { layer: 0, head: 0, dest: nTokens - 1 };

/** How much attention, from 0 to 1, position `dest` pays to position `src` in a run. */
function attentionTo(run, dest, src) {
  const { n_head, patterns } = page.attention;
  const pattern = patterns[run][shownHead.layer * n_head + shownHead.head];
  return pattern[(dest * (dest + 1)) / 2 + src] / 10000;
}

const SVG = "http://www.w3.org/2000/svg";

/** The whole pattern of a head as a picture: who attends, downwards, to whom, across. */
function patternPicture(run) {
  const svg = document.createElementNS(SVG, "svg");
  const rectangle = (x, y, width, attributes) => {
    const rect = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ x, y, width, height: 1, ...attributes })) rect.setAttribute(name, value);
    svg.append(rect);
  };
  svg.setAttribute("viewBox", `0 0 ${nTokens} ${nTokens}`);
  svg.setAttribute("class", "pattern");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Attention pattern of the ${run} run: rows attend, columns are attended to`);
  for (let dest = 0; dest < nTokens; dest++) {
    for (let src = 0; src <= dest; src++) {
      const weight = attentionTo(run, dest, src);
      if (weight >= 0.005) rectangle(src, dest, 1, { "fill-opacity": weight });
    }
  }
  rectangle(0, shownHead.dest, shownHead.dest + 1, { class: "dest", "stroke-width": nTokens / 150 });
  // Pointing at a row chooses who attends.
  svg.addEventListener("mousemove", (event) => {
    const box = svg.getBoundingClientRect();
    const dest = Math.floor(((event.clientY - box.top) / box.height) * nTokens);
    if (dest !== shownHead.dest && dest >= 0 && dest < nTokens) showDest(dest);
  });
  return svg;
}

/** Draws both runs' rows of tokens and patterns for the chosen head. */
function showHead(layer, head) {
  Object.assign(shownHead, { layer, head });
  byId("attention-layer").value = layer;
  byId("attention-head").value = head;
  const runs = RUNS.map((run) => {
    const places = page.prompts[run].tokens.map((index, pos) =>
      make(
        "button",
        { type: "button", class: differs(pos) ? "place differs" : "place", tabindex: -1, "data-pos": pos },
        make("span", { class: "number" }, String(pos)),
        token(index),
        make("span", { class: "number weight" }),
      ),
    );
    return make(
      "div",
      { class: "run", "data-run": run },
      make("h3", {}, run),
      make("div", { class: "strip", role: "group", "aria-label": `tokens of the ${run} prompt` }, ...places),
      make("p", { class: "note summary" }),
      patternPicture(run),
    );
  });
  byId("attention-runs").replaceChildren(...runs);
  showDest(shownHead.dest);
}

/** Shows how the token at a position spreads its attention, in both runs. */
function showDest(dest) {
  const percent = (weight) => `${(100 * weight).toFixed(1)}%`;
  shownHead.dest = dest;
  for (const element of byId("attention-runs").children) {
    const run = element.dataset.run;
    const weights = [];
    element.querySelectorAll(".place").forEach((place, pos) => {
      const weight = pos <= dest ? attentionTo(run, dest, pos) : null;
      if (weight !== null) weights.push({ pos, weight });
      place.style.setProperty("--share", weight === null ? "0%" : percent(weight));
      place.classList.toggle("later", weight === null);
      place.setAttribute("aria-pressed", pos === dest);
      place.tabIndex = pos === dest ? 0 : -1;
      place.querySelector(".weight").textContent = weight === null ? "–" : weight.toFixed(2);
    });
    weights.sort((a, b) => b.weight - a.weight);
    const most = weights
      .slice(0, 3)
      .map(({ pos, weight }) => `${pos} ${tokenText(run, pos)} ${weight.toFixed(4)}`);
    element.querySelector(".summary").textContent =
      `Head ${shownHead.layer}.${shownHead.head}: position ${dest} ${tokenText(run, dest)} attends most to ${most.join(" · ")}`;
    const frame = element.querySelector(".dest");
    frame.setAttribute("y", dest);
    frame.setAttribute("width", dest + 1);
  }
}

/** The head whose last token attends most to where the prompts differ: the one to look at first. */
function mostTelling() {
  const { n_head, patterns } = page.attention;
  const differing = [...Array(nTokens - 1).keys()].filter(differs);
  const lastRow = ((nTokens - 1) * nTokens) / 2;
  const scores = patterns[source].map((pattern) =>
    differing.reduce((sum, pos) => sum + pattern[lastRow + pos], 0),
  );
  const best = scores.reduce((best, score, i) => (score > scores[best] ? i : best), 0);
  return [Math.floor(best / n_head), best % n_head];
}

function startAttention() {
  if (!page.attention) {
    byId("attention-body").hidden = true;
    byId("attention-missing").hidden = false;
    byId("attention-missing").textContent =
      `With ${nTokens} tokens the patterns of all heads would make this page too large, so they were left out.`;
    return;
  }
  const { n_layer, n_head } = page.attention;
  fillSelect(byId("attention-layer"), [...Array(n_layer).keys()].map(String));
  fillSelect(byId("attention-head"), [...Array(n_head).keys()].map(String));
  for (const id of ["attention-layer", "attention-head"]) {
    byId(id).addEventListener("change", () =>
      showHead(Number(byId("attention-layer").value), Number(byId("attention-head").value)),
    );
  }
  const onPlace = (type, act) =>
    byId("attention-runs").addEventListener(type, (event) => {
      const place = event.target.closest(".place");
      if (place) act(place, Number(place.dataset.pos), event);
    });
  onPlace("mouseover", (place, pos) => showDest(pos));
  onPlace("focusin", (place, pos) => showDest(pos));
  onPlace("keydown", (place, pos, event) => {
    const goals = { ArrowLeft: pos - 1, ArrowRight: pos + 1, Home: 0, End: nTokens - 1 };
    if (!(event.key in goals)) return;
    event.preventDefault();
    const goal = place.parentElement.children[goals[event.key]];
    if (goal) focusOn(place, goal);
  });
  showHead(...mostTelling());
}

// ---- Go ------------------------------------------------------------------------------------------

startTheme();
showPrompts();
startTop();
startAttention();
startHeatmap();
byId("cells").addEventListener("toggle", showCells);
fillList(byId("provenance"), page.provenance);
