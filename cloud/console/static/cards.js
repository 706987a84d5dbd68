// The page on which cards are made: sends what is asked for, and follows what becomes of it.
//
// Rules:
// - The list is drawn anew from the server's page; what somebody is typing is left alone.
// - It is asked again only as long as something is being made, or was downloaded a moment ago.

import { send, toast } from "./console.js";
import { morph } from "./morph.js";

const LOOK_MS = 1000;
const AFTER_DOWNLOAD_MS = 120_000;
let followUntil = 0;
let following = false;

async function redraw() {
  const answer = await fetch(location.href, { cache: "no-store" });
  if (!answer.ok || answer.redirected) return location.reload();
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  morph(document.getElementById("made"), page.getElementById("made"));
  if (!looking()) return;
  morph(document.getElementById("asking"), page.getElementById("asking"));
  fit();
}

const looking = () => document.querySelector("#asking [data-state=looking]");
const underWay = () => document.querySelector("#made [data-state=making], #made [data-state=waiting]") || looking() || performance.now() < followUntil;

async function follow() {
  if (following) return;
  following = true;
  try {
    do {
      await redraw();
      if (underWay()) await new Promise((done) => setTimeout(done, LOOK_MS));
    } while (underWay());
  } catch { /* the head of the page says that the control plane is away */ } finally { following = false; }
}

function fit() {
  const form = document.getElementById("wish");
  if (!form) return;
  const chosen = form.profile.selectedOptions[0];
  const image = form.what.querySelector("[value=image]");
  image.disabled = chosen.dataset.image !== "yes";
  if (image.disabled && form.what.value === "image") form.what.value = "seed";
  const how = document.getElementById("how");
  how.hidden = !image.disabled;
  how.textContent = image.disabled ? `No image: ${chosen.dataset.how}` : "";
  document.getElementById("system").hidden = form.what.value !== "seed";
}

async function ask(form) {
  const error = document.getElementById("wish-error");
  const button = form.querySelector("button");
  error.hidden = true;
  button.disabled = true;
  const { bundle, ...rest } = Object.fromEntries(new FormData(form));
  const [model, version] = bundle.split(" ");
  try {
    await send("POST", "/v1/cards", { ...rest, model, version });
    toast(`The card of ${rest.device} is being made.`);
    form.device.value = "";
    form.device.focus();
    follow();
  } catch (problem) {
    error.textContent = problem.message;
    error.hidden = false;
  } finally { button.disabled = false; }
}

document.addEventListener("submit", (event) => {
  if (event.target.id !== "wish") return;
  event.preventDefault();
  ask(event.target);
});
document.addEventListener("change", fit);
document.addEventListener("click", async (event) => {
  const remove = event.target.closest("[data-remove]");
  if (remove) {
    await send("DELETE", `/v1/cards/${remove.dataset.remove}`).catch((problem) => toast(problem.message, "error"));
    await redraw();
  } else if (event.target.closest("[data-download]")) {
    followUntil = performance.now() + AFTER_DOWNLOAD_MS; // until it was sent whole, and is gone
    follow();
  }
});
fit();
if (underWay()) follow();
