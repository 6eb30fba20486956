/** The words of the page in each of its languages, and which one is shown. */

import { WORDS } from "./words.js";

export const LANGUAGES = { en: "English", zh: "中文" };
const KEPT = "ownlm.language";
const PLACES = { t: null, tLabel: "aria-label", tTitle: "title", tPlaceholder: "placeholder" };

let current = LANGUAGES[localStorage.getItem(KEPT)] ? localStorage.getItem(KEPT) : navigator.language.startsWith("zh") ? "zh" : "en";
document.documentElement.lang = current === "zh" ? "zh-Hans" : current;

export const language = () => current;

/** Change the language of all that is shown, and remember it. */
export function setLanguage(code) {
  current = code;
  localStorage.setItem(KEPT, code);
  document.documentElement.lang = code === "zh" ? "zh-Hans" : code;
  const found = document.querySelectorAll("[data-t], [data-t-label], [data-t-title], [data-t-placeholder]");
  for (const element of found) relabel(element);
}

/**
 * Words of the dictionary, with values in them.
 *
 * @param {string} key @param {Object<string, string|number>} [words] for {name} in the text @returns {string}
 */
export function t(key, words = {}) {
  const found = WORDS[key]?.[current === "zh" ? 1 : 0];
  if (found === undefined) throw new Error(`no word for ${key}`);
  return found.replace(/\{(\w+)\}/g, (_, name) => (typeof words[name] === "number" ? words[name].toLocaleString(current) : words[name]));
}

/** Write an element's words in the current language. */
export function relabel(element) {
  for (const [name, attribute] of Object.entries(PLACES)) {
    if (element.dataset[name] === undefined) continue;
    const text = t(...JSON.parse(element.dataset[name]));
    if (attribute === null) element.textContent = text;
    else element.setAttribute(attribute, text);
  }
}

/** An error that is said in the language of the page. */
export class Complaint extends Error {
  constructor(key, words = {}) {
    super(t(key, words));
    this.key = key;
    this.words = words;
  }
}
