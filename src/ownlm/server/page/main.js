/** The page: its head, its views, and what they share. */

import { Chat } from "./chat.js";
import { Continue } from "./continue.js";
import { Connection } from "./connection.js";
import { h, say, signButton, write } from "./dom.js";
import { Complaint, language, LANGUAGES, setLanguage, t } from "./i18n.js";
import { Reader } from "./reader.js";
import { Runs } from "./runs.js";
import { Settings, settingsPanel } from "./settings.js";
import { kept } from "./store.js";
import { Tasks } from "./tasks.js";

const VIEWS = { chat: Chat, continue: Continue, tasks: Tasks, runs: Runs };
const TABS = { chat: "tabChat", continue: "tabContinue", tasks: "tabTasks", runs: "tabRuns" };

/** What all views share: the models, the settings, words for everybody. */
export class App {
  constructor() {
    this.settings = new Settings();
    this.models = [];
    this.model = null;
    this.isLocked = false;
    this.reader = new Reader();
    this.connection = new Connection(this);
    this.views = Object.fromEntries(Object.entries(VIEWS).map(([name, View]) => [name, new View(this)]));
    this.panel = settingsPanel(this.settings, (signal) => this.view.nextTokens?.(signal) ?? Promise.resolve(null));
    this.draw();
    addEventListener("hashchange", () => this.show(location.hash.slice(2)));
    addEventListener("keydown", (event) => event.key === "Escape" && this.escape());
  }

  draw() {
    const tab = (name) => h("a", { href: `#/${name}`, t: TABS[name], data: { view: name } });
    this.tabs = h("nav", { tLabel: "views" }, Object.keys(VIEWS).map(tab));
    this.chooser = h("select", { tLabel: "model", on: { change: () => this.choose(this.chooser.value) } });
    const languages = h("select", { tLabel: "language", on: { change: (event) => setLanguage(event.target.value) } });
    languages.append(...Object.entries(LANGUAGES).map(([code, name]) => h("option", { value: code, lang: code }, name)));
    languages.value = language();
    this.opening = signButton("⚙", "settings", () => this.openSettings(this.settingsBox.hidden), { "aria-expanded": "false", "aria-controls": "settings" });
    const closing = signButton("×", "close", () => this.openSettings(false));
    this.settingsBox = h("aside", { class: "settings", id: "settings", hidden: true, tLabel: "settings" }, h("header", {}, h("h2", { t: "settings" }), closing), this.panel.element);
    this.notice = h("p", { class: "complaint", role: "alert", hidden: true });
    const skip = h("a", { class: "skip", href: "#main", t: "skip", on: { click: (event) => this.skip(event) } });
    const head = h("header", { class: "top" }, h("span", { class: "brand" }, "ownlm"), this.tabs, h("span", { class: "space" }), this.chooser, languages, this.opening);
    this.main = h("main", { id: "main", tabIndex: -1 }, Object.values(this.views).map(({ element }) => element));
    document.body.append(skip, head, this.connection.element, this.notice, h("div", { class: "stage" }, this.main, this.settingsBox), this.reader.element);
  }

  /** Ask the server what it serves, and open the view for it. */
  async start() {
    if (!(await this.connection.open())) return;
    const wanted = kept.get("model", "");
    const served = fingerprint(this.models, this.offers);
    if (served === this.served) return; // the server was gone for a while: what is written here stays as it is
    this.served = served;
    this.chooser.hidden = this.models.length < 2;
    this.chooser.replaceChildren(...this.models.map(({ id }) => h("option", { value: id }, id)));
    this.choose(this.models.some(({ id }) => id === wanted) ? wanted : this.models[0].id);
    this.show(location.hash.slice(2));
  }

  choose(id) {
    this.model = this.models.find((one) => one.id === id);
    this.chooser.value = id;
    if (this.models.length > 1) kept.set("model", id);
    for (const view of Object.values(this.views)) view.modelChanged?.();
    this.textChanged();
  }

  /** The view in which a model does what it was taught. */
  get firstView() {
    if (!this.model?.generates) return "tasks";
    return this.model.chat_template && this.model.taught.includes("chat") ? "chat" : "continue";
  }

  get view() {
    return this.views[this.shown];
  }

  show(name) {
    const before = this.shown;
    this.shown = name in VIEWS ? name : this.firstView;
    for (const [other, { element }] of Object.entries(this.views)) element.hidden = other !== this.shown;
    for (const link of this.tabs.children) link.removeAttribute("aria-current");
    this.tabs.querySelector(`[data-view=${this.shown}]`).setAttribute("aria-current", "page");
    for (const [other, view] of Object.entries(this.views)) view.seen?.(other === this.shown);
    this.opening.hidden = !this.view.nextTokens;
    if (this.opening.hidden) this.openSettings(false);
    if (this.shown !== before) this.view.focus?.();
    this.textChanged();
  }

  openSettings(isOpen) {
    const hadFocus = this.settingsBox.contains(document.activeElement);
    this.settingsBox.hidden = !isOpen;
    this.opening.setAttribute("aria-expanded", String(isOpen));
    this.panel.bars.seen(isOpen);
    if (isOpen) this.settingsBox.querySelector("button").focus();
    else if (hadFocus) this.opening.focus();
  }

  escape() {
    if (this.view?.answer) this.view.stop();
    else if (!this.settingsBox.hidden) this.openSettings(false);
  }

  skip(event) {
    event.preventDefault();
    this.main.focus();
  }

  /** What is to be continued is another text now. */
  textChanged() {
    this.panel?.bars.changed();
  }

  announce(key, words) {
    this.reader.say(t(key, words));
  }

  read(text) {
    this.reader.read(text);
  }

  readEnd(text, words) {
    this.reader.end(text);
    this.announce("answered", words);
  }

  /** Something went wrong: the connection is looked at, and a wrong key asked for again. */
  failed(error) {
    this.connection.failed(error);
  }

  /** Something to be read by everybody, such as a full storage. @param {Complaint|string} words */
  complain(words) {
    this.notice.hidden = false;
    if (words instanceof Complaint) say(this.notice, words.key, words.words);
    else write(this.notice, words);
    setTimeout(() => (this.notice.hidden = true), 15000);
  }
}

/** What is served, but for the time at which the server started. */
const fingerprint = (models, offers) => JSON.stringify([models.map((model) => ({ ...model, created: 0 })), offers]);

new App().start();
