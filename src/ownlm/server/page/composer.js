/** The field to write in: Enter sends, Shift+Enter breaks the line, Escape stops the answer. */

import { button, h } from "./dom.js";

const TALLEST = 240; // pixels

export class Composer {
  /** @param {{send: (text: string) => void, stop: () => void, changed: () => void, key: string}} actions */
  constructor(actions) {
    this.actions = actions;
    this.area = h("textarea", { id: "composer", rows: 1, tPlaceholder: actions.key, tLabel: actions.key, on: { input: () => this.changed(), keydown: (event) => this.pressed(event) } });
    this.sending = button("send", () => this.send(), { class: "primary" });
    this.stopping = button("stop", () => actions.stop(), { class: "primary", hidden: true });
    this.element = h("div", { class: "composer" }, this.area, this.sending, this.stopping);
    this.isBusy = false;
  }

  get text() {
    return this.area.value;
  }

  focus() {
    this.area.focus();
  }

  /** Whether anything can be sent at all. */
  allow(isAllowed) {
    this.area.disabled = this.sending.disabled = !isAllowed;
  }

  busy(isBusy) {
    const hadFocus = [this.sending, this.stopping].includes(document.activeElement);
    this.isBusy = isBusy;
    this.sending.hidden = isBusy;
    this.stopping.hidden = !isBusy;
    if (hadFocus) this.focus();
    else if (isBusy && document.activeElement === document.body) this.stopping.focus(); // what had it is gone
  }

  send() {
    const text = this.area.value;
    if (!text.trim() || this.isBusy) return;
    this.area.value = "";
    this.changed();
    this.actions.send(text);
    this.focus();
  }

  pressed(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.send();
  }

  changed() {
    this.area.style.height = "auto";
    this.area.style.height = `${Math.min(TALLEST, this.area.scrollHeight + 2)}px`;
    this.actions.changed();
  }
}
