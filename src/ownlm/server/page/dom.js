/** Elements without markup: text becomes text nodes, so that nothing a model or a user writes is ever read as HTML. */

import { relabel, t } from "./i18n.js";

const SVG = "http://www.w3.org/2000/svg";
const WORDS = { t: "t", tLabel: "tLabel", tTitle: "tTitle", tPlaceholder: "tPlaceholder" };

/**
 * An element.
 *
 * @param {string} tag
 * @param {Object<string, any>} [properties] `class`, `on: {event: handler}`, `data: {name: value}`, attributes; `t`,
 *   `tLabel`, `tTitle`, `tPlaceholder` are keys of the dictionary ("key" or ["key", arguments]) that follow the language
 * @param {...(Node|string|number|null|undefined|false|Array<any>)} children
 * @returns {HTMLElement}
 */
export function h(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  fill(made, properties);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false).map(asNode));
  return made;
}

/** An element of a drawing. @returns {SVGElement} */
export function svg(tag, properties = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

/** @param {HTMLElement} element @param {Object<string, any>} properties */
export function fill(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "on") for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name in WORDS) element.dataset[WORDS[name]] = JSON.stringify([value].flat());
    else if (name in element && !["list", "form"].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  relabel(element);
}

/** Other words for an element that says something of the dictionary. */
export function say(element, key, words = {}) {
  element.dataset.t = JSON.stringify([key, words]);
  element.textContent = t(key, words);
}

/** A text that is not of the dictionary, such as what a server said. */
export function write(element, text) {
  delete element.dataset.t;
  element.textContent = text;
}

/** A button. @param {string} key of its words @param {() => void} action */
export function button(key, action, properties = {}) {
  return h("button", { type: "button", t: key, ...properties, on: { click: action } });
}

/** A button that shows a sign; its words are for a tip and for screen readers. */
export function signButton(sign, key, action, properties = {}) {
  return h(
    "button",
    { type: "button", class: "sign", tTitle: key, tLabel: key, ...properties, on: { click: action } },
    h("span", { "aria-hidden": "true" }, sign),
  );
}

/** A download of a text. */
export function download(name, text, type = "application/json") {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/** Put a text on the clipboard, and say so on the button for a moment. */
export async function copy(text, control, key) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = copyBySelection(text);
  }
  say(control, done ? "copied" : "copyFailed");
  setTimeout(() => say(control, key), 1500);
}

/** For pages at plain http addresses of a network, where browsers hide the clipboard. */
function copyBySelection(text) {
  const area = h("textarea", { value: text, class: "unseen", "aria-hidden": "true" });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

const asNode = (child) => (child instanceof Node ? child : document.createTextNode(String(child)));
