/** What went wrong, in the language of the page where the page knows it, else in the words of the server. */

import { Problem } from "./api.js";
import { say, write } from "./dom.js";
import { Complaint } from "./i18n.js";

/** @param {HTMLElement} element @param {Error} error */
export function sayError(element, error) {
  if (error instanceof Complaint) say(element, error.key, error.words);
  else if (error instanceof Problem && error.status === 0) say(element, "noServer");
  else write(element, error.message);
}
