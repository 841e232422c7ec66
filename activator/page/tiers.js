// Where a request found its model's contents, from hot to cold.
import { el } from "/ui/lanes.js";

export const TIERS = { vram: "VRAM", ram: "RAM", nvme: "NVMe", object: "Object store", none: "No pod" };

export function stack(hits, all) {
  const bar = el("div", "stack");
  const words = [];
  for (const [tier, name] of Object.entries(TIERS)) {
    if (!hits[tier]) continue;
    const part = el("i");
    part.style.flex = `${hits[tier]} 0 0`;
    part.style.background = `var(--t-${tier})`;
    bar.append(part);
    words.push(`${name} ${percent(hits[tier], all)}`);
  }
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", words.join(", "));
  bar.title = words.join(", ");
  return bar;
}

export function drawTiers(place, note, hits, all) {
  note.textContent = all ? `${all} requests` : "";
  const legend = el("ul", "legend");
  for (const [tier, name] of Object.entries(TIERS)) {
    const item = el("li", hits[tier] ? "" : "none"), chip = el("span", "chip");
    chip.style.background = `var(--t-${tier})`;
    item.append(chip, `${name} `, el("b", "", hits[tier] ? percent(hits[tier], all) : "0"), el("span", "quiet", hits[tier] ? String(hits[tier]) : ""));
    legend.append(item);
  }
  place.replaceChildren(stack(hits, all), legend);
}

const percent = (part, all) => {
  const value = (100 * part) / all;
  return `${value >= 10 || value === 0 ? value.toFixed(0) : value.toFixed(1)} %`;
};
