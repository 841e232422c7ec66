// The table of models, and which colour each has: in the order they were seen, then again.
import { el } from "/ui/lanes.js";
import { seconds } from "/ui/page.js";
import { stack } from "/ui/tiers.js";

const COLOURS = 8;
const seen = new Map();
const rows = new Map();

export function colour(model) {
  if (!seen.has(model)) seen.set(model, seen.size % COLOURS);
  return `var(--m${seen.get(model)})`;
}

export function drawModels(body, models) {
  models.forEach((one) => colour(one.name));
  const most = Math.max(4, ...models.map((one) => one.held));
  const names = new Set(models.map((one) => one.name));
  for (const [name, row] of rows) if (!names.has(name)) { row.remove(); rows.delete(name); }
  models.forEach((one, at) => {
    if (!rows.has(one.name)) rows.set(one.name, make(one.name));
    const row = rows.get(one.name);
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] ?? null);
    fill(row.cells, one, most);
  });
}

function make(name) {
  const row = el("tr"), chip = el("span", "chip");
  chip.style.background = colour(name);
  const first = el("td", "name");
  first.append(chip, name, el("span", "why"));
  const at = el("td", "at"), state = el("span", "state");
  at.append(state);
  const waiting = cell("waiting", "Queue"), queue = el("div", "queue"), bar = el("div", "bar");
  bar.append(el("i"));
  queue.append(el("span"), bar);
  waiting.append(queue);
  row.append(first, at, waiting, cell("number", "Median"), cell("number", "95 %"),
    cell("number", "Longest"), cell("found", "Found in"), cell("number", "Answered"));
  return row;
}

function cell(kind, label) {
  const made = el("td", kind);
  made.dataset.label = label;
  return made;
}

const PLACES = { vram: "VRAM", ram: "in RAM", nvme: "on NVMe", object: "in S3" };
function fill(cells, one, most) {
  const [name, at, waiting, p50, p95, max, found, answered] = cells;
  const why = one.why.toLowerCase() === one.state.toLowerCase() ? "" : one.why;
  put(name.lastChild, why);
  name.lastChild.title = why;
  const state = at.firstChild;
  state.dataset.state = one.state;
  put(state, one.state === "Parked" && PLACES[one.tier] ? `Parked ${PLACES[one.tier]}` : one.state);
  const [number, bar] = waiting.firstChild.children;
  put(number, String(one.held));
  bar.firstChild.style.width = `${(100 * one.held) / most}%`;
  const none = one.wait.count === 0;
  put(p50, none ? "–" : seconds(one.wait.p50));
  put(p95, none ? "–" : seconds(one.wait.p95));
  put(max, none ? "–" : seconds(one.wait.max));
  found.replaceChildren(one.requests ? stack(one.hits, one.requests) : el("span", "none", "–"));
  put(answered, String(one.answered));
}

function put(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
