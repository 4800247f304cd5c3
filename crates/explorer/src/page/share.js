// Keep and share: the command that computes the same numbers, and the files that it writes.

import { question } from "./state.js";
import { file } from "./api.js";

export function showCommand(command) {
  byId("command").textContent = command;
}

/** Saves a blob under a name. */
export function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function copy() {
  const said = byId("shared");
  try {
    await navigator.clipboard.writeText(byId("command").textContent);
    said.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(byId("command"));
    said.textContent = "the command is selected: press Ctrl+C";
  }
}

async function exportAs(form) {
  const said = byId("shared");
  said.textContent = `writing ${form.toUpperCase()}…`;
  const { blob, refused } = await file({ ask: question(), form });
  if (refused) {
    said.textContent = refused.message ?? "";
    return;
  }
  save(blob, `patching.${form}`);
  said.textContent = `patching.${form}: ${blob.size} bytes`;
}

export function startShare() {
  byId("copy").addEventListener("click", copy);
  document.querySelectorAll("button[data-form]").forEach((button) => {
    button.addEventListener("click", () => exportAs(button.dataset.form));
  });
}
