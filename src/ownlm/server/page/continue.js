/** A text that the model goes on with, in the text itself. */

import { Answer, nextTokens, roomAfter } from "./answer.js";
import { details, figures } from "./details.js";
import { button, h } from "./dom.js";
import { CONTINUATION } from "./settings.js";
import { kept } from "./store.js";
import { failedTurn } from "./turn.js";

const ROUTE = "/v1/completions";

export class Continue {
  /** @param {import("./main.js").App} app */
  constructor(app) {
    this.app = app;
    this.area = h("textarea", { id: "text", class: "page-text", value: kept.get("text", ""), tPlaceholder: "continuePlaceholder", "aria-describedby": "text-about", on: { input: () => this.changed(), keydown: (event) => this.pressed(event) } });
    this.going = button("goOn", () => this.write(), { class: "primary" });
    this.stopping = button("stop", () => this.stop(), { class: "primary", hidden: true });
    this.undoing = button("undo", () => this.undo(), { hidden: true });
    this.again = button("otherContinuation", () => this.writeAgain(), { hidden: true });
    this.below = h("div", { class: "below" });
    this.element = h(
      "section",
      { class: "view continue", tLabel: "tabContinue" },
      h("div", { class: "column" }, h("label", { htmlFor: "text", t: "continueTitle" }), h("p", { class: "about", id: "text-about", t: "continueAbout" }), this.area, h("div", { class: "tools" }, this.going, this.stopping, this.again, this.undoing), this.below),
    );
  }

  modelChanged() {
    const { model } = this.app;
    this.going.disabled = this.area.disabled = !model?.generates;
    if (model && !model.generates) this.below.replaceChildren(h("p", { class: "notice", t: ["noContinue", { model: model.id }] }));
    else if (!this.answer) this.below.replaceChildren();
  }

  focus() {
    this.area.focus();
  }

  async nextTokens(signal) {
    if (!this.app.model?.generates || this.answer) return null;
    return nextTokens(ROUTE, { model: this.app.model.id, prompt: this.area.value }, signal);
  }

  pressed(event) {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    event.preventDefault();
    this.write();
  }

  changed() {
    this.again.hidden = this.undoing.hidden = true;
    kept.set("text", this.area.value);
    this.app.textChanged();
  }

  async write() {
    if (this.answer) return;
    const before = (this.before = this.area.value);
    const request = { model: this.app.model.id, prompt: before, ...this.app.settings.fields() };
    const answer = (this.answer = new Answer(ROUTE, request));
    this.below.replaceChildren();
    this.busy(true);
    this.app.announce("answering");
    let failure = null;
    try {
      request.max_tokens ??= Math.min(CONTINUATION, await roomAfter({ model: request.model, prompt: before }));
      await answer.run(() => {
        this.grow(before + answer.text);
        this.app.read(answer.text);
      });
    } catch (error) {
      failure = error;
    }
    this.answer = null;
    this.busy(false);
    kept.set("text", this.area.value);
    if (answer.text) this.show(answer, failure);
    if (failure) this.fail(failure);
    else this.app.readEnd(answer.text, { count: answer.stats().tokens });
    this.app.textChanged();
  }

  grow(text) {
    const { scrollHeight, scrollTop, clientHeight } = this.area;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < 40;
    this.area.value = text;
    if (isAtEnd) this.area.scrollTop = this.area.scrollHeight;
  }

  show(answer, failure) {
    const stats = { ...answer.stats(), ...(failure ? { finish: "error" } : {}) };
    const { buttons, place } = details({ route: ROUTE, request: answer.request, tokens: answer.tokens, isLocked: this.app.isLocked });
    this.below.replaceChildren(figures(stats), h("div", { class: "tools" }, buttons), place);
  }

  fail(error) {
    this.below.append(failedTurn(error, () => this.write()));
    this.app.failed(error);
  }

  busy(isBusy) {
    this.area.readOnly = isBusy;
    this.going.hidden = isBusy;
    this.stopping.hidden = !isBusy;
    this.again.hidden = this.undoing.hidden = isBusy;
    (isBusy ? this.stopping : this.area).focus();
    if (!isBusy) this.area.setSelectionRange(this.area.value.length, this.area.value.length);
  }

  stop() {
    this.answer?.stop();
  }

  undo() {
    this.area.value = this.before;
    this.below.replaceChildren();
    this.changed();
    this.area.focus();
  }

  writeAgain() {
    this.undo();
    this.write();
  }
}
