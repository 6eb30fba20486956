/** Conversations, kept in this browser alone: one entry of localStorage each. */

import { checkedConversations } from "./exchange.js";

const PREFIX = "ownlm.conversation.";

/**
 * @typedef {{id: string, content: string, model?: string, stats?: Object}} Version of an answer
 * @typedef {{role: "user"|"assistant", content?: string, versions?: Version[], chosen?: number}} Turn
 * @typedef {{id: string, title: string, system: string, created: number, updated: number, turns: Turn[]}} Conversation
 */

/** @returns {Conversation} */
export function newConversation() {
  return { id: newId(), title: "", system: "", created: Date.now(), updated: Date.now(), turns: [] };
}

/** Names of entries that cannot be read. @type {Set<string>} */
export const damaged = new Set();

/** All of them, the latest first; entries that are damaged are left alone. @returns {Conversation[]} */
export function conversations() {
  const found = [];
  damaged.clear();
  for (const name of Object.keys(localStorage).filter((one) => one.startsWith(PREFIX))) {
    try {
      found.push(checkedConversations([JSON.parse(localStorage.getItem(name))])[0]);
    } catch (error) {
      damaged.add(name);
      console.warn(`${name}: ${error.message}`);
    }
  }
  return found.sort((one, other) => other.updated - one.updated);
}

/** Keep a conversation. Raises QuotaExceededError when the browser has no more room. */
export function keep(conversation) {
  const { id, title, system, created, updated, turns } = conversation;
  localStorage.setItem(PREFIX + id, JSON.stringify({ id, title, system, created, updated, turns }));
}

export function forget(id) {
  localStorage.removeItem(PREFIX + id);
}

/** What the model reads of a conversation. @param {Conversation} conversation @param {number} [turns] only so many */
export function messagesOf(conversation, turns = conversation.turns.length) {
  const said = conversation.turns
    .slice(0, turns)
    .map((turn) => ({ role: turn.role, content: turn.role === "user" ? turn.content : versionOf(turn).content }));
  return conversation.system.trim() ? [{ role: "system", content: conversation.system }, ...said] : said;
}

/** @param {Turn} turn of the assistant @returns {Version} */
export const versionOf = (turn) => turn.versions[turn.chosen];

/** Called when another tab of this page changes a conversation. */
export function onForeignChange(action) {
  addEventListener("storage", (event) => (event.key === null || event.key.startsWith(PREFIX)) && action(event.key));
}

/** Settings and drafts under one name each. */
export const kept = {
  get(name, otherwise) {
    try {
      return JSON.parse(localStorage.getItem(`ownlm.${name}`)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`ownlm.${name}`, JSON.stringify(value));
    } catch (error) {
      console.warn(error.message); // no room left: it holds until the page is closed
    }
  },
};

export const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (n) => n.toString(16).padStart(2, "0")).join("");
