/** Markdown within a line: code, emphasis, links. Nodes are built; markup in the text stays text. */

import { h } from "./dom.js";

const LONGEST = 20000; // characters; a longer line is shown as it stands
const SAFE_LINK = /^(https?:\/\/|mailto:)/i;
const MARKS = [
  { form: /(`+)([^`]|[^`][^]*?[^`])\1(?!`)/y, make: (found) => h("code", {}, found[2].replace(/^ (.+) $/, "$1")) },
  { form: /!?\[([^\[\]]*)\]\(([^\s()]*)\)/y, make: (found) => link(found[2], inline(found[1]), found[0]) },
  { form: /\*\*(?=\S)([^]*?\S)\*\*/y, make: (found) => h("strong", {}, inline(found[1])) },
  { form: /__(?=\S)([^]*?\S)__(?!\w)/y, wordStart: true, make: (found) => h("strong", {}, inline(found[1])) },
  { form: /~~(?=\S)([^]*?\S)~~/y, make: (found) => h("del", {}, inline(found[1])) },
  { form: /\*(?=[^\s*])([^*]*[^\s*])\*(?!\*)/y, make: (found) => h("em", {}, inline(found[1])) },
  { form: /_(?=[^\s_])([^_]*[^\s_])_(?!\w)/y, wordStart: true, make: (found) => h("em", {}, inline(found[1])) },
  { form: /https?:\/\/[^\s<>"'`]*[^\s<>"'`.,;:!?)\]]/y, wordStart: true, make: (found) => link(found[0], [found[0]], found[0]) },
  { form: /\\([\\`*_{}\[\]()#+\-.!~|>])/y, make: (found) => found[1] },
];

/** @param {string} text @returns {Array<Node|string>} */
export function inline(text) {
  if (text.length > LONGEST) return [text];
  const made = [];
  let plain = "";
  for (let at = 0; at < text.length; ) {
    const found = markAt(text, at);
    if (found === null) {
      plain += text[at++];
      continue;
    }
    if (plain) made.push(plain);
    plain = "";
    made.push(found.node);
    at = found.end;
  }
  if (plain) made.push(plain);
  return made;
}

function markAt(text, at) {
  if (!"`![*_~h\\".includes(text[at])) return null;
  for (const { form, wordStart, make } of MARKS) {
    if (wordStart && at > 0 && /\w/.test(text[at - 1])) continue;
    form.lastIndex = at;
    const found = form.exec(text);
    if (found) return { node: make(found), end: at + found[0].length };
  }
  return null;
}

/** A link that leads to another page; addresses of other kinds, such as javascript:, stay text. */
function link(address, words, source) {
  if (!SAFE_LINK.test(address)) return source;
  return h("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" }, words.length ? words : [address]);
}
