/** Conversations as a file: what is written, and what is accepted of a file that somebody else may have written. */

import { Complaint } from "./i18n.js";

const FORMAT = "ownlm conversations 1";
const MOST = { bytes: 20_000_000, conversations: 2000, turns: 5000, text: 2_000_000, versions: 200 };

/** @param {import("./store.js").Conversation[]} conversations @returns {string} */
export function exported(conversations) {
  return JSON.stringify({ format: FORMAT, exported: new Date().toISOString(), conversations }, null, 1);
}

/**
 * The conversations in a file.
 *
 * @param {string} text @returns {import("./store.js").Conversation[]} raises a Complaint that says what is wrong
 */
export function imported(text) {
  if (text.length > MOST.bytes) throw new Complaint("importTooLarge");
  let read;
  try {
    read = JSON.parse(text);
  } catch {
    throw new Complaint("importNoJson");
  }
  if (!isObject(read) || read.format !== FORMAT) throw new Complaint("importFormat", { format: FORMAT });
  return checkedConversations(read.conversations);
}

/** The same values, copied field by field; anything else that stands beside them is left behind. */
export function checkedConversations(given) {
  if (!Array.isArray(given) || given.length > MOST.conversations) throw new Complaint("importPart", { where: "conversations" });
  return given.map((one, number) => conversation(one, `conversations[${number}]`));
}

function conversation(given, where) {
  check(isObject(given), where);
  check(/^[\w-]{1,64}$/.test(given.id ?? ""), `${where}.id`);
  check(Array.isArray(given.turns) && given.turns.length <= MOST.turns, `${where}.turns`);
  return {
    id: given.id,
    title: text(given.title, `${where}.title`),
    system: text(given.system, `${where}.system`),
    created: time(given.created, `${where}.created`),
    updated: time(given.updated, `${where}.updated`),
    turns: given.turns.map((one, number) => turn(one, number, `${where}.turns[${number}]`)),
  };
}

function turn(given, number, where) {
  check(isObject(given) && given.role === (number % 2 ? "assistant" : "user"), `${where}.role`);
  if (given.role === "user") return { role: "user", content: text(given.content, `${where}.content`) };
  const { versions, chosen } = given;
  check(Array.isArray(versions) && versions.length > 0 && versions.length <= MOST.versions, `${where}.versions`);
  check(Number.isInteger(chosen) && chosen >= 0 && chosen < versions.length, `${where}.chosen`);
  return { role: "assistant", versions: versions.map((one, n) => version(one, `${where}.versions[${n}]`)), chosen };
}

function version(given, where) {
  check(isObject(given), where);
  check(/^[\w-]{1,64}$/.test(given.id ?? ""), `${where}.id`);
  const made = { id: given.id, content: text(given.content, `${where}.content`) };
  if (given.model !== undefined) made.model = text(given.model, `${where}.model`);
  if (isObject(given.stats)) made.stats = stats(given.stats);
  return made;
}

/** Numbers and short words about an answer; what is something else is left behind. */
function stats(given) {
  const numbers = ["tokens", "promptTokens", "firstSeconds", "seconds", "meanLogprob"];
  const made = {};
  for (const name of numbers) if (Number.isFinite(given[name])) made[name] = given[name];
  if (typeof given.finish === "string" && given.finish.length < 100) made.finish = given.finish;
  if (isObject(given.request) && JSON.stringify(given.request).length < 10_000) made.request = given.request;
  return made;
}

function check(isRight, where) {
  if (!isRight) throw new Complaint("importPart", { where });
}

function text(given, where) {
  check(typeof given === "string" && given.length <= MOST.text, where);
  return given;
}

function time(given, where) {
  check(Number.isFinite(given) && given >= 0 && given < 8.64e15, where);
  return given;
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
