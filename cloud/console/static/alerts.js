// Fills the page's two dialogs, to acknowledge an alert or to silence its kind, with the one that was chosen.

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-ask]");
  if (!button) return;
  const { ask, alert, rule, subject } = button.dataset;
  const dialog = document.getElementById(`dialog-${ask}`);
  dialog.querySelector("[data-about]").textContent = `${rule}, ${subject}`;
  if (ask === "ack") {
    dialog.querySelector("form").dataset.post = `/v1/alerts/${alert}/ack`;
  } else {
    dialog.querySelector("input[name=rule]").value = rule;
    dialog.querySelector("input[name=subject]").value = subject;
  }
  dialog.showModal();
});
