// Keeps a page as fresh as the control plane: asks once a second whether anything changed, and takes over what did.
//
// Rules:
// - An unchanged page costs a 304; a changed one is drawn by the server and merged in place.
// - No answer is said at once and plainly: what is on the screen is then of an earlier moment.
// - A hidden page asks nothing, and asks at once when it is seen again.
// - A page that takes long to draw is asked for less often: watching must not be what keeps the control plane busy.

import { morph } from "./morph.js";
import { saidAsTime, serverNow, setServerTime, tellTimes } from "./times.js";

const EVERY_MS = 1000;
const LOST_AFTER_MS = 4000; // one slow answer is not a loss
const PATIENCE_MS = 10000;
const IDLE_FACTOR = 5; // a page that took so long to come rests at least so many times as long,
const LONGEST_REST_MS = 5000; // but never so long that it could be called old
const main = document.getElementById("main");
const mode = main.dataset.live; // "on": all of the page; "head": the numbers in the head; none: a page that does not change
let tag = "";
let heardAtMs = 0; // by the control plane's clock, for people
let heardAt = 0; // by the page's own clock, which never jumps
let asking = false;
let restUntilMs = 0;
let underWay = null; // the look that waits for its answer
let changing = 0; // calls that may end the session which a look asks with: no look beside them

export function toast(words, kind = "") {
  const box = document.getElementById("toast");
  box.textContent = words;
  box.className = `toast ${kind}`;
  box.hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { box.hidden = true; }, 3500);
}

export async function send(method, url, body, who = "operator") {
  letGo();
  changing += 1;
  try {
    const answer = await fetch(url, {
      method,
      headers: { "Content-Type": "application/json", "Lineside-Who": who.replace(/[^\w.@+ -]/g, "_").slice(0, 64) || "operator" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const document = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(wordsOf(document) || `the control plane answered ${answer.status}`);
    return document;
  } finally {
    changing -= 1;
  }
}

export async function look() {
  if (!mode || asking || changing || document.hidden) return;
  asking = true;
  underWay = new AbortController();
  const started = performance.now();
  try {
    const answer = await fetch(location.href, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store", signal: AbortSignal.any([underWay.signal, AbortSignal.timeout(PATIENCE_MS)]) });
    if (answer.redirected || answer.status === 401 || answer.status === 403) location.reload(); // signed out, or may less now
    else if (answer.status === 304 || answer.ok) await take(answer, started);
    const tookMs = performance.now() - started;
    restUntilMs = performance.now() + Math.min(IDLE_FACTOR * tookMs, LONGEST_REST_MS);
  } catch { /* told by tellConnection once it has lasted */ } finally {
    asking = false;
    tellConnection();
  }
}

function letGo() {
  underWay?.abort();
}

function leave() {
  letGo();
  restUntilMs = performance.now() + 2 * EVERY_MS; // not for ever: a file that is saved begins as a page that is left
}

async function take(answer, started) {
  const late = (performance.now() - started) / 2;
  if (answer.ok) {
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (page.querySelector("script[src]")?.getAttribute("src") !== document.querySelector("script[src]")?.getAttribute("src")) {
      location.reload(); // the console itself is of another release now
      return;
    }
    morph(document.getElementById("head"), page.getElementById("head"));
    if (mode === "on") morph(main, page.getElementById("main"));
    document.dispatchEvent(new CustomEvent("lineside:page", { detail: { page, started } }));
    tag = answer.headers.get("ETag") || "";
  }
  setServerTime(Number(answer.headers.get("X-Now-Ms")) + late);
  noteHeard();
  tellTimes();
}

function noteHeard() {
  heardAtMs = serverNow();
  heardAt = performance.now();
}

function tellConnection() {
  const lost = performance.now() - heardAt > LOST_AFTER_MS && !document.hidden;
  const live = document.getElementById("live");
  const bar = document.getElementById("lost");
  document.body.classList.toggle("is-lost", lost);
  if (live) {
    live.dataset.live = lost ? "lost" : "on";
    live.lastElementChild.textContent = lost ? "no answer" : "live";
  }
  if (lost) bar.textContent = `No answer from the control plane since ${saidAsTime(heardAtMs)}. What you see is of that moment.`;
  bar.hidden = !lost;
}

function wordsOf(document) {
  if (typeof document.error === "string") return document.hint ? `${document.error} (${document.hint})` : document.error;
  return Array.isArray(document.detail) ? document.detail.map((part) => part.msg).join("; ") : "";
}

function openDialogs(event) {
  const opener = event.target.closest?.("[data-dialog]");
  if (opener) document.getElementById(`dialog-${opener.dataset.dialog}`).showModal();
  if (event.target.closest?.("[data-close]")) event.target.closest("dialog").close();
}

async function postForms(event) {
  const form = event.target.closest("form[data-post]");
  if (!form) return;
  event.preventDefault();
  const button = form.querySelector("[type=submit]");
  const error = form.querySelector(".error");
  button.disabled = true;
  error.hidden = true;
  try {
    await send(form.dataset.method || "POST", form.dataset.post, Object.fromEntries(new FormData(form)), localStorage.getItem("lineside-reviewer") || "operator");
    form.reset();
    form.closest("dialog")?.close();
    await look();
  } catch (problem) {
    error.textContent = problem.message;
    error.hidden = false;
  } finally {
    button.disabled = false;
  }
}

function replaceBroken(event) {
  if (event.target.nodeName !== "IMG") return;
  const words = document.createElement("span");
  words.className = "nothing";
  words.textContent = "This picture cannot be shown here.";
  event.target.replaceWith(words);
}

function openTarget() {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (target?.nodeName === "DETAILS") target.open = true;
}

document.addEventListener("click", openDialogs);
document.addEventListener("submit", postForms);
document.addEventListener("error", replaceBroken, true);
document.addEventListener("visibilitychange", () => {
  heardAt = Math.max(heardAt, performance.now() - LOST_AFTER_MS); // a page that slept has not lost anything yet
  look();
});
window.addEventListener("hashchange", openTarget);
window.addEventListener("beforeunload", leave);
setServerTime(Number(document.querySelector("meta[name=now-ms]")?.content));
noteHeard();
openTarget();
tellTimes();
setInterval(tellTimes, 1000);
if (mode) {
  look();
  setInterval(() => { if (performance.now() >= restUntilMs) look(); }, EVERY_MS);
  setInterval(tellConnection, EVERY_MS);
}
