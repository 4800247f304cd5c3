// The fields of the question: what is typed goes into the state, and back.

import { QUESTION, on, set, state } from "./state.js";
import { newest } from "./api.js";

const TEXTS = ["clean", "corrupted", "a", "b"];
const CHOICES = ["metric", "scale", "site", "direction"];

const complete = newest("complete");

function choices() {
  const options = (names, label = (name) => name) =>
    names.map((name) => make("option", { value: name }, label(name)));
  byId("metric").replaceChildren(...page.metrics.map(({ name, label }) => make("option", { value: name }, label)));
  byId("scale").replaceChildren(...options(page.scales));
  byId("site").replaceChildren(...options(page.sites.map((site) => site.name)));
  const words = { denoising: "denoising (clean into corrupted)", noising: "noising (corrupted into clean)" };
  byId("direction").replaceChildren(...options(Object.keys(words), (name) => words[name]));
}

/** Writes the state into the fields, but not into the one that is being typed in. */
function show() {
  for (const name of [...TEXTS, ...CHOICES]) {
    if (byId(name).value !== state[name]) byId(name).value = state[name];
  }
  // A field does not show whether a space stands in front.
  for (const name of ["a", "b"]) byId(`${name}-shown`).textContent = state[name].replace(/ /g, "␣");
}

/** Marks the field that is wrong, and says why. */
export function refuse(refused) {
  for (const name of QUESTION) byId(name).removeAttribute?.("aria-invalid");
  const box = byId("refused");
  box.hidden = refused === null;
  if (refused === null) return;
  box.textContent = refused.message;
  if (refused.field && byId(refused.field)) byId(refused.field).setAttribute("aria-invalid", "true");
}

export function startFields() {
  choices();
  show();
  on(QUESTION, show);
  byId("question").addEventListener("submit", (event) => event.preventDefault());
  for (const name of TEXTS) byId(name).addEventListener("input", (event) => set({ [name]: event.target.value }));
  for (const name of CHOICES) {
    byId(name).addEventListener("change", (event) => {
      // Another site has other cells.
      const other = name === "site" ? { cell: null } : {};
      set({ [name]: event.target.value, ...other });
    });
  }
  for (const name of ["a", "b"]) {
    byId(name).addEventListener("input", (event) => {
      complete({ text: event.target.value }, ({ completions }) => {
        if (!completions) return;
        byId("completions").replaceChildren(...completions.map((text) => make("option", { value: text })));
      });
    });
  }
}
