// The page of a circuit, after common.js.
//
// The graph is an SVG picture in the page, in which a group has `data-node`, or `data-edge` with `data-from`
// and `data-to`: indices into page.nodes, and the `id` of one of page.edges, which has the strongest first.

const svg = byId("graph").querySelector("svg");
const edges = page.edges;
const nodes = page.nodes;

/** What is being looked at: how many edges, one node or none, and the edge pointed at or none. */
const chosen = { count: edges.length, node: null, edge: null };

/** The groups of each edge (its line, and its score if that is written there), and that of each node. */
const edgeGroups = new Map(edges.map((edge) => [edge.id, []]));
const nodeGroups = new Map();

const has = (edge, node) => edge.from === node || edge.to === node;
const shownEdges = () => edges.slice(0, chosen.count).filter((edge) => chosen.node === null || has(edge, chosen.node));

/** The name of an edge, as EAP-IG writes it. */
function nameOf(edge) {
  const reader = nodes[edge.to].name + (edge.input === null ? "" : `<${edge.input}>`);
  return `${nodes[edge.from].name}->${reader}`;
}

// ---- The graph -----------------------------------------------------------------------------------

/** Makes what was drawn answer to the mouse and the keyboard. */
function startGraph() {
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-labelledby", "graph-heading");
  svg.querySelectorAll("title, desc").forEach((title) => title.remove()); // The tooltip says the same.
  svg.querySelectorAll("[data-edge]").forEach((group) => {
    edgeGroups.get(Number(group.dataset.edge))?.push(group);
    const path = group.querySelector("path");
    if (!path) return;
    // A hair's breadth cannot be pointed at.
    const hit = path.cloneNode();
    for (const name of ["stroke", "stroke-width", "stroke-opacity"]) hit.removeAttribute(name);
    hit.setAttribute("class", "hit");
    group.append(hit);
  });
  svg.querySelectorAll("[data-node]").forEach((group, i) => {
    const node = Number(group.dataset.node);
    nodeGroups.set(node, group);
    group.setAttribute("role", "button");
    group.setAttribute("tabindex", i === 0 ? 0 : -1);
  });

  svg.addEventListener("mousemove", (event) => {
    const group = event.target.closest("[data-edge]");
    if (!group) return point(null);
    const at = new DOMRect(event.clientX, event.clientY, 0, 0);
    point(Number(group.dataset.edge), { getBoundingClientRect: () => at });
  });
  svg.addEventListener("mouseleave", () => point(null));
  svg.addEventListener("click", (event) => {
    const group = event.target.closest("[data-node]");
    if (!group) return;
    choose(Number(group.dataset.node));
    focusNode(group);
  });
  svg.addEventListener("keydown", (event) => {
    const group = event.target.closest("[data-node]");
    if (!group) return;
    if (event.key in ARROWS) {
      const next = nextNode(group, ARROWS[event.key]);
      if (next) focusNode(next);
    } else if (event.key === "Enter" || event.key === " ") {
      choose(Number(group.dataset.node));
    } else {
      return;
    }
    event.preventDefault(); // the page does not scroll as well
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") choose(null);
  });
  addEventListener("scroll", hideTooltip, { passive: true, capture: true });
}

const ARROWS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };

