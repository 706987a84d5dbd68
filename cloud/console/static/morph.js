// Makes one tree of elements like another with as few changes as possible, so that focus, scroll, open
// details, loaded pictures and playing sounds survive.
//
// Rules:
// - Children are matched by id or data-key first, then by their place and tag name.
// - What carries data-keep is left alone once it is there; open <details> and focused fields stay as the person has them.

export function morph(from, to) {
  if (from.isEqualNode(to) || from.hasAttribute("data-keep")) return;
  copyAttributes(from, to);
  if (from === document.activeElement && from.matches("input, textarea, select")) return;
  morphChildren(from, to);
}

function morphChildren(from, to) {
  const keyed = new Map();
  for (const child of from.children) if (keyOf(child)) keyed.set(keyOf(child), child);
  let place = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    const found = counterpart(wanted, place, keyed);
    if (!found) {
      from.insertBefore(document.importNode(wanted, true), place);
      continue;
    }
    if (found === place) place = place.nextSibling;
    else from.insertBefore(found, place);
    if (found.nodeType === Node.ELEMENT_NODE) morph(found, wanted);
    else if (found.nodeValue !== wanted.nodeValue) found.nodeValue = wanted.nodeValue;
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function counterpart(wanted, place, keyed) {
  const key = keyOf(wanted);
  if (key) {
    const found = keyed.get(key);
    keyed.delete(key);
    return found && found.nodeName === wanted.nodeName ? found : null;
  }
  if (!place || place.nodeType !== wanted.nodeType || place.nodeName !== wanted.nodeName || keyOf(place)) return null;
  return place;
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.id || node.getAttribute("data-key") : null;
}

function copyAttributes(from, to) {
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && !(name === "open" && from.nodeName === "DETAILS")) from.removeAttribute(name);
  }
  for (const { name, value } of [...to.attributes]) {
    if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
}
