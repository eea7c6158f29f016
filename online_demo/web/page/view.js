// What the page shows.

const NUM_ANSWERS = 10;
const NUM_TIMES = 100;      // answers that averages and percentiles are of
const REFRESH_MS = 500;     // of the figures: faster ones cannot be read
const OLD_MS = 1500;        // an answer that no newer one has followed for so long is old
const SPEAK_MS = 1500;      // between two answers that are read out
const TIMES = { capture_ms: "Capture", network_ms: "Network", draw_ms: "Drawing", transfer_ms: "Transfer", delay_ms: "Camera to answer" };

const byId = (id) => document.getElementById(id);

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

const percent = (probability) => `${Math.round(100 * probability)}\u00a0%`;

let times = {};             // the last values of each latency
let fps = 0;
let answered = -Infinity;   // when the last answer came
let isLive = false;
let lastLabel = null, surest = -1;  // the answer that holds, and the most certain that it has been
let spoken = "", spokenAt = -Infinity;

export function showAbout({ network, source, classes, todo }) {
  byId("about").textContent = `${source ?? "The cameras of browsers"} · ${network}`;
  byId("todo").textContent = todo;
  byId("classes").replaceChildren(...classes.map((name) => element("li", name)));
  markChip();
}

function markChip() {
  for (const chip of byId("classes").children) chip.classList.toggle("now", chip.textContent === lastLabel);
}

export function showAnswer(answer) {
  answered = performance.now();
  byId("label").textContent = answer.label || "–";
  byId("certainty").textContent = answer.certainty === null ? "" : percent(answer.certainty);
  document.body.classList.toggle("unsure", answer.unsure);
  updateTop(answer.top);
  for (const key of Object.keys(TIMES)) {
    if (answer[key] !== undefined) times[key] = [...(times[key] ?? []).slice(1 - NUM_TIMES), answer[key]];
  }
  fps = answer.fps ?? fps;
  if (answer.label !== lastLabel) {
    lastLabel = answer.label;
    markChip();
    surest = -1;
    if (answer.label && !answer.unsure) byId("history").prepend(historyItem());
    if (byId("history").children.length > NUM_ANSWERS) byId("history").lastChild.remove();
  }
  if (answer.label && !answer.unsure && answer.certainty > surest) {
    surest = answer.certainty;
    byId("history").firstChild.firstChild.textContent = `${answer.label}, ${percent(surest)}`;
  }
  refreshAge();
}

function updateTop(top) {
  const list = byId("top");
  while (list.children.length > top.length) list.lastChild.remove();
  while (list.children.length < top.length) {
    const item = element("li", "");
    item.append(element("div", "", "bar"), element("span", ""), element("span", ""));
    list.append(item);
  }
  top.forEach(([name, probability], index) => {
    const [bar, first, second] = list.children[index].children;
    bar.style.width = `${100 * probability}%`;
    first.textContent = name;
    second.textContent = percent(probability);
  });
}

function historyItem() {
  const item = element("li", "");
  item.append(element("span", ""), element("time", new Date().toLocaleTimeString()));
  return item;
}

// state: "live", "reconnecting", "ended", "paused", or "ready" for this device's camera; notice: a sentence with what to do, "" for none.
export function showState(state, notice) {
  isLive = state === "live";
  setText(byId("badge"), state);
  document.body.dataset.state = state;
  setText(byId("notice"), notice);
  refreshAge();
}

// Screen readers read out a text that is set, even to what it was.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function forgetAnswers() {
  times = {};
  answered = -Infinity;
  lastLabel = null;
  markChip();
  byId("label").textContent = "–";
  byId("certainty").textContent = "";
  document.body.classList.remove("unsure");
  updateTop([]);
  refreshAge();
}

function refreshAge() {
  document.body.classList.toggle("stale", !isLive || performance.now() - answered > OLD_MS);
}

function refreshFigures() {
  refreshAge();
  const rows = Object.entries(times).map(([key, values]) => {
    const sorted = [...values].sort((a, b) => a - b);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const p95 = sorted[Math.ceil(0.95 * sorted.length) - 1];
    const row = document.createElement("tr");
    const name = element("th", TIMES[key]);
    name.scope = "row";
    row.append(name, element("td", mean.toFixed(1)), element("td", p95.toFixed(1)));
    return row;
  });
  byId("times").replaceChildren(...rows);
  byId("rate").textContent = fps ? `${fps.toFixed(1)} pictures a second` : "";
  const now = performance.now();
  const isSure = lastLabel && !document.body.classList.contains("unsure");
  if (isLive && isSure && lastLabel !== spoken && now - spokenAt > SPEAK_MS) {
    [spoken, spokenAt] = [lastLabel, now];
    byId("spoken").textContent = lastLabel;
  }
}

setInterval(refreshFigures, REFRESH_MS);
