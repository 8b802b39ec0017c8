"use strict";
// Fetches noc/data every other second and shows it. Text from outside enters the page as text only.

const at = (id) => document.getElementById(id);
const MINUS = "\u2013";
const decimals = (value, most) => value.toLocaleString("en-GB", { maximumFractionDigits: most });

function figure(value) {
  if (value === null || value === undefined) return MINUS;
  if (value >= 100) return decimals(value, 0);
  return decimals(value, value >= 10 ? 1 : 2);
}

function octets(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let index = 0;
  while (value >= 1024 && index < units.length - 1) { value /= 1024; index += 1; }
  return `${figure(value)} ${units[index]}`;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds / 3600) % 24} h`;
}

function show(id, text) { if (at(id).textContent !== text) at(id).textContent = text; }

function tile(id, text, note, grade) {
  show(id, text);
  show(`${id}-note`, note);
  at(`${id}-note`).title = note;
  const box = at(id).closest(".tile");
  box.classList.toggle("is-bad", grade === "bad");
  box.classList.toggle("is-warn", grade === "warn");
}

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function rows(id, lines, columns, empty) {
  const made = lines.map((cells) => {
    const row = element("tr");
    row.append(...cells);
    return row;
  });
  if (!made.length) {
    const cell = element("td", empty, "empty");
    cell.colSpan = columns;
    const row = element("tr");
    row.append(cell);
    made.push(row);
  }
  at(id).replaceChildren(...made);
}

// -- charts ---------------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";
const SPANS = [120, 300, 600];

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

function chart(id, ago, lines) {
  const box = at(id), width = box.clientWidth, height = box.clientHeight;
  if (!width || !height) return;
  const left = 40, right = 6, top = 8, bottom = 20;
  const highest = roundUp(Math.max(0, ...lines.flatMap((line) => line.values.filter((value) => value !== null))));
  const span = SPANS.find((seconds) => seconds >= (ago[0] ?? 0)) ?? SPANS.at(-1);
  const x = (seconds) => left + (width - left - right) * (1 - seconds / span);
  const y = (value) => top + (height - top - bottom) * (1 - value / highest);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": lines.map((line) => line.name).join(", ") });
  for (const share of [0, 0.5, 1]) {
    const level = y(highest * share);
    svg.append(drawn("line", { x1: left, x2: width - right, y1: level, y2: level, class: share ? "grid" : "grid base" }));
    svg.append(drawn("text", { x: left - 6, y: level + 4, "text-anchor": "end" }, compact(highest * share)));
  }
  for (const [share, anchor] of [[1, "start"], [0.5, "middle"], [0, "end"]]) {
    const ticks = { x: x(span * share), y: height - 4, "text-anchor": anchor };
    svg.append(drawn("text", ticks, share ? `${decimals((span * share) / 60, 1)} min ago` : "now"));
  }
  for (const line of lines) {
    const points = ago.map((seconds, index) => [seconds, line.values[index]]);
    for (const part of runs(points)) {
      const path = part.map(([seconds, value], index) => `${index ? "L" : "M"}${x(seconds).toFixed(1)} ${y(value).toFixed(1)}`).join("");
      if (line.area) {
        svg.append(drawn("path", { class: `area ${line.colour}`, d: `${path}L${x(part.at(-1)[0]).toFixed(1)} ${y(0)}L${x(part[0][0]).toFixed(1)} ${y(0)}Z` }));
      }
      svg.append(drawn("path", { class: `line ${line.colour}`, d: path }));
    }
  }
  box.replaceChildren(svg);
  const legend = at(`${id}-legend`);
  if (legend && !legend.childElementCount) legend.append(...lines.map((line) => element("i", line.name, line.colour)));
}

function compact(value) {
  if (value >= 1e6) return `${decimals(value / 1e6, 1)}M`;
  if (value >= 1e4) return `${decimals(value / 1e3, 1)}k`;
  return decimals(value, value >= 100 ? 0 : value >= 10 ? 1 : 2);
}

// Stretches without gaps: nothing is drawn where nothing was measured.
function runs(points) {
  const parts = [[]];
  for (const point of points) {
    if (point[1] === null) parts.push([]);
    else parts.at(-1).push(point);
  }
  return parts.filter((part) => part.length > 1);
}

// -- the page -------------------------------------------------------------------------------------------------------

function showTiles(told) {
  const now = told.now, refused = now.requests ? (100 * now.refused) / now.requests : 0;
  tile("requests", figure(now.requests), now.rejected ? `${figure(now.rejected)}/s turned away` : `${decimals(now.in_flight, 0)} under way`, now.rejected ? "bad" : "");
  tile("p99", figure(now.p99_ms), `p50 ${figure(now.p50_ms)}, p95 ${figure(now.p95_ms)}`, now.p99_ms > 50 ? "warn" : "");
  tile("refused", figure(refused), `${figure(now.refused)} per second`, "");
  tile("money", figure(now.money_per_minute), now.leaked_per_minute ? `${figure(now.leaked_per_minute)} per minute uncovered` : "nothing uncovered", now.leaked_per_minute ? "warn" : "");
  show("money-unit", `${told.currency}/min`);
  tile("sessions", decimals(now.open_sessions, 0), `${decimals(now.open_reservations, 0)} reservations`, told.supervision.overdue_accounts ? "bad" : "");
  const missing = told.peers_known - told.peers_open;
  tile("peers", decimals(told.peers_open, 0), missing ? `${decimals(missing, 0)} not connected` : told.peers_known ? "all connected" : "none known", missing ? "warn" : "");
  show("peers-known", `of ${decimals(told.peers_known, 0)}`);
  const store = told.store, note = now.conflicts ? `${figure(now.conflicts)} conflicts/s` : `${octets(store.memory_octets)} used`;
  if (!store.up) tile("store", "down", store.granting ? "no Redis; granting from the journal" : "Redis cannot be reached", "bad");
  else if (store.to_settle) tile("store", "settling", `${store.to_settle} requests from the journal`, "warn");
  else if (!store.writes_to_disk) tile("store", "disk", "Redis cannot write to disk", "bad");
  else tile("store", figure(now.round_trip_p99_ms), note, now.round_trip_p99_ms > 50 ? "warn" : "");
  show("store-unit", store.up && store.writes_to_disk && !store.to_settle ? "ms p99" : "");
  const late = told.outbox.oldest_seconds;
  tile("outbox", figure(late), `${decimals(told.outbox.entries, 0)} entries wait`, late > 300 ? "bad" : late > 60 ? "warn" : "");
}

function showAlerts(alerts) {
  const lines = alerts.firing.map((alert) => {
    const line = element("div", undefined, `alert ${alert.severity === "page" ? "bad" : "warn"}`);
    const since = (Date.now() - Date.parse(alert.since)) / 1000;
    line.append(element("b", alert.name), element("span", alert.summary), element("small", since > 0 ? `for ${duration(since)}` : ""));
    return line;
  });
  if (alerts.error) lines.push(element("div", `Alerts are not known: Prometheus cannot be asked (${alerts.error})`, "alert warn"));
  at("alerts").hidden = !lines.length;
  at("alerts").replaceChildren(...lines);
}

function showState(told) {
  const firing = told.alerts.firing;
  const pages = firing.filter((alert) => alert.severity === "page").length;
  let text = "running", grade = "good";
  if (!told.store.up) { text = "store down"; grade = "bad"; }
  else if (firing.length) { text = `${firing.length} alert${firing.length > 1 ? "s" : ""}`; grade = pages ? "bad" : "warn"; }
  else if (told.alerts.asked && !told.alerts.error) { text = "no alerts"; }
  state(text, grade);
}

function state(text, grade) {
  show("state", text);
  at("state").className = `pill ${grade}`;
}

function code(line) {
  const cell = element("td");
  cell.append(element("b", String(line.code)), line.name);
  return cell;
}

const GROUPS = new Map([[-1, "none"], [-2, "others"]]);

function showTables(told) {
  document.querySelectorAll(".window").forEach((each) => { each.textContent = `last ${duration(told.table_seconds)}`; });
  rows("answers", told.answers.map((line) => [
    code(line), element("td", decimals(line.count, 0), "n"), element("td", `${decimals(100 * line.share, 2)} %`, "n"),
  ]), 3, "No requests.");
  rows("refusals", told.refusals.map((line) => [
    code(line), element("td", GROUPS.get(line.rating_group) ?? String(line.rating_group)), element("td", decimals(line.count, 0), "n"),
  ]), 3, "None.");
  rows("peer-rows", told.peers.map((peer) => {
    const cell = element("td");
    const bad = !peer.open, doubtful = peer.watchdog && peer.watchdog !== "okay";
    cell.append(element("span", peer.open && doubtful ? `${peer.state}, ${peer.watchdog}` : peer.state, `pill ${bad ? "bad" : doubtful ? "warn" : "good"}`));
    return [
      element("td", peer.name), cell, element("td", peer.address, "wide-only"), element("td", peer.product, "wide-only"),
      element("td", peer.open ? duration(peer.open_seconds) : "", "n"), element("td", decimals(peer.requests, 0), "n"),
    ];
  }), 6, "No peers.");
}

let last = null;

function draw() {
  if (!last) return;
  const series = last.series;
  chart("traffic", series.seconds_ago, [
    { name: "all", colour: "blue", values: series.requests, area: true },
    { name: "refused", colour: "red", values: series.refused },
  ]);
  chart("latency", series.seconds_ago, [
    { name: "p99", colour: "orange", values: series.p99_ms },
    { name: "p95", colour: "violet", values: series.p95_ms },
    { name: "p50", colour: "blue", values: series.p50_ms },
  ]);
  chart("revenue", series.seconds_ago, [{ name: "money", colour: "green", values: series.money_per_minute, area: true }]);
}

async function asked() {
  try {
    const answer = await fetch("noc/data", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

function showAll(told) {
  show("about", `${told.about.origin_host} \u00b7 version ${told.about.version}`);
  document.title = `OCC ${told.about.origin_host}`;
  show("clock", new Date(told.at_ms).toLocaleTimeString("en-GB"));
  show("revenue-title", `${told.currency} per minute`);
  showTiles(told);
  showAlerts(told.alerts);
  showState(told);
  showTables(told);
  draw();
  document.body.dataset.updates = String(Number(document.body.dataset.updates ?? 0) + 1);
}

async function update() {
  const told = await asked();
  setTimeout(update, told ? told.interval_ms : 2000);
  document.body.classList.toggle("stale", !told);
  if (!told) {
    state("no connection to the server", "bad");
    return;
  }
  last = told;
  showAll(told);
}

// -- light and dark -------------------------------------------------------------------------------------------------

function remembered() { try { return localStorage.getItem("theme"); } catch { return null; } }
const wanted = new URLSearchParams(location.search).get("theme") ?? remembered();
if (wanted === "light" || wanted === "dark") document.documentElement.dataset.theme = wanted;
at("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const current = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = current === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try { localStorage.setItem("theme", next); } catch { /* a browser that remembers nothing */ }
});
addEventListener("resize", draw);
update();