/** The node nearest to another in a direction: sideways in its row, upwards and downwards in the next. */
function nextNode(from, [right, down]) {
  const middle = (group) => {
    const box = group.getBBox();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const [x, y] = middle(from);
  const SAME_ROW = 8;
  let best = null;
  for (const group of nodeGroups.values()) {
    const [dx, dy] = [middle(group)[0] - x, middle(group)[1] - y];
    const ahead = right ? Math.abs(dy) < SAME_ROW && dx * right > 0 : dy * down > SAME_ROW;
    // The next row comes before what is straight ahead in a farther one.
    const distance = right ? Math.abs(dx) : Math.abs(dy) * 100 + Math.abs(dx);
    if (ahead && (best === null || distance < best.distance)) best = { group, distance };
  }
  return best?.group;
}

function focusNode(group) {
  svg.querySelectorAll('[data-node][tabindex="0"]').forEach((other) => other.setAttribute("tabindex", -1));
  group.setAttribute("tabindex", 0);
  group.focus();
}

/** Shows the edges of a node alone; of the one that is chosen already, or of none, all. */
function choose(node) {
  chosen.node = node === chosen.node ? null : node;
  show();
}

/** Lights an edge, with its numbers beside the element. */
function point(id, element = null) {
  if (id !== chosen.edge) {
    edgeGroups.get(chosen.edge)?.forEach((group) => group.classList.remove("lit"));
    edgeGroups.get(id)?.forEach((group) => group.classList.add("lit"));
    chosen.edge = id;
  }
  if (id === null || element === null) return hideTooltip();
  const rank = edges.findIndex((edge) => edge.id === id);
  if (rank < 0) return hideTooltip();
  showTooltip(element, [
    ["edge", nameOf(edges[rank])],
    ["score", signed(edges[rank].score)],
    ["rank", `${rank + 1} of ${edges.length}`],
  ]);
}

/** Draws what is chosen. */
function show() {
  const shown = new Set(shownEdges().map((edge) => edge.id));
  edges.forEach((edge, rank) => {
    for (const group of edgeGroups.get(edge.id)) {
      group.classList.toggle("gone", rank >= chosen.count);
      group.classList.toggle("dimmed", !shown.has(edge.id));
    }
  });
  const isNear = (node) => node === chosen.node || shownEdges().some((edge) => has(edge, node));
  for (const [node, group] of nodeGroups) {
    const drawn = edges.slice(0, chosen.count);
    const into = drawn.filter((edge) => edge.to === node).length;
    const out = drawn.filter((edge) => edge.from === node).length;
    group.classList.toggle("dimmed", !isNear(node));
    group.setAttribute("aria-pressed", node === chosen.node);
    group.setAttribute("aria-label", `${nodes[node].label}: ${into} edge${into === 1 ? "" : "s"} in, ${out} out`);
  }
  byId("shown").textContent = chosen.count;
  byId("all").disabled = chosen.node === null;
  byId("chosen").textContent = chosen.node === null
    ? `${chosen.count} edges between ${nodes.length} nodes. Scores: ${page.score_label}`
    : nodeGroups.get(chosen.node).getAttribute("aria-label");
  showEdges();
}

// ---- The table of edges ----------------------------------------------------------------------------

const edgeTable = sortableTable(
  "",
  [
    { title: "rank", type: "number", value: (edge) => edge.rank },
    {
      title: "edge",
      type: "word",
      value: nameOf,
      show: (edge) => make("button", { type: "button", "data-id": edge.id }, nameOf(edge)),
    },
    {
      title: "score",
      type: "number",
      value: (edge) => edge.score,
      show: (edge) => make("span", { class: "score" }, signed(edge.score)),
    },
  ],
  (edge) => (edge.score === null ? "" : edge.score < 0 ? "low" : "high"),
);

function startEdges() {
  byId("edges").append(edgeTable.element);
  const on = (type, act) =>
    edgeTable.element.addEventListener(type, (event) => {
      const button = event.target.closest("tr")?.querySelector("[data-id]");
      if (button) act(Number(button.dataset.id));
    });
  for (const type of ["mouseover", "focusin"]) on(type, (id) => point(id));
  for (const type of ["mouseleave", "focusout"]) edgeTable.element.addEventListener(type, () => point(null));
}

function showEdges() {
  const ranked = new Map(edges.map((edge, i) => [edge.id, i + 1]));
  const of = chosen.node === null ? "" : ` of ${nodes[chosen.node].label}`;
  edgeTable.setCaption(`edges${of}`);
  edgeTable.fill(shownEdges().map((edge) => ({ ...edge, rank: ranked.get(edge.id) })));
}

// ---- Go ------------------------------------------------------------------------------------------

startTheme();
byId("title").textContent = document.title = page.title;
byId("subtitle").replaceChildren(...page.subtitle.map((line) => make("p", {}, line)));
byId("count").max = byId("count").value = edges.length;
byId("count").addEventListener("input", () => {
  chosen.count = Number(byId("count").value);
  show();
});
byId("all").addEventListener("click", () => choose(null));
startGraph();
startEdges();
show();
fillList(byId("provenance"), page.provenance);
