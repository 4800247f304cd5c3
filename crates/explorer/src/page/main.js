// What sets the page going: a sweep whenever the question changes, and what else depends on it.

import { QUESTION, canRedo, canUndo, on, question, readAddress, redo, set, state, undo } from "./state.js";
import { newest } from "./api.js";
import { refuse, startFields } from "./fields.js";
import { grid, markChosen, markStale, showGiven, showGrid, startGrid } from "./grid.js";
import { look, showUnpatched, startLook } from "./look.js";
import { showLens, startLens } from "./lens.js";
import { refreshCircuit, startCircuit } from "./circuit.js";
import { showCommand, startShare } from "./share.js";
import { showTokens } from "./tokens.js";
import { startTour } from "./tour.js";

const ask = newest("sweep");

/** When the key was pressed that asked for the sweep under way. */
let asked = 0;
/** The values that were predicted for it; null if there are none. */
let predicted = null;

function progress(share) {
  const bar = byId("progress");
  if (share === null) bar.dataset.idle = "";
  else delete bar.dataset.idle;
  bar.value = share ?? 0;
}

/** One line of the answer to a sweep. */
function take(line) {
  if (line.rows) showTokens(line.rows);
  if (line.command) showCommand(line.command);
  if (line.progress) progress(line.progress);
  if (line.preview) {
    predicted = line.preview.values;
    showGrid(line.preview, predicted.map(() => true));
  }
  if (line.part) {
    // What is not done yet is what was predicted.
    const values = line.part.values.map((value, i) => value ?? predicted?.[i] ?? null);
    showGrid({ ...line.part, values }, line.part.values.map((value) => value === null));
  }
  if (line.grid) {
    refuse(null);
    markStale(false);
    showGrid(line.grid);
    const shown = ((performance.now() - asked) / 1000).toFixed(3);
    byId("timing").textContent =
      `${line.grid.values.length} patched runs in ${line.grid.seconds.toFixed(3)} s; ${shown} s after the question` +
      (line.grid.missing > 0 ? `; ${line.grid.missing} have no finite metric.` : ".");
    document.documentElement.dataset.sweeps = Number(document.documentElement.dataset.sweeps ?? 0) + 1;
  }
  if (line.next) {
    progress(null);
    showUnpatched(line.next);
    // What looks closer comes after the sweep.
    look();
    showLens();
    refreshCircuit();
  }
  if (line.refused) {
    progress(null);
    refuse(line.refused);
  }
}

function sweep() {
  asked = performance.now();
  predicted = null;
  document.documentElement.dataset.asked = Number(document.documentElement.dataset.asked ?? 0) + 1;
  markStale(true);
  showGiven();
  ask({ ask: question() }, take);
}

function showSteps() {
  byId("undo").disabled = !canUndo();
  byId("redo").disabled = !canRedo();
}

function startSteps() {
  byId("undo").addEventListener("click", undo);
  byId("redo").addEventListener("click", redo);
  addEventListener("keydown", (event) => {
    // Fields undo their own typing.
    if (!event.ctrlKey || event.target.matches("input:not([type=checkbox])")) return;
    const key = event.key.toLowerCase();
    if (key === "z" && !event.shiftKey) undo();
    else if (key === "y" || key === "z") redo();
    else return;
    event.preventDefault();
  });
  on(Object.keys(state), showSteps);
  showSteps();
}

readAddress();
startTheme();
startFields();
startGrid();
startLook();
startLens();
startShare();
startSteps();
on(QUESTION, sweep);
on(["cell"], () => grid && markChosen());
sweep();
startCircuit();
startTour();
// For whoever looks with the browser's tools.
window.explorer = { state, set };
