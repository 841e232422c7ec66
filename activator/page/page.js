// The connection, the figures at the top, and who draws what. No text of others becomes markup.
import { Lanes } from "/ui/lanes.js";
import { drawModels } from "/ui/models.js";
import { drawTiers } from "/ui/tiers.js";

export const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const lanes = new Lanes($("lanes"), $("turn"));
let latest = null, heard = 0, held = false;

function connect() {
  const source = new EventSource("/ui/events");
  source.onmessage = (event) => {
    heard = Date.now();
    latest = JSON.parse(event.data);
    tellLink();
    if (!held) draw();
  };
  source.onerror = () => {
    tellLink();
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 1000);
  };
  return source;
}

// Milliseconds without a word after which it is lost: the activator sends one every five seconds.
const SILENT = Number(new URLSearchParams(location.search).get("silent")) || 12000;
function tellLink() {
  const silent = Date.now() - heard > SILENT;
  const lost = heard > 0 && silent;
  const state = held ? "held" : lost ? "lost" : heard ? "live" : "wait";
  $("link").dataset.link = state;
  const words = { held: "paused", lost: "reconnecting", live: "live", wait: "connecting" };
  if ($("link-text").textContent !== words[state]) $("link-text").textContent = words[state];
  root.classList.toggle("stale", lost);
  $("lost").hidden = !lost;
  if (lost) {
    const since = new Date(heard).toLocaleTimeString();
    $("lost").textContent = `The activator does not answer. This is how it stood at ${since}; trying again every second.`;
  }
}

// [number, unit]: 4 ms, 0.80 s, 42 s.
export const parts = (value) => value < 0.1 ? [(value * 1000).toFixed(0), "ms"]
  : [value >= 10 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : value.toFixed(2), "s"];
export const seconds = (value) => parts(value).join("\u00a0");
const share = (part, whole) => (whole ? Math.round((100 * part) / whole) : 0);

function figure(id, value, unit, note) {
  const small = document.createElement("small");
  small.textContent = unit;
  $(id).replaceChildren(String(value), ...(unit ? [small] : []));
  $(`${id}-note`).textContent = note;
}

function draw() {
  const { counts, hits, wait, models } = latest;
  const all = Object.values(hits).reduce((sum, one) => sum + one, 0);
  const active = models.filter((one) => one.state === "Active").length;
  $("summary").textContent = `${models.length} models, ${active} active, ${latest.lanes.length} GPU${latest.lanes.length === 1 ? "" : "s"}`;
  figure("held", counts.held, "", `${counts.running} being answered`);
  figure("answered", counts.answered, "", counts.turned_away ? `${counts.turned_away} turned away` : "none turned away");
  figure("hit", all ? share(hits.vram, all) : "–", all ? "%" : "", `of ${all} requests`);
  figure("p50", ...(wait.count ? parts(wait.p50) : ["–", ""]), `last ${wait.count} requests`);
  figure("p95", ...(wait.count ? parts(wait.p95) : ["–", ""]), wait.count ? `99 of 100: ${seconds(wait.p99)}` : "");
  figure("switches", latest.switches, "", latest.now ? `${(latest.switches / latest.now * 60).toFixed(1)} a minute` : "");
  $("empty").hidden = models.length > 0;
  $("models-panel").hidden = models.length === 0;
  $("lanes-panel").hidden = latest.lanes.length === 0;
  $("tiers-panel").hidden = all === 0;
  lanes.draw(latest);
  drawTiers($("tiers"), $("tiers-note"), hits, all);
  drawModels($("models").tBodies[0], models);
}

const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };
function setTheme(theme) {
  if (theme === "auto") delete root.dataset.theme;
  else root.dataset.theme = theme;
  $("theme").textContent = THEMES[theme];
  $("theme").setAttribute("aria-label", `Colours: ${theme === "auto" ? "as the system" : theme}`);
  try { localStorage.setItem("kyb-theme", theme); } catch { /* private windows keep nothing */ }
}
$("theme").onclick = () => {
  const order = Object.keys(THEMES);
  setTheme(order[(order.indexOf(root.dataset.theme ?? "auto") + 1) % order.length]);
};
let remembered = null;
try { remembered = localStorage.getItem("kyb-theme"); } catch { /* likewise */ }
setTheme(remembered in THEMES ? remembered : "auto");

$("hold").onclick = () => {
  held = !held;
  $("hold").setAttribute("aria-pressed", String(held));
  $("hold").textContent = held ? "Go on" : "Pause";
  tellLink();
  if (!held && latest) draw();
};

let source = connect();
setInterval(tellLink, 1000);
setInterval(() => { if (latest && !held && Date.now() - heard < SILENT) lanes.slide(latest, (Date.now() - heard) / 1000); }, 200);
document.addEventListener("visibilitychange", () => {
  // A page nobody sees costs the activator nothing.
  if (document.hidden) source.close();
  else { source.close(); source = connect(); }
});
