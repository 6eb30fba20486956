/** The server: which models it has, whether it wants a key, and whether it is still there. */

import { ask, isThere, key, Problem } from "./api.js";
import { h, say, write } from "./dom.js";

const FIRST_WAIT = 1000; // milliseconds until the server is looked for again, then longer and longer
const LONGEST_WAIT = 10000;

export class Connection {
  /** @param {import("./main.js").App} app */
  constructor(app) {
    this.app = app;
    this.words = h("p", { role: "alert" });
    this.banner = h("div", { class: "banner", hidden: true }, this.words);
    this.field = h("input", { type: "password", id: "key", autocomplete: "off", required: true, spellcheck: false });
    this.wrong = h("p", { class: "failed", role: "alert", hidden: true });
    this.form = h(
      "form",
      { class: "key", hidden: true, on: { submit: (event) => this.unlock(event) } },
      h("label", { htmlFor: "key", t: "keyNeeded" }),
      h("div", { class: "pair" }, this.field, h("button", { type: "submit", class: "primary", t: "open" })),
      h("p", { class: "about", t: "keyAbout" }),
      this.wrong,
    );
    this.element = h("div", {}, this.banner, this.form);
  }

  /** Learn what is served. @returns {Promise<boolean>} false: not yet; the page starts again later */
  async open() {
    try {
      const access = await ask("/page/access");
      this.app.isLocked = access.key;
      if (access.key && !key.get()) return this.lock();
      this.app.models = (await ask("/v1/models")).data;
      this.app.offers = await ask("/v1/tasks");
    } catch (error) {
      if (error.status === 401) return this.lock(error.message);
      this.gone(() => this.app.start());
      if (error.status) write(this.words, error.message);
      return false;
    }
    this.form.hidden = this.banner.hidden = true;
    return true;
  }

  /** An error of a request: a server that is gone is waited for, a key that is not known any more asked for. */
  failed(error) {
    if (!(error instanceof Problem)) return;
    if (error.status === 401) this.lock(error.message);
    if (error.status === 0) this.gone(() => this.back());
  }

  lock(reason = "") {
    this.form.hidden = false;
    this.wrong.hidden = !reason;
    write(this.wrong, reason);
    this.field.focus();
    return false;
  }

  unlock(event) {
    event.preventDefault();
    key.set(this.field.value.trim());
    this.field.value = "";
    this.app.start();
  }

  gone(then) {
    say(this.words, "serverGone");
    this.banner.hidden = false;
    this.banner.classList.remove("good");
    clearTimeout(this.timer);
    this.look(FIRST_WAIT, then);
  }

  look(wait, then) {
    this.timer = setTimeout(async () => {
      if (await isThere()) then();
      else this.look(Math.min(wait * 1.5, LONGEST_WAIT), then);
    }, wait);
  }

  async back() {
    await this.app.start();
    if (!this.banner.hidden || !this.form.hidden) return; // gone again, or the key is another one
    say(this.words, "serverBack");
    this.banner.classList.add("good");
    this.banner.hidden = false;
    setTimeout(() => (this.banner.hidden ||= this.banner.classList.contains("good")), 5000);
  }
}
