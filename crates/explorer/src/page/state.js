// What is asked and looked at: one plain object, which is also what the address says behind the #.

export const RUNS = ["clean", "corrupted"];

const DEFAULTS = {
  ...page.start,
  metric: "logit_diff",
  scale: "value",
  site: "resid_post",
  direction: "denoising",
  given: [], // edits that stay: {site, layer, head, pos, value}
  cell: null, // [row, column]; null is the strongest
  head: null, // [layer, head] whose pattern is shown
  dest: null, // the position whose attention is shown; null is the last
  lens: false,
  reader: null,
  pins: [], // names of edges
  tour: null,
};

/** What a sweep depends on. */
export const QUESTION = ["clean", "corrupted", "a", "b", "metric", "scale", "site", "direction", "given"];

/** What is typed, key by key. */
const TYPED = ["clean", "corrupted", "a", "b"];

/** What can be undone. */
const UNDOABLE = [...QUESTION, "cell", "head", "reader", "pins"];

export const state = structuredClone(DEFAULTS);

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const listeners = [];

/** Calls `act` with the names of what has changed, whenever one of these has. */
export function on(names, act) {
  listeners.push({ names, act });
}

function tell(changed) {
  for (const { names, act } of listeners) if (names.some((name) => changed.includes(name))) act(changed);
}

// ---- Undo and redo -------------------------------------------------------------------------------

const past = [];
const future = [];
const MOST_PAST = 200;
/** What was changed last, and when: typing on in one field is one step. */
let last = { names: "", time: 0 };

const snapshot = () => structuredClone(Object.fromEntries(UNDOABLE.map((name) => [name, state[name]])));

export const canUndo = () => past.length > 0;
export const canRedo = () => future.length > 0;

function step(from, to) {
  if (from.length === 0) return;
  to.push(snapshot());
  last = { names: "", time: 0 };
  apply(from.pop());
}

export const undo = () => step(past, future);
export const redo = () => step(future, past);

// ---- Changes -------------------------------------------------------------------------------------

function apply(changes) {
  const changed = Object.keys(changes).filter((name) => !same(state[name], changes[name]));
  for (const name of changed) state[name] = structuredClone(changes[name]);
  if (changed.length === 0) return changed;
  writeAddress();
  tell(changed);
  return changed;
}

/** Changes what is asked or looked at. */
export function set(changes) {
  const before = snapshot();
  const names = Object.keys(changes).filter((name) => !same(state[name], changes[name]));
  if (names.some((name) => UNDOABLE.includes(name))) {
    const isTyped = names.length === 1 && TYPED.includes(names[0]);
    const goesOn = isTyped && names.join() === last.names && Date.now() - last.time < 1000;
    if (!goesOn) past.push(before);
    if (past.length > MOST_PAST) past.shift();
    future.length = 0;
    last = { names: names.join(), time: Date.now() };
  }
  apply(changes);
}

/** What the server is asked. */
export function question() {
  return Object.fromEntries(QUESTION.map((name) => [name, state[name]]));
}

// ---- The address ---------------------------------------------------------------------------------

/** An edit as the command line writes it: z9.9@3=zero. */
export function editText({ site, layer, head, pos, value }) {
  return `${site}${layer}${head === null ? "" : `.${head}`}${pos === null ? "" : `@${pos}`}=${value}`;
}

function editOf(text) {
  const found = /^([a-z_]+)(\d{1,4})(?:\.(\d{1,4}))?(?:@(\d{1,5}))?=(source|zero|mean)$/.exec(text);
  if (!found) return null;
  const [, site, layer, head, pos, value] = found;
  const place = (digits) => (digits === undefined ? null : Number(digits));
  return { site, layer: Number(layer), head: place(head), pos: place(pos), value };
}

const pairText = (pair) => pair.join(".");
const pairOf = (text) => (/^\d{1,5}\.\d{1,5}$/.test(text) ? text.split(".").map(Number) : null);
const listOf = (text) => text.split(",").filter((part) => part !== "");

/** For what is not a text, how it is written and read. */
const FORMS = {
  given: [(edits) => edits.map(editText).join(), (text) => listOf(text).map(editOf).filter((edit) => edit)],
  cell: [pairText, pairOf],
  head: [pairText, pairOf],
  dest: [String, (text) => (/^\d{1,5}$/.test(text) ? Number(text) : null)],
  lens: [() => "1", (text) => text === "1"],
  pins: [(pins) => pins.join(), listOf],
  tour: [String, (text) => (/^\d$/.test(text) ? Number(text) : null)],
};

let writing = null;

function addressOf(of) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(of)) {
    if (!same(value, DEFAULTS[name])) params.set(name, FORMS[name] ? FORMS[name][0](value) : value);
  }
  return `#${params}`;
}

function writeAddress() {
  // Browsers allow a few writes a second, and typing is faster.
  clearTimeout(writing);
  writing = setTimeout(() => history.replaceState(null, "", addressOf(state)), 150);
}

/** Takes over what the address says. */
export function readAddress() {
  const params = new URLSearchParams(location.hash.slice(1));
  const changes = structuredClone(DEFAULTS);
  for (const name of Object.keys(DEFAULTS)) {
    const text = params.get(name);
    if (text !== null) changes[name] = FORMS[name] ? FORMS[name][1](text) : text;
  }
  apply(changes);
}

addEventListener("hashchange", () => {
  if (location.hash !== addressOf(state)) readAddress();
});
