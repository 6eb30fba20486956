/** The tasks as forms: what is asked, what came back, and how well the model is known to do it. */

import { ask } from "./api.js";
import { button, fill, h } from "./dom.js";
import { sayError } from "./errors.js";
import { FORMS } from "./forms.js";
import { t } from "./i18n.js";

const SCORE_TASK = { translate: "translation", answer: "qa", classify: "classification", summarize: "summarization" };

export class Tasks {
  /** @param {import("./main.js").App} app */
  constructor(app) {
    this.app = app;
    this.choices = h("div", { class: "choices", role: "group", tLabel: "tabTasks" });
    this.place = h("div");
    this.element = h("section", { class: "view tasks", tLabel: "tabTasks" }, h("div", { class: "column" }, this.choices, this.place));
    this.forms = {};
  }

  modelChanged() {
    this.stop();
    const { documents } = this.app.offers ?? {};
    this.offer = this.app.offers?.data.find(({ id }) => id === this.app.model.id);
    const can = Object.keys(FORMS).filter((name) => (name === "search" ? documents : name in (this.offer?.tasks ?? {})));
    this.choices.replaceChildren(...can.map((name) => button(`task_${name}`, () => this.open(name), { data: { task: name } })));
    this.forms = {};
    const first = can.find((name) => this.isTaught(name)) ?? can[0];
    if (first) this.open(first);
    else this.place.replaceChildren(h("p", { class: "notice", t: ["noTasks", { model: this.app.model.id, taught: this.offer.taught.join(", ") }] }));
  }

  focus() {
    this.place.querySelector("textarea, input")?.focus();
  }

  open(name) {
    this.stop();
    for (const choice of this.choices.children) choice.setAttribute("aria-pressed", String(choice.dataset.task === name));
    this.forms[name] ??= new TaskForm(this, name);
    this.place.replaceChildren(this.forms[name].element);
    this.form = this.forms[name];
    this.focus();
  }

  get answer() {
    return this.form?.asking;
  }

  stop() {
    this.form?.asking?.abort();
  }

  isTaught(name) {
    const { taught = [] } = this.offer ?? {};
    return taught.includes(SCORE_TASK[name]) || (name === "classify" && taught.includes("sentiment"));
  }
}

class TaskForm {
  constructor(tasks, name) {
    this.tasks = tasks;
    this.app = tasks.app;
    this.name = name;
    this.form = FORMS[name];
    this.sending = h("button", { type: "submit", class: "primary", t: `do_${name}` });
    this.stopping = button("stop", () => this.asking?.abort(), { hidden: true });
    this.result = h("div", { class: "result", role: "region", tLabel: "result", "aria-live": "polite" });
    this.inputs = Object.fromEntries(this.form.fields.map((field) => [field.name, this.input(field)]));
    const rows = this.form.fields.map((field) => this.row(field));
    this.element = h(
      "form",
      { on: { submit: (event) => this.submit(event), keydown: (event) => this.pressed(event) } },
      h("p", { class: "about", t: `about_${name}` }),
      this.known(),
      rows,
      h("div", { class: "tools" }, this.sending, this.stopping),
      this.result,
    );
  }

  /** What is known about how well the model does this. */
  known() {
    if (this.name === "search") return null;
    const measured = this.tasks.offer.tasks[this.name];
    const after = Object.entries(measured?.after ?? {})[0];
    const task = SCORE_TASK[this.name];
    if (!after) {
      const key = this.tasks.isTaught(this.name) ? "notMeasured" : "notTaught";
      return h("p", { class: "about" }, h("span", { t: key }), " ", h("code", {}, `ownlm evaluate MODEL DATA --task ${task}`));
    }
    const [metric, { value, low, high, n }] = after;
    const round = (number) => Number(number?.toPrecision(3));
    return h("p", { class: "about", t: ["measured", { metric, value: round(value), low: round(low), high: round(high), n, data: String(measured.data ?? "") }] });
  }

  input(field) {
    const common = { id: `${this.name}-${field.name}`, required: field.required, value: field.value?.(this.tasks.offer) ?? "" };
    if (field.rows) return h("textarea", { ...common, rows: field.rows });
    if (field.choices) {
      const choices = field.choices.filter(({ when }) => !when || when(this.tasks.offer, this.app.model));
      return h("select", common, choices.map(({ value, key }) => h("option", { value, t: key })));
    }
    return h("input", { ...common, type: field.type ?? "text", min: field.low, max: field.high, autocomplete: "off" });
  }

  row(field) {
    const input = this.inputs[field.name];
    const about = field.about && h("p", { class: "about", id: `${input.id}-about`, t: field.about });
    if (about) fill(input, { "aria-describedby": about.id });
    return h("div", { class: field.rows ? "row" : "row short" }, h("label", { htmlFor: input.id, t: field.label }), input, about);
  }

  pressed(event) {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    this.element.requestSubmit();
  }

  async submit(event) {
    event.preventDefault();
    if (this.asking) return;
    const values = Object.fromEntries(Object.entries(this.inputs).map(([name, { value }]) => [name, value]));
    this.busy(new AbortController());
    this.result.replaceChildren(h("p", { class: "waiting", t: "working" }));
    const begin = performance.now();
    try {
      const body = { model: this.app.model.id, ...this.form.body(values) };
      const found = await ask(`/v1/tasks/${this.name}`, body, this.asking.signal);
      const seconds = ((performance.now() - begin) / 1000).toFixed(2);
      this.result.replaceChildren(...this.form.show(found.results, values), h("p", { class: "figures" }, t("taskSeconds", { seconds })));
    } catch (error) {
      this.failed(error);
    }
    this.busy(null);
  }

  failed(error) {
    if (error.name === "AbortError") return this.result.replaceChildren(h("p", { class: "about", t: "finish_stopped" }));
    const words = h("p", { class: "failed", role: "alert" });
    sayError(words, error);
    this.result.replaceChildren(words);
    this.app.failed(error);
  }

  busy(asking) {
    this.asking = asking;
    this.sending.hidden = Boolean(asking);
    this.stopping.hidden = !asking;
  }
}
