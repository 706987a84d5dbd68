// Acknowledges an alert from its page: asks why, tells the control plane, and lets the page refresh itself.

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-ack]");
  if (!button) return;
  const why = window.prompt("Why? It is kept in the audit log.");
  if (!why || !why.trim()) return;
  button.disabled = true;
  const answer = await fetch(`/v1/alerts/${button.dataset.ack}/ack`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ why }),
  });
  if (answer.ok) {
    window.location.reload();
  } else {
    button.disabled = false;
    const said = await answer.json().catch(() => ({}));
    window.alert(said.error || "The control plane did not take it.");
  }
});
