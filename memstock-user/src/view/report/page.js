"use strict";
// Lets the user move the limit in the picture of usage over time, and says what it would do. The page has all figures.
const facts = JSON.parse(document.getElementById("facts").textContent);
const told = JSON.parse(document.getElementById("rehearsal").textContent);
const svg = document.querySelector("#time svg");
const said = document.getElementById("said");
const files = document.querySelector("#files tbody");
const { left, right, top: highest, bottom } = facts.frame;
const BAND = 8;

function element(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return parent.appendChild(made);
}

function human(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit + 1 < units.length) {
    bytes /= 1024;
    unit += 1;
  }
  return (unit ? bytes.toFixed(1) : bytes) + units[unit];
}

// The row of the nearest limit below.
function rowAt(limit) {
  let found = 0;
  told.limits.forEach((row, n) => {
    if (row.limit <= limit) found = n;
  });
  return found;
}

// The state of each part of the time at this limit.
function states(limit, n) {
  const slow = new Set(facts.slow[n]);
  let ended = false;
  return facts.parts.map(([usage, needed], part) => {
    ended ||= needed > limit;
    if (ended) return "oom";
    if (usage <= limit) return slow.has(part) ? "slow" : "fits";
    return slow.has(part) ? "slow" : "reclaims";
  });
}

const shades = element("g", { id: "states" }, svg);
const line = element("g", {
  id: "line", role: "slider", tabindex: 0, "aria-label": "limit", "aria-orientation": "vertical",
  "aria-valuemin": 0, "aria-valuemax": facts.scale, "aria-describedby": "help",
}, svg);
const stroke = element("line", { x1: left, x2: right }, line);
const label = element("text", { x: left + 6 }, line);

function shade(all) {
  shades.replaceChildren();
  const width = (right - left) / all.length;
  for (let from = 0; from < all.length;) {
    let to = from;
    while (to < all.length && all[to] === all[from]) to += 1;
    const at = { class: `state ${all[from]}`, x: left + from * width, width: (to - from) * width };
    element("rect", { ...at, y: highest, height: BAND }, shades);
    if (all[from] !== "fits") {
      const below = { y: highest + BAND, height: bottom - highest - BAND };
      element("rect", { ...at, ...below, opacity: 0.25 }, shades);
    }
    from = to;
  }
}

function sentence(limit, row) {
  const parts = [`${human(limit)}: ${row.near ? "oom, near" : row.verdict}`];
  if (row.verdict === "fits") return parts[0];
  if (row.victim) parts.push(`${row.victim.comm ?? "unknown process"} dies at ${row.victim.at.toFixed(1)} s`);
  if (row.near) parts.push("or it survives");
  if (row.reread !== null) parts.push(`${human(row.reread)} read again`);
  if (row.dirty) parts.push(`waits for ${human(row.dirty)} to be written`);
  if (row.slowdown !== null) parts.push(`${(100 * row.slowdown).toFixed(1)} % slower`);
  return parts.join(", ");
}

let limit = 0;
function move(to) {
  limit = Math.round(Math.min(Math.max(to, 0), facts.scale));
  const n = rowAt(limit);
  const row = told.limits[n];
  const y = bottom - (bottom - highest) * limit / facts.scale;
  stroke.setAttribute("y1", y);
  stroke.setAttribute("y2", y);
  label.setAttribute("y", y - 5);
  label.textContent = human(limit);
  said.textContent = sentence(limit, row);
  line.setAttribute("aria-valuenow", limit);
  line.setAttribute("aria-valuetext", said.textContent);
  shade(states(limit, n));
  files.replaceChildren(...row.files.map((file) => {
    const made = document.createElement("tr");
    for (const text of [file.path, human(file.bytes)]) made.insertCell().textContent = text;
    return made;
  }));
}

function limitAt(event) {
  const box = svg.getBoundingClientRect();
  const y = (event.clientY - box.top) * svg.viewBox.baseVal.height / box.height;
  return (bottom - y) / (bottom - highest) * facts.scale;
}

svg.addEventListener("pointerdown", (event) => {
  svg.setPointerCapture(event.pointerId);
  line.focus({ preventScroll: true });
  move(limitAt(event));
  event.preventDefault();
});
svg.addEventListener("pointermove", (event) => {
  if (svg.hasPointerCapture(event.pointerId)) move(limitAt(event));
});
line.addEventListener("keydown", (event) => {
  const step = facts.scale / 200;
  const steps = { ArrowUp: step, ArrowRight: step, ArrowDown: -step, ArrowLeft: -step,
    PageUp: 10 * step, PageDown: -10 * step, Home: -Infinity, End: Infinity };
  if (!(event.key in steps)) return;
  event.preventDefault();
  move(limit + steps[event.key]);
});
move(facts.limit);
