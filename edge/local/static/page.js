// Asks the device for its state, shows it, and sends answers. Nothing is kept here but the name of who answers.
const EVERY_MS = 700;
const $ = (id) => document.getElementById(id);
const who = $("who");
let open = [];
let words = {};
let shown = null;
let shownWords = null;
const answered = new Set();

who.value = localStorage.getItem("who") ?? "";
who.addEventListener("change", () => localStorage.setItem("who", who.value.trim()));

function text(tag, words, kind) {
  const element = document.createElement(tag);
  element.textContent = words;
  if (kind) element.className = kind;
  return element;
}

function trouble(words) {
  $("trouble").textContent = words;
  $("trouble").hidden = !words;
}

function clock(ms) {
  const at = new Date(ms);
  const day = Date.now() - ms < 86400000 ? "" : `${at.toLocaleDateString()} `;
  return `${day}${at.toLocaleTimeString([], { hour12: false })}`;
}

function showLink(link, alone, health) {
  const rows = `${health.outbox_rows} unsent${health.uploads_waiting ? `, ${health.uploads_waiting} inputs to send` : ""}`;
  const away = !alone && !link?.connected;
  $("link").className = alone ? "" : away ? "away" : "connected";
  $("link").title = link?.problem ?? "";
  if (alone) $("link").textContent = "works alone";
  else if (!link) $("link").textContent = `control plane not reached yet · ${rows}`;
  else $("link").textContent = `${away ? "control plane away" : "connected"} since ${clock(link.since_ms)} · ${rows}`;
}

function showHead(reported, alone, link) {
  $("device").textContent = reported.device;
  $("where").textContent = `${reported.profile} at ${reported.site}`;
  const health = reported.health;
  showLink(link, alone, health);
  const gib = (health.disk_free_bytes / 2 ** 30).toFixed(1);
  const mib = Math.round(health.memory_bytes / 2 ** 20);
  $("health").replaceChildren(
    text("span", `up ${Math.round(health.uptime_s / 60)} min`),
    text("span", `${gib} GiB free`),
    text("span", `${mib} MiB memory`),
    ...(health.cpu_percent == null ? [] : [text("span", `${Math.round(health.cpu_percent)} % of a core`)]),
    ...(health.temperature_c == null ? [] : [text("span", `${Math.round(health.temperature_c)} °C`)]),
    text("span", `lineside ${reported.software}`),
    ...[health.extra.dropped?.words].filter(Boolean).map((words) => text("span", words)),
  );
}

function stationCard(name) {
  let card = document.querySelector(`[data-station="${CSS.escape(name)}"]`);
  if (!card) {
    card = text("div", "", "card");
    card.dataset.station = name;
    const picture = document.createElement("img");
    picture.alt = `what ${name} sees now`;
    card.append(text("h2", name), picture, text("div", "", "verdict"), text("div", "", "muted words"), text("div", "", "muted runs"));
    $("stations").append(card);
  }
  return card;
}

function showStation(name, station, last, seen) {
  const card = stationCard(name);
  const [picture, verdict] = [card.querySelector("img"), card.querySelector(".verdict")];
  if (last) {
    verdict.textContent = last.verdict;
    verdict.className = `verdict ${last.verdict}`;
    const sure = last.confidence == null ? "" : ` ${(100 * last.confidence).toFixed(1)} %`;
    const said = `${last.text ? `“${last.text}” ` : ""}${last.label ?? ""}${sure}`;
    const why = [last.reason, last.detail].filter(Boolean).join(": ");
    const took = `${(last.latency_ms.total ?? 0).toFixed(1)} ms`;
    card.querySelector(".words").textContent = [said, took, last.input.name, why].filter(Boolean).join(" · ");
    picture.hidden = !seen || !last.input.media_type.startsWith("image/");
    if (!picture.hidden && picture.dataset.seq !== String(last.seq)) {
      picture.dataset.seq = last.seq;
      picture.src = `/api/live/${encodeURIComponent(name)}?${last.seq}`;
    }
  }
  const serving = station.serving ? `${station.serving.name} ${station.serving.version}` : "no bundle";
  card.querySelector(".runs").textContent = `${station.mode} · ${serving} · ${station.decisions} decisions`;
  return station.problem ? `${name}: ${station.problem}` : "";
}

