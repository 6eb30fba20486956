/** Conversations: the thread, the field to write in, and what happens to both. */

import { Answer, nextTokens } from "./answer.js";
import { Composer } from "./composer.js";
import { ConversationList } from "./conversations.js";
import { button, h } from "./dom.js";
import { Complaint } from "./i18n.js";
import { conversations, keep, messagesOf, newConversation, newId, versionOf } from "./store.js";
import { answerTurn, failedTurn, GrowingTurn, userTurn } from "./turn.js";

const ROUTE = "/v1/chat/completions";
const NEAR_END = 80; // pixels from the end, within which the thread follows what is written

export class Chat {
  /** @param {import("./main.js").App} app */
  constructor(app) {
    this.app = app;
    this.tokens = new Map(); // id of a version -> its tokens, until the page is closed
    this.thread = h("div", { class: "thread", role: "log", "aria-live": "off", tLabel: "conversation", tabIndex: 0 });
    this.system = h("textarea", { id: "system-prompt", rows: 2, tPlaceholder: "systemPlaceholder", on: { input: () => this.systemChanged() } });
    this.systemBox = h("details", { class: "system" }, h("summary", { t: "system" }), h("label", { htmlFor: "system-prompt", class: "about", t: "systemAbout" }), this.system);
    this.composer = new Composer({
      send: (text) => this.send(text),
      stop: () => this.stop(),
      changed: () => app.textChanged(),
      key: "message",
    });
    this.list = new ConversationList({
      open: (one) => this.open(one),
      fresh: () => this.open(newConversation()),
      current: () => this.conversation,
      announce: (...words) => app.announce(...words),
      changedElsewhere: (name) => this.changedElsewhere(name),
    });
    this.noTemplate = h("div", { class: "notice", hidden: true }, h("p", { t: "noTemplate" }), h("pre", {}, h("code", {}, "ownlm serve MODEL --chat-template chatml")));
    const column = h("div", { class: "column" }, this.noTemplate, this.systemBox, this.thread, this.composer.element);
    this.element = h("section", { class: "view chat", tLabel: "tabChat" }, this.list.element, column);
    this.open(newConversation());
  }

  modelChanged() {
    const model = this.app.model;
    const converses = Boolean(model?.chat_template);
    this.noTemplate.hidden = converses;
    this.systemBox.hidden = !converses;
    this.composer.allow(converses);
    this.draw();
  }

  focus() {
    this.composer.focus();
  }

  open(conversation) {
    this.stop();
    this.answer = null;
    this.composer.busy(false);
    this.conversation = conversation;
    this.system.value = conversation.system;
    this.systemBox.open = Boolean(conversation.system);
    this.failure = null;
    this.draw();
    this.list.draw();
    this.toEnd(true);
    this.app.textChanged();
  }

  systemChanged() {
    this.conversation.system = this.system.value;
    if (this.conversation.turns.length) this.save();
    this.app.textChanged();
  }

  /** What comes first in the answer to what is written so far. */
  async nextTokens(signal) {
    if (!this.app.model?.chat_template) return null;
    const typed = this.composer.text.trim();
    const messages = messagesOf(this.conversation);
    if (typed) messages.push({ role: "user", content: typed });
    while (messages.length && messages.at(-1).role === "assistant") messages.pop();
    if (!messages.some(({ role }) => role === "user")) return null;
    return nextTokens(ROUTE, { model: this.app.model.id, messages }, signal);
  }

  /** A message; it is joined to one before it that was not answered. */
  send(text) {
    const { turns } = this.conversation;
    if (turns.at(-1)?.role === "user") text = `${turns.pop().content}\n\n${text}`;
    turns.push({ role: "user", content: text });
    this.conversation.title ||= text.trim().replace(/\s+/g, " ").slice(0, 60);
    this.write();
  }

  edit(place, text) {
    this.conversation.turns.length = place;
    if (place === 0) this.conversation.title = "";
    this.send(text);
  }

  regenerate(place) {
    this.write(this.conversation.turns.length > place ? this.conversation.turns[place] : null);
  }

