// Says moments in the reader's own time zone, and keeps "12 s ago" true while the page is open.
//
// Rules:
// - Ages are counted by the control plane's clock (the difference to ours is measured), never by ours alone.

const STEPS = [[86400000, "d"], [3600000, "h"], [60000, "min"], [1000, "s"]];
const clock = new Intl.DateTimeFormat(undefined, { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", hour12: false });
let aheadMs = 0;

export function setServerTime(nowMs) {
  if (Number.isFinite(nowMs)) aheadMs = nowMs - Date.now();
}

export function serverNow() {
  return Date.now() + aheadMs;
}

export function duration(spanMs) {
  for (const [stepMs, unit] of STEPS) if (spanMs >= stepMs) return `${Math.floor(spanMs / stepMs)}\u00a0${unit}`;
  return "0\u00a0s";
}

export function saidAsTime(atMs) {
  return (serverNow() - atMs < 43200000 ? time : day).format(atMs);
}

export function tellTimes() {
  const nowMs = serverNow();
  for (const element of document.querySelectorAll("time[data-ms]")) {
    const atMs = Number(element.dataset.ms);
    const words = said(element.dataset.as, atMs, nowMs);
    if (element.textContent !== words) element.textContent = words;
    if (element.dataset.as === "ago" && element.title !== clock.format(atMs)) element.title = clock.format(atMs);
  }
}

function said(kind, atMs, nowMs) {
  if (kind === "clock") return clock.format(atMs);
  if (kind === "time") return saidAsTime(atMs);
  const spanMs = nowMs - atMs;
  return spanMs > -1000 ? `${duration(Math.max(0, spanMs))} ago` : `in ${duration(-spanMs)}`;
}