function showPart() {
  // The part that is shown stays until it is answered: nothing changes under the finger of who is about to answer.
  const waiting = open.filter((row) => !answered.has(row.seq));
  const part = waiting.find((row) => row.seq === shown) ?? waiting[0];
  $("none").hidden = Boolean(part);
  $("current").hidden = !part;
  if (!part) return;
  // Only keys that would mean something else are changed: a station that has just started does not know its words yet.
  const known = JSON.stringify(words[part.station] ?? null);
  if (shown === part.seq && shownWords === known) return;
  const again = shown === part.seq;
  [shown, shownWords] = [part.seq, known];
  showKeys(part);
  if (again) return;
  showInput(part);
  const said = part.text ? `“${part.text}”, ${(100 * (part.confidence ?? 0)).toFixed(1)} % sure` : part.label ? `${part.label}, ${(100 * (part.confidence ?? 0)).toFixed(1)} % sure` : "no answer of the model";
  $("said").textContent = `${part.station} · ${part.input.name} · ${part.reason}${part.detail ? `: ${part.detail}` : ""} · ${said}`;
  const sorted = Object.entries(part.scores).sort((a, b) => b[1] - a[1]).slice(0, 5);
  $("scores").replaceChildren(...sorted.map(([label, score]) => {
    const line = document.createElement("li");
    const meter = document.createElement("meter");
    meter.value = score;
    line.append(text("span", label), meter, text("span", `${(100 * score).toFixed(1)} %`));
    return line;
  }));
}

function showInput(part) {
  const image = part.input.media_type.startsWith("image/");
  const kept = part.input.kept && !part.forgotten;
  $("picture").hidden = !kept || !image;
  $("sound").hidden = !kept || image;
  $("sound").pause();
  for (const old of [$("picture"), $("sound")]) old.removeAttribute("src");
  $("unseen").hidden = kept;
  if (kept) (image ? $("picture") : $("sound")).src = `/api/inputs/${part.seq}`;
  else $("unseen").textContent = `${image ? "Its picture" : "Its sound"} ${part.forgotten ? "was erased on request" : "is not kept at this station"}.`;
}

function showKeys(part) {
  // At a station that hears, the first key is what was heard, and any other word can be named.
  const heard = words[part.station];
  const [yes, no] = [$("yes"), $("no")];
  yes.dataset.answer = heard ? "accept" : "pass";
  yes.dataset.label = heard?.includes(part.label) ? part.label : "";
  yes.hidden = Boolean(heard) && !part.label;
  const said = part.text ? "as written" : `“${part.label}”`;
  for (const [key, letter, word] of [[yes, heard ? "A" : "P", heard ? said : "pass"], [no, heard ? "W" : "D", heard ? "wrong" : "divert"]]) {
    key.querySelector("kbd").textContent = letter;
    key.querySelector("span").textContent = word;
  }
  const others = (heard ?? []).filter((word) => word !== part.label);
  $("words").hidden = !others.length;
  $("words").replaceChildren(...others.map((word) => {
    const button = text("button", word);
    button.addEventListener("click", () => give("accept", word));
    return button;
  }));
}

async function give(answer, label) {
  if (shown === null || $("current").hidden) return;
  if (!who.value.trim()) {
    trouble("Say who answers: your name, above.");
    who.focus();
    return;
  }
  const seq = shown;
  answered.add(seq);
  shown = null;
  showPart();
  const response = await fetch("/api/answers", {
    method: "POST",
    headers: { "content-type": "application/json", "x-lineside": "1" },
    body: JSON.stringify({ seq, answer, who: who.value.trim(), ...(label ? { label } : {}) }),
  });
  if (!response.ok) {
    answered.delete(seq);
    trouble((await response.json()).error);
  }
  await look();
}

async function look() {
  let state;
  try {
    const response = await fetch("/api/state");
    if (!response.ok) throw new Error((await response.json()).error);
    state = await response.json();
  } catch (error) {
    trouble(`The device does not answer: ${error.message}`);
    return;
  }
  showHead(state.reported, state.alone, state.link);
  const names = Object.keys(state.reported.stations);
  trouble(names.map((name) => showStation(name, state.reported.stations[name], state.last[name], state.seen.includes(name))).filter(Boolean).join(" · "));
  open = state.open;
  words = state.words;
  $("open_count").textContent = open.filter((row) => !answered.has(row.seq)).length + Math.max(0, state.open_count - open.length);
  showPart();
}

for (const shower of [$("picture"), $("sound")]) {
  shower.addEventListener("error", () => {
    if (!shower.getAttribute("src")) return;
    shower.hidden = true;
    $("unseen").textContent = "This input cannot be shown.";
    $("unseen").hidden = false;
  });
}
document.querySelectorAll("[data-answer]").forEach((button) => {
  button.addEventListener("click", () => give(button.dataset.answer, button.dataset.label));
});
document.addEventListener("keydown", (event) => {
  if (event.target === who || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const named = [...$("words").children].find((button) => button.textContent === event.key);
  const pressed = event.key === " " ? "space" : event.key.toUpperCase();
  const key = [...document.querySelectorAll(".keys button")].find((button) => !button.hidden && button.querySelector("kbd").textContent === pressed);
  if (!named && !key) return;
  event.preventDefault();
  (key ?? named).click();
});

async function forever() {
  await look();
  setTimeout(forever, EVERY_MS);
}
forever();