  /** Let the model answer the last message. @param {import("./store.js").Turn|null} turn that gets one more version */
  async write(turn = null) {
    const { conversation } = this;
    const count = turn ? conversation.turns.indexOf(turn) : conversation.turns.length;
    const request = { model: this.app.model.id, messages: messagesOf(conversation, count), ...this.app.settings.fields() };
    const answer = (this.answer = new Answer(ROUTE, request));
    const growing = new GrowingTurn();
    this.failure = null;
    this.save();
    this.draw(count);
    this.thread.append(growing.element);
    this.composer.busy(true);
    this.toEnd(true);
    this.app.announce("answering");
    let failure = null;
    try {
      await answer.run(() => {
        growing.grow(answer.text, () => this.toEnd());
        this.app.read(answer.text);
      });
    } catch (error) {
      failure = error;
    }
    growing.end();
    if (answer.text || !failure) this.took(conversation, turn, answer, failure);
    if (this.conversation !== conversation) return; // another one is shown by now
    this.answer = null;
    this.composer.busy(false);
    this.failure = failure && { error: failure, turn };
    this.draw();
    this.toEnd();
    this.ended(answer, failure);
  }

  took(conversation, turn, answer, failure) {
    const stats = { ...answer.stats(), ...(failure ? { finish: "error" } : {}) };
    const version = { id: newId(), content: answer.text, model: answer.model ?? answer.request.model, stats };
    this.tokens.set(version.id, answer.tokens);
    if (turn) turn.chosen = turn.versions.push(version) - 1;
    else conversation.turns.push({ role: "assistant", versions: [version], chosen: 0 });
    this.save(conversation);
  }

  ended(answer, failure) {
    if (failure) this.app.failed(failure);
    else this.app.readEnd(answer.text, { count: answer.stats().tokens });
    this.app.textChanged();
  }

  stop() {
    this.answer?.stop();
  }

  choose(turn, number) {
    const isLater = number > turn.chosen;
    turn.chosen = number;
    this.save();
    this.draw();
    const place = this.conversation.turns.indexOf(turn);
    const [before, after] = this.thread.children[place].querySelectorAll(".versions button");
    [isLater ? after : before, before, after].find((one) => !one.disabled).focus();
  }

  /** Another tab has gone on with this conversation. */
  changedElsewhere(name) {
    const now = conversations().find(({ id }) => id === this.conversation.id);
    if (now && !this.answer && name?.endsWith(now.id)) this.open(now);
  }

  save(conversation = this.conversation) {
    conversation.updated = Date.now();
    try {
      keep(conversation);
    } catch (error) {
      this.app.complain(new Complaint("storageFull", { reason: error.message }));
    }
    this.list.draw();
  }

  /** The turns; those from `count` on are left out. */
  draw(count = this.conversation.turns.length) {
    const turns = this.conversation.turns.slice(0, count);
    this.thread.replaceChildren(...turns.map((turn, place) => this.turn(turn, place)));
    if (!turns.length && !this.failure && this.app.model?.chat_template) this.thread.append(h("p", { class: "empty", t: ["emptyChat", { model: this.app.model.id }] }));
    if (this.failure) this.thread.append(failedTurn(this.failure.error, () => this.write(this.failure.turn)));
    else if (turns.at(-1)?.role === "user" && !this.answer) this.thread.append(button("answerNow", () => this.write()));
  }

  turn(turn, place) {
    const isFree = !this.answer && Boolean(this.app.model?.chat_template);
    if (turn.role === "user") return userTurn(turn.content, isFree ? { edit: (text) => this.edit(place, text) } : null);
    const version = versionOf(turn);
    const request = { model: version.model ?? this.app.model?.id, messages: messagesOf(this.conversation, place), ...version.stats?.request };
    const about = { route: ROUTE, request, tokens: this.tokens.get(version.id) ?? null, isLocked: this.app.isLocked };
    const isLast = place === this.conversation.turns.length - 1;
    return answerTurn(turn, about, {
      choose: (number) => this.choose(turn, number),
      regenerate: isFree && isLast ? () => this.regenerate(place) : null,
    });
  }

  toEnd(isSure = false) {
    const { scrollHeight, scrollTop, clientHeight } = this.thread;
    const grew = scrollHeight - (this.heightBefore ?? scrollHeight);
    this.heightBefore = scrollHeight;
    if (isSure || scrollHeight - grew - scrollTop - clientHeight < NEAR_END) this.thread.scrollTop = scrollHeight;
  }
}
