// Who was active on each GPU: one lane each, the newest at the right edge.
import { colour } from "/ui/models.js";
import { seconds } from "/ui/page.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 40, ROW = 27, LETTER = 7.4, SLACK = 0.5;

export class Lanes {
  constructor(place, detail) {
    this.place = place;
    this.detail = detail;
    this.rows = new Map();
    this.chosen = null;  // {key, from} of the turn that is read
  }

  draw(board) {
    const known = new Set();
    for (const lane of board.lanes) {
      const key = `${lane.node}/${lane.gpu}`;
      known.add(key);
      if (!this.rows.has(key)) this.rows.set(key, this.#make(key, lane));
      this.#fill(this.rows.get(key), key, lane, board.now, board.span);
    }
    for (const [key, row] of this.rows) if (!known.has(key)) { row.box.remove(); this.rows.delete(key); }
    this.#axis(board.span);
    if (!this.chosen) this.detail.textContent = sentence(board);
  }

  // Between two messages time goes on.
  slide(board, ahead) {
    for (const lane of board.lanes) {
      const key = `${lane.node}/${lane.gpu}`;
      if (this.rows.has(key)) this.#paint(this.rows.get(key), key, lane, board.now + ahead, board.span);
    }
  }

  #make(key, lane) {
    const box = el("div", "lane"), name = el("div", "lane-name"), used = el("div", "used");
    name.append(el("b", "", `GPU ${lane.gpu} on ${lane.node}`), el("span", "quiet"), used);
    used.append(el("i"));
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("role", "img");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.addEventListener("keydown", (event) => this.#key(event, key));
    svg.addEventListener("pointermove", (event) => { if (event.target.turn) this.#choose(key, event.target.turn); });
    svg.addEventListener("focus", () => this.#step(key, 0));
    box.append(name, svg);
    this.place.querySelector(".axis")?.remove();
    this.place.append(box);
    return { box, svg, used, words: name.children[1], turns: [] };
  }

  #fill(row, key, lane, now, span) {
    const gib = (bytes) => (bytes / 2 ** 30).toFixed(0);
    row.words.textContent = lane.memory ? `${gib(lane.used)} of ${gib(lane.memory)} GiB` : "";
    row.used.firstChild.style.width = lane.memory ? `${(100 * lane.used) / lane.memory}%` : "0";
    const active = lane.spans.filter((one) => one.kind === "active" && one.to === null).map((one) => one.model);
    const turns = lane.spans.filter((one) => one.kind === "active").length;
    row.svg.setAttribute("aria-label", `GPU ${lane.gpu} on ${lane.node}: ${active.length ? `${active.join(" and ")} active` : "nobody active"}, ${turns} turns in ${span} seconds. Arrow keys read them.`);
    this.#paint(row, key, lane, now, span);
  }

  #paint(row, key, lane, now, span) {
    const width = row.svg.clientWidth || 600;
    row.turns = lane.spans.map((one) => ({ ...one, now }));
    const rows = rowsOf(row.turns), high = Math.max(HEIGHT, ROW * rows.count);
    row.svg.setAttribute("viewBox", `0 0 ${width} ${high}`);
    row.svg.style.height = `${high}px`;
    const shapes = [];
    for (const turn of row.turns) {
      const x = (time) => width * (1 - (now - time) / span);
      const left = Math.max(0, x(turn.from)), right = Math.min(width, x(turn.to ?? now));
      if (right <= 0 || right - left < 0.2) continue;
      const share = high / rows.count;
      shapes.push(...this.#shape(turn, key, left, right - left, rows.at.get(turn) * share, share));
    }
    row.svg.replaceChildren(...shapes);
  }

  #shape(turn, key, left, width, top, high) {
    const rect = document.createElementNS(SVG, "rect");
    const gap = width > 4 ? 1 : 0;
    const place = { x: left, y: top + 1, width: Math.max(0.8, width - gap), height: high - 2, rx: 3 };
    for (const [name, value] of Object.entries(place)) rect.setAttribute(name, value.toFixed(1));
    rect.style.fill = colour(turn.model);
    const chosen = this.chosen?.key === key && this.chosen.from === turn.from && this.chosen.model === turn.model;
    rect.setAttribute("class", `${turn.kind}${chosen ? " chosen" : ""}`);
    rect.turn = turn;
    const room = Math.floor((width - 14) / LETTER);
    if (turn.kind !== "active" || room < 4 || high < 16) return [rect];
    const label = document.createElementNS(SVG, "text");
    label.setAttribute("x", (left + 7).toFixed(1));
    label.setAttribute("y", (top + high / 2 + 4).toFixed(1));
    label.textContent = room >= turn.model.length ? turn.model : room < 6 ? "" : `${turn.model.slice(0, room - 1)}…`;
    return [rect, label];
  }

  #key(event, key) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.#step(key, steps[event.key]);
  }

  #step(key, by) {
    const turns = this.rows.get(key).turns.filter((one) => one.kind === "active");
    if (!turns.length) return;
    const at = this.chosen?.key === key
      ? turns.findIndex((one) => one.from === this.chosen.from && one.model === this.chosen.model) : -1;
    const from = at < 0 ? turns.length - 1 : at;
    this.#choose(key, turns[Math.min(turns.length - 1, Math.max(0, from + by))]);
  }

  #choose(key, turn) {
    this.chosen = { key, from: turn.from, model: turn.model };
    this.detail.setAttribute("aria-live", "polite");  // read out what was asked for, not each second
    const what = turn.kind === "active" ? "was active" : "was on its way";
    this.detail.textContent = turn.to === null
      ? `${turn.model}: ${turn.kind === "active" ? "active" : "on its way"} for ${seconds(turn.now - turn.from)}`
      : `${turn.model}: ${what} for ${seconds(turn.to - turn.from)}, until ${seconds(turn.now - turn.to)} ago`;
  }

  #axis(span) {
    if (this.place.querySelector(".axis") || !this.rows.size) return;
    const axis = el("div", "axis"), marks = el("div");
    marks.append(...[1, 0.75, 0.5, 0.25].map((one) => el("span", "", `${Math.round(span * one)} s ago`)), el("span", "", "now"));
    axis.setAttribute("aria-hidden", "true");
    axis.append(el("div"), marks);
    this.place.append(axis);
  }
}

// What is so now, while nobody reads a turn.
function sentence(board) {
  const now = board.lanes.flatMap((lane) => lane.spans.filter((one) => one.to === null && one.kind === "active"));
  const words = now.map((one) => `${one.model} active for ${seconds(board.now - one.from)}`);
  return words.length ? words.slice(0, 4).join(", ") : "Nobody is active.";
}

// Where several are on a card at once each has a row: on its way in, active and out in the same one.
function rowsOf(spans) {
  const stays = [], last = new Map(), ends = [], at = new Map();
  for (const one of [...spans].sort((a, b) => a.from - b.from)) {
    let stay = last.get(one.model);
    if (!stay || one.from > stay.to + SLACK) stays.push(stay = { from: one.from, to: 0, spans: [] });
    last.set(one.model, stay);
    stay.to = Math.max(stay.to, one.to ?? Infinity);
    stay.spans.push(one);
  }
  for (const stay of stays) {
    let row = ends.findIndex((end) => end <= stay.from + SLACK);
    if (row < 0) row = ends.length;
    ends[row] = stay.to;
    for (const one of stay.spans) at.set(one, row);
  }
  return { at, count: Math.max(1, ends.length) };
}

export function el(tag, kind = "", text = "") {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text) made.textContent = text;
  return made;
}
