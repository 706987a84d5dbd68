// The review queue under one's fingers: one item at a time, answered by key or touch, the next one at once.
//
// Rules:
// - The next item is on the screen before its answer is sent; an answer that is not taken brings its item back.
// - The next items and their pictures are loaded ahead.
// - The last answers can be undone, newest first.

import { send, toast } from "./console.js";
import { tellTimes } from "./times.js";

const AHEAD = 5; // items loaded beyond the one shown: more than a quick reviewer answers within one request
const UNDO_DEPTH = 20;
const list = document.getElementById("items");
const reviewer = document.getElementById("reviewer");
const undoButton = document.getElementById("undo");
const errorBox = document.getElementById("review-error");
const done = []; // {article, id: Promise of the answer's number}, oldest first
const answered = new Set();
let waiting = Number(document.getElementById("review").dataset.waiting);
let fetching = false;
let changedAt = 0; // when an answer was last given, kept or taken back: what was asked before knows less than we do

const current = () => list.querySelector(".item");

function show() {
  const item = current();
  for (const other of list.querySelectorAll(".item")) other.hidden = other !== item;
  document.getElementById("review-empty").hidden = Boolean(item);
  document.getElementById("left").textContent = `${waiting.toLocaleString("en").replaceAll(",", "\u202f")}\u00a0${waiting === 1 ? "item" : "items"} left`;
  undoButton.hidden = done.length === 0;
  tellTimes();
  if (list.children.length <= AHEAD) more();
}

async function more() {
  if (fetching || waiting <= list.children.length) return;
  fetching = true;
  const started = performance.now();
  try {
    const answer = await fetch("/review", { cache: "no-store" });
    if (answer.ok) take(new DOMParser().parseFromString(await answer.text(), "text/html"), started);
  } catch { /* the bar at the top says that there is no answer; the next answer asks again */ } finally {
    fetching = false;
  }
}

function take(page, started) {
  const fresh = page.getElementById("review");
  if (!fresh) return;
  const settled = done.every((entry) => entry.settled);
  if (settled && started > changedAt) waiting = Number(fresh.dataset.waiting);
  const before = current();
  for (const item of page.querySelectorAll("#items .item")) {
    if (!answered.has(item.id) && !document.getElementById(item.id)) list.append(document.importNode(item, true));
  }
  if (!before && current()) show();
  else document.getElementById("left").textContent = `${waiting.toLocaleString("en").replaceAll(",", "\u202f")}\u00a0${waiting === 1 ? "item" : "items"} left`;
}

function answer(button) {
  const article = button.closest(".item");
  if (!article || article !== current()) return;
  const who = reviewer.value.trim();
  if (!who) {
    errorBox.textContent = "Say who you are first: answers are signed.";
    errorBox.hidden = false;
    reviewer.focus();
    return;
  }
  errorBox.hidden = true;
  article.querySelector("audio")?.pause();
  article.remove();
  answered.add(article.id);
  waiting = Math.max(0, waiting - 1);
  changedAt = performance.now();
  const entry = { article, settled: false };
  entry.id = keep(entry, button, who);
  done.push(entry);
  if (done.length > UNDO_DEPTH) done.shift();
  show();
}

async function keep(entry, button, who) {
  const { device, incarnation, seq } = entry.article.dataset;
  const body = { answer: button.dataset.answer, label: button.dataset.label || null, reviewer: who };
  try {
    const kept = await send("POST", `/v1/review/${device}/${incarnation}/${seq}`, body, who);
    entry.settled = true;
    changedAt = performance.now();
    return kept.id;
  } catch (problem) {
    done.splice(done.indexOf(entry), 1);
    bringBack(entry.article);
    errorBox.textContent = `Not kept: ${problem.message}. The item is back.`;
    errorBox.hidden = false;
    return null;
  }
}

async function undo() {
  const entry = done.pop();
  if (!entry) return;
  undoButton.hidden = done.length === 0;
  const id = await entry.id;
  if (id === null) return; // it is back already
  try {
    await send("DELETE", `/v1/review/answers/${id}`, undefined, reviewer.value.trim());
    bringBack(entry.article);
    toast("Your answer is taken back.");
  } catch (problem) {
    toast(`Not undone: ${problem.message}`, "error");
  }
}

function bringBack(article) {
  answered.delete(article.id);
  waiting += 1;
  changedAt = performance.now();
  list.prepend(article);
  show();
}

function later() {
  const item = current();
  if (!item || list.children.length < 2) return;
  item.querySelector("audio")?.pause();
  list.append(item);
  show();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("input, textarea, select, audio")) return;
  const item = current();
  const key = event.key === " " ? "space" : event.key.toLowerCase();
  if (key === "u" || key === "backspace") return act(event, undo);
  if (!item) return;
  const button = [...item.querySelectorAll("[data-key-hint]")].find((b) => b.dataset.keyHint.split(" ").includes(key));
  if (button) return act(event, () => answer(button));
  if (key === "s") return act(event, later);
  if (key === "z") return act(event, () => item.querySelector(".stage").classList.toggle("zoomed"));
  if (key === "r") return act(event, () => replay(item));
}

function act(event, action) {
  event.preventDefault();
  action();
}

function replay(item) {
  const audio = item.querySelector("audio");
  if (!audio) return;
  audio.currentTime = 0;
  audio.play().catch(() => toast("This sound cannot be played here.", "error"));
}

document.addEventListener("keydown", onKey);
document.addEventListener("click", (event) => {
  const button = event.target.closest(".item [data-answer]");
  if (button) answer(button);
  else if (event.target.matches(".stage img")) event.target.closest(".stage").classList.toggle("zoomed");
});
undoButton.addEventListener("click", undo);
if (!("known" in reviewer.dataset)) reviewer.value = localStorage.getItem("lineside-reviewer") || reviewer.value;
reviewer.addEventListener("change", () => localStorage.setItem("lineside-reviewer", reviewer.value.trim()));
document.addEventListener("lineside:page", (event) => take(event.detail.page, event.detail.started));
show();
