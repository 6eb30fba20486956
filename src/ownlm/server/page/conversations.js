/** The list of conversations: open, delete, export, import. */

import { exported, imported } from "./exchange.js";
import { button, download, fill, h, say, signButton } from "./dom.js";
import { sayError } from "./errors.js";
import { conversations, damaged, forget, keep, newId, onForeignChange } from "./store.js";

export class ConversationList {
  /**
   * @param {{open: (one: Object) => void, fresh: () => void, current: () => Object,
   *   announce: (key: string, words?: Object) => void, changedElsewhere: (name: string|null) => void}} actions
   */
  constructor(actions) {
    this.actions = actions;
    this.items = h("ul", { class: "conversations" });
    this.words = h("p", { class: "about", role: "status" });
    this.file = h("input", { type: "file", accept: "application/json,.json", hidden: true, tLabel: "import", on: { change: () => this.import() } });
    const head = h("summary", { t: "conversations" });
    const tools = h("div", { class: "tools" }, button("export", () => this.export(), { class: "quiet" }), button("import", () => this.file.click(), { class: "quiet" }));
    const box = h("details", { class: "list-box", open: matchMedia("(min-width: 60rem)").matches }, head, this.items, tools, this.words, this.file);
    this.element = h("aside", { class: "side", tLabel: "conversations" }, button("newConversation", () => this.fresh(), { class: "new" }), box);
    onForeignChange((name) => {
      this.draw();
      actions.changedElsewhere(name);
    });
  }

  draw() {
    const current = this.actions.current?.();
    const all = conversations();
    this.items.replaceChildren(...all.map((one) => this.item(one, one.id === current?.id)));
    if (!all.length) this.items.append(h("li", { class: "about", t: "noConversations" }));
    if (damaged.size) this.items.append(h("li", { class: "about", t: ["damaged", { count: damaged.size }] }));
  }

  item(one, isCurrent) {
    const opening = h("button", { type: "button", class: "open", "aria-current": isCurrent ? "true" : null, on: { click: () => this.open(one) } }, one.title || "…");
    const deleting = signButton("×", "deleteConversation", () => this.delete(one, deleting));
    return h("li", {}, opening, deleting);
  }

  open(one) {
    this.fold();
    this.actions.open(one);
  }

  fresh() {
    this.fold();
    this.actions.fresh();
  }

  /** Where the list lies over the thread, it gives way to it. */
  fold() {
    if (!matchMedia("(min-width: 60rem)").matches) this.element.querySelector("details").open = false;
  }

  /** The first press asks, the second one deletes. */
  delete(one, control) {
    if (!control.classList.contains("sure")) {
      control.classList.add("sure");
      say(control, "deleteSure");
      fill(control, { tLabel: "deleteSure" });
      control.addEventListener("blur", () => this.draw(), { once: true });
      return;
    }
    forget(one.id);
    if (this.actions.current().id === one.id) this.actions.fresh();
    this.draw();
    this.actions.announce("deleted");
  }

  export() {
    const all = conversations();
    if (!all.length) return say(this.words, "noConversations");
    download(`ownlm-conversations-${new Date().toISOString().slice(0, 10)}.json`, exported(all));
    say(this.words, "exportedCount", { count: all.length });
  }

  async import() {
    const [file] = this.file.files;
    this.file.value = "";
    if (!file) return;
    try {
      const found = imported(await file.text());
      found.forEach(keepBeside);
      say(this.words, "importedCount", { count: found.length });
    } catch (error) {
      sayError(this.words, error);
    }
    this.draw();
  }
}

/** An imported conversation never replaces one that is here, unless it is the same. */
function keepBeside(conversation) {
  const here = conversations().find((one) => one.id === conversation.id);
  if (here && JSON.stringify(here.turns) !== JSON.stringify(conversation.turns)) conversation.id = newId();
  keep(conversation);
}
