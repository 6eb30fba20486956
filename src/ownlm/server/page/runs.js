/** The runs below a folder: which there are, and the curve of one, live while it trains. */

import { ask } from "./api.js";
import { curve } from "./curve.js";
import { h, say } from "./dom.js";
import { sayError } from "./errors.js";
import { language } from "./i18n.js";

const LIST_EVERY = 10000; // milliseconds
const LOG_EVERY = 1500;

export class Runs {
  /** @param {import("./main.js").App} app */
  constructor(app) {
    this.app = app;
    this.words = h("p", { class: "about", t: "runsAsking" });
    this.rows = h("tbody");
    const heads = ["runName", "runParameters", "runLoss", "runBits", "runState"];
    this.table = h("table", { hidden: true }, h("thead", {}, h("tr", {}, heads.map((key) => h("th", { scope: "col", t: key })))), this.rows);
    this.one = h("div", { class: "run" });
    this.element = h("section", { class: "view runs", tLabel: "tabRuns" }, h("div", { class: "column" }, h("h2", { t: "tabRuns" }), this.words, h("div", { class: "wide" }, this.table), this.one));
    this.logs = new Map(); // id -> what was read of its log
  }

  /** Ask only while somebody looks. */
  seen(isSeen) {
    this.isSeen = isSeen;
    clearTimeout(this.listTimer);
    clearTimeout(this.logTimer);
    if (!isSeen) return;
    this.list();
    if (this.open) this.follow();
  }

  async list() {
    clearTimeout(this.listTimer);
    try {
      const { served, data } = await ask("/runs");
      this.runs = data;
      this.show(served);
    } catch (error) {
      this.failed(error);
    }
    if (this.isSeen) this.listTimer = setTimeout(() => this.list(), LIST_EVERY);
  }

  show(isServed) {
    this.table.hidden = !this.runs.length;
    if (!isServed) say(this.words, "noRunsFolder");
    else say(this.words, this.runs.length ? "runsAbout" : "noRuns", { count: this.runs.length });
    const focused = document.activeElement?.dataset?.run;
    this.rows.replaceChildren(...this.runs.map((run) => this.row(run)));
    if (focused) this.rows.querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus();
    if (this.open) this.head();
  }

  row(run) {
    const isOpen = this.open === run.id;
    const opening = h("button", { type: "button", class: "link", "aria-expanded": String(isOpen), data: { run: run.id }, on: { click: () => this.choose(isOpen ? null : run.id) } }, run.name === "." ? "./" : run.name);
    const state = run.problem ? h("span", {}, run.problem) : h("span", { t: stateOf(run) });
    return h("tr", {}, h("th", { scope: "row" }, opening), h("td", {}, short(run.parameters)), h("td", {}, figure(run.loss)), h("td", {}, figure(run.bits_per_byte)), h("td", {}, state));
  }

  choose(id) {
    clearTimeout(this.logTimer);
    this.open = id;
    this.title = h("div");
    this.drawing = h("figure", { class: "drawing" });
    this.line = h("p", { class: "figures" });
    this.one.replaceChildren(...(id === null ? [] : [this.title, this.drawing, this.line]));
    this.show(true);
    if (id !== null) this.follow();
  }

  head() {
    const run = this.runs.find(({ id }) => id === this.open);
    if (!run) return this.choose(null);
    const report = run.report && h("a", { href: run.report, target: "_blank", rel: "noopener", t: "openReport" });
    this.title.replaceChildren(h("h3", {}, run.name), report || h("p", { class: "about", t: "noReport" }));
  }

  /** Read on in the log, and draw. */
  async follow() {
    clearTimeout(this.logTimer);
    const id = this.open;
    const log = this.logs.get(id) ?? { steps: [], validations: [], next: 0 };
    let wait = LOG_EVERY;
    try {
      const more = await ask(`/runs/${id}/log?after=${log.next}`);
      const isNew = more.steps.length || more.validations.length || more.restarted || !this.drawing.firstChild;
      take(log, more);
      this.logs.set(id, log);
      if (this.open === id && isNew) this.draw(log);
      if (more.more) wait = 0;
    } catch (error) {
      this.failed(error);
    }
    if (this.isSeen && this.open === id) this.logTimer = setTimeout(() => this.follow(), wait);
  }

  draw(log) {
    const run = this.runs.find(({ id }) => id === this.open);
    const points = (rows) => rows.filter(([, loss]) => loss !== null).map(([step, loss]) => [step, loss]);
    const steps = points(log.steps);
    const validations = points(log.validations);
    const legend = h("figcaption", {}, h("span", { class: "key smooth", t: "lossTraining" }), h("span", { class: "key validation", t: "lossValidation" }));
    this.drawing.replaceChildren(curve(steps, validations, run?.max_steps ?? null), legend);
    const { last } = log;
    if (!last) return say(this.line, "curveEmpty");
    const words = { step: last[0], of: run?.max_steps ?? "?", loss: figure(last[1]), speed: last[3] === null ? "?" : Math.round(last[3]) };
    say(this.line, "runLine", words);
  }

  failed(error) {
    sayError(this.words, error);
    this.app.failed(error);
  }
}

/** Steps that are written again, because a run was resumed, replace what was there. */
function take(log, more) {
  if (more.restarted) log.steps = log.validations = [];
  for (const name of ["steps", "validations"]) {
    const first = more[name][0]?.[0];
    const kept = first === undefined ? log[name] : log[name].filter(([step]) => step < first);
    log[name] = [...kept, ...more[name]];
  }
  log.next = more.next;
  log.last = more.last ?? log.last;
}

const stateOf = ({ finished }) => (finished === true ? "runFinished" : finished === false ? "runUnfinished" : "runUnknown");

const figure = (value) => (value === null ? "–" : value.toFixed(3));

const short = (count) => (count === null ? "–" : new Intl.NumberFormat(language(), { notation: "compact", maximumSignificantDigits: 3 }).format(count));
