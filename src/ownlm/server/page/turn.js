/** A turn of a conversation as it is shown. */

import { details, figures } from "./details.js";
import { button, copy, h, signButton } from "./dom.js";
import { sayError } from "./errors.js";
import { showMarkdown } from "./markdown.js";
import { versionOf } from "./store.js";

/** What a user said. @param {string} content @param {{edit: (text: string) => void}|null} actions null: not now */
export function userTurn(content, actions) {
  const words = h("div", { class: "words" }, content);
  const turn = h("article", { class: "turn user", tLabel: "you" }, words);
  if (!actions) return turn;
  const editing = button("edit", () => turn.replaceChildren(editor(content, actions.edit, () => back())), { class: "quiet" });
  const copying = button("copy", () => copy(content, copying, "copy"), { class: "quiet" });
  const tools = h("div", { class: "tools" }, editing, copying);
  const back = () => {
    turn.replaceChildren(words, tools);
    editing.focus();
  };
  turn.append(tools);
  return turn;
}

function editor(content, send, leave) {
  const area = h("textarea", { value: content, rows: Math.min(12, content.split("\n").length + 1), tLabel: "edit" });
  const go = () => area.value.trim() && send(area.value);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      leave();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      go();
    }
  });
  queueMicrotask(() => area.focus());
  const tools = h("div", { class: "tools" }, button("sendAgain", go, { class: "primary" }), button("cancel", leave));
  return h("div", { class: "editor" }, area, h("p", { class: "about", t: "editAbout" }), tools);
}

/** An answer that is being written. */
export class GrowingTurn {
  constructor() {
    this.body = h("div", { class: "words markdown" }, h("span", { class: "waiting", t: "waiting" }));
    this.element = h("article", { class: "turn assistant growing", tLabel: "assistant", "aria-busy": "true" }, this.body);
  }

  /** Draw at most once a frame. @param {string} text @param {() => void} drawn */
  grow(text, drawn) {
    this.text = text;
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      if (this.text) this.body.querySelector(".waiting")?.remove();
      showMarkdown(this.body, this.text);
      drawn();
    });
  }

  end() {
    cancelAnimationFrame(this.frame);
  }
}

/**
 * An answer that has ended.
 *
 * @param {import("./store.js").Turn} turn
 * @param {{route: string, request: Object, tokens: Array|null, isLocked: boolean}} about
 * @param {{choose: (n: number) => void, regenerate: (() => void)|null}} actions
 */
export function answerTurn(turn, about, actions) {
  const version = versionOf(turn);
  const body = h("div", { class: "words markdown" });
  showMarkdown(body, version.content);
  if (!version.content.trim()) body.append(h("p", { class: "about", t: "emptyAnswer" }));
  const { buttons, place } = details(about);
  const copying = button("copy", () => copy(version.content, copying, "copy"), { class: "quiet" });
  const tools = h(
    "div",
    { class: "tools" },
    turn.versions.length > 1 && versionPicker(turn, actions.choose),
    actions.regenerate && button("regenerate", actions.regenerate, { class: "quiet" }),
    copying,
    buttons,
  );
  return h("article", { class: "turn assistant", tLabel: "assistant" }, body, version.stats && figures(version.stats), tools, place);
}

function versionPicker({ versions, chosen }, choose) {
  return h(
    "span",
    { class: "versions" },
    signButton("‹", "versionBefore", () => choose(chosen - 1), { disabled: chosen === 0 }),
    h("span", {}, `${chosen + 1}/${versions.length}`),
    signButton("›", "versionAfter", () => choose(chosen + 1), { disabled: chosen === versions.length - 1 }),
  );
}

/** What went wrong, and a way on. @param {Error} error @param {() => void} again */
export function failedTurn(error, again) {
  const words = h("p");
  sayError(words, error);
  return h("div", { class: "failed", role: "alert" }, words, button("tryAgain", again));
}
