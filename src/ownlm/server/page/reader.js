/** For screen readers: an answer is read sentence by sentence while it grows, not token by token. */

import { h } from "./dom.js";

const SENTENCE_END = /[.!?。！？\n]["'”’)]?(\s|$)|[。！？\n]/g;

export class Reader {
  constructor() {
    this.element = h("div", { class: "unseen", role: "status", "aria-live": "polite" });
    this.done = 0;
  }

  /** One more message; the last few stay, so that none is cut off by the next one. */
  say(text) {
    this.element.append(h("p", {}, text));
    while (this.element.children.length > 3) this.element.firstChild.remove();
  }

  /** What of a growing text is a whole sentence by now. */
  read(text) {
    if (text.length < this.done) this.done = 0;
    const left = text.slice(this.done);
    const end = [...left.matchAll(SENTENCE_END)].at(-1);
    if (!end) return;
    const length = end.index + end[0].length;
    this.say(left.slice(0, length));
    this.done += length;
  }

  /** The rest of it. */
  end(text) {
    const left = text.slice(this.done);
    if (left.trim()) this.say(left);
    this.done = 0;
  }
}
