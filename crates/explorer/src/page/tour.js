// A tour of five stations for learners: each has one thing to try, and says what one should see.

import { on, set, state } from "./state.js";

const START = { ...page.start, metric: "logit_diff", scale: "value", site: "resid_post", direction: "denoising", given: [] };

/** How far down the model the surname has moved on: two thirds. */
const LATE = Math.floor((2 * page.n_layer) / 3);

const STATIONS = [
  {
    title: "Tokens",
    at: "question-heading",
    text:
      "A model does not read letters but tokens: pieces of words, each with a number. Below the two prompts you see " +
      "theirs, one column for each position. The prompts may differ in words, but not in how many tokens they have: " +
      "otherwise there would be no place to put an activation into.",
    trial: "Change Jones into Robinson-Smythe in the clean prompt.",
    sight: "The rows no longer fit: the page shows where they part, and computes nothing. Undo brings them back.",
    does: () => set({ clean: START.clean.replace("Jones", "Robinson-Smythe") }),
  },
  {
    title: "Attention",
    at: "attention",
    text:
      "Each layer has heads. A head lets every position look back at earlier ones and fetch something from there. The " +
      "darker a token, the more of the chosen token's attention it gets; in the squares each row is a token that looks.",
    trial: `Choose head ${Math.min(3, page.n_head - 1)} of layer ${LATE}, then others, and look where the last Michelle attends.`,
    sight:
      "Some heads look at the token before, some at the first Michelle or right behind it: there the surname is. In the " +
      "patched run the pattern is often the same, but what is fetched differs.",
    does: () => set({ ...START, head: [LATE, Math.min(3, page.n_head - 1)], dest: null }),
  },
  {
    title: "The residual stream",
    at: "lens-section",
    text:
      "Every layer adds something to a row of numbers for each position, the residual stream. Its last row says the next " +
      "token. The logit lens reads earlier rows as if they were the last: what would the model say if it stopped there?",
    trial: "Show the logit lens, and read the last column from the bottom up.",
    sight: "Below it says anything; towards the top the last column says the surname. The answer arrives late, and at the end.",
    does: () => set({ ...START, lens: true }),
  },
  {
    title: "One patch by hand",
    at: "next-section",
    text:
      "Now put one single activation of the Jones run into the Smith run, and let the model go on from there. One click in " +
      "the heatmap does that: the third table is what the patched run says.",
    trial: `Click the cell at layer 0, position 1, and then the one at layer ${page.n_layer - 1}, position 1.`,
    sight:
      "The first turns Smith into Jones: the surname itself was put in. The second changes nothing: by then the surname " +
      "has moved on to another position.",
    does: () => set({ ...START, cell: [0, 1] }),
  },
  {
    title: "The whole sweep",
    at: "heatmap-section",
    text:
      "The heatmap is this for every layer and every position at once. Blue cells still favour Smith: what was replaced " +
      "there did not matter. Red cells favour Jones: that one activation carries the surname.",
    trial: "Follow the red from the top left to the bottom right. Then choose the other direction, noising.",
    sight:
      `The surname sits at its own token, position 1, and moves to the last token in the layers around ${LATE}. With ` +
      "noising the colours change sides: what is needed shows where it was enough before.",
    does: () => set({ ...START, cell: null }),
  },
];

function show() {
  document.querySelectorAll(".toured").forEach((element) => element.classList.remove("toured"));
  const tour = byId("tour");
  const station = STATIONS[state.tour];
  tour.hidden = !station;
  if (!station) return;
  const button = (text, act, id) => {
    const element = make("button", { type: "button", id }, text);
    element.addEventListener("click", act);
    return element;
  };
  const last = state.tour === STATIONS.length - 1;
  const back = button("Back", () => set({ tour: state.tour - 1 }), "tour-back");
  back.disabled = state.tour === 0;
  tour.replaceChildren(
    make("h2", { id: "tour-title" }, `${state.tour + 1} of ${STATIONS.length}: ${station.title}`),
    make("p", {}, station.text),
    make("p", {}, make("strong", {}, "Try: "), station.trial, " ", button("Do it for me", station.does, "tour-do")),
    make("p", {}, make("strong", {}, "You should see: "), station.sight),
    make(
      "div",
      { class: "controls" },
      back,
      button(last ? "End the tour" : "Next", () => set({ tour: last ? null : state.tour + 1 }), "tour-next"),
      button("Leave", () => set({ tour: null }), "tour-end"),
    ),
  );
  const target = byId(station.at).closest("section");
  target.classList.add("toured");
  const top = target.getBoundingClientRect().top + scrollY - tour.offsetHeight - 30;
  scrollTo({ top: Math.max(0, top) });
}

export function startTour() {
  byId("tour-start").addEventListener("click", () => set({ tour: 0 }));
  on(["tour"], show);
  show();
}
