// The pages about people: forms, buttons and choices that call the interface, and secrets that are shown once.
//
// Rules:
// - `data-call` is "METHOD /path", `data-said` what is told when it is done; a form sends its fields, a choice its own value, a button nothing but a reason.
// - What comes back as a link or a token is put on the page and nowhere else; the list is drawn anew around it.

import { send, toast } from "./console.js";
import { morph } from "./morph.js";

function bodyOf(element) {
  if (element.nodeName === "FORM") return Object.fromEntries([...new FormData(element)].filter(([name]) => !name.startsWith("-")));
  return element.name ? { [element.name]: element.value } : {};
}

function showSecret(document_) {
  const box = document.getElementById("secret");
  const isLink = Boolean(document_.path);
  document.getElementById("secret-words").textContent = isLink
    ? `Hand this link to ${document_.name}; it is good once, and is not shown again.`
    : "Keep this token in a file; it is not shown again.";
  document.getElementById("secret-value").textContent = isLink ? location.origin + document_.path : document_.token;
  box.hidden = false;
  box.scrollIntoView({ block: "nearest" });
}

async function redraw() {
  const answer = await fetch(location.href, { cache: "no-store" });
  if (!answer.ok || answer.redirected) return location.reload();
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  morph(document.getElementById("main"), page.getElementById("main"));
}

async function call(element) {
  const ask = element.dataset.ask;
  if (ask && !window.confirm(ask)) return;
  const [method, path] = element.dataset.call.split(" ");
  const error = element.querySelector?.(".error") || document.getElementById("people-error");
  if (error) error.hidden = true;
  try {
    const answer = await send(method, path, method === "DELETE" ? undefined : bodyOf(element));
    element.reset?.();
    if (element.dataset.then === "secret") showSecret(answer);
    else toast(element.dataset.said || "Done.");
    await redraw();
  } catch (problem) {
    if (!error) return toast(problem.message, "error");
    error.textContent = problem.message;
    error.hidden = false;
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-call]");
  if (!form) return;
  event.preventDefault();
  call(form);
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-call]");
  if (button) call(button);
});
document.addEventListener("change", (event) => {
  if (event.target.matches("select[data-call]")) call(event.target);
});
