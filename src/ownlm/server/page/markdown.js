/** Markdown as nodes, block by block: while an answer grows, the blocks that stay the same are left alone. */

import { button, copy, h } from "./dom.js";
import { inline } from "./inline.js";

const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}>\s?/;
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const DEEPEST = 8; // quotes and lists in each other

/**
 * Show a text in an element.
 *
 * @param {HTMLElement} element @param {string} text
 */
export function showMarkdown(element, text) {
  const blocks = blocksOf(text.split("\n"));
  const shown = element.blocks ?? [];
  let same = 0;
  while (same < blocks.length && same < shown.length && shown[same].source === blocks[same].source) same++;
  for (const { node } of shown.slice(same)) node.remove();
  for (const block of blocks.slice(same)) {
    block.node = nodeOf(block, 0);
    element.append(block.node);
  }
  element.blocks = [...shown.slice(0, same), ...blocks.slice(same)];
}

/** @returns {Array<{kind: string, lines: string[], source: string}>} */
function blocksOf(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const kind = kindAt(lines, at);
    const end = endOf(kind, lines, at);
    const taken = lines.slice(at, end);
    blocks.push({ kind, lines: taken, source: `${kind}\n${taken.join("\n")}` });
    at = end;
  }
  return blocks;
}

function kindAt(lines, at) {
  if (FENCE.test(lines[at])) return "code";
  if (HEADING.test(lines[at])) return "heading";
  if (RULE.test(lines[at])) return "rule";
  if (QUOTE.test(lines[at])) return "quote";
  if (ITEM.test(lines[at])) return "list";
  if (lines[at].includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && DIVIDER.test(lines[at + 1]))
    return "table";
  return "paragraph";
}

function endOf(kind, lines, begin) {
  let at = begin + 1;
  if (kind === "heading" || kind === "rule") return at;
  if (kind === "code") {
    const fence = FENCE.exec(lines[begin])[1];
    while (at < lines.length && !lines[at].trim().startsWith(fence)) at++;
    return Math.min(at + 1, lines.length);
  }
  const goesOn = {
    quote: () => QUOTE.test(lines[at]),
    table: () => lines[at].includes("|"),
    list: () => ITEM.test(lines[at]) || /^\s/.test(lines[at]) || (!lines[at].trim() && isOfList(lines[at + 1])),
    paragraph: () => lines[at].trim() && kindAt(lines, at) === "paragraph",
  }[kind];
  while (at < lines.length && goesOn()) at++;
  return at;
}

const isOfList = (line) => line !== undefined && (ITEM.test(line) || /^\s+\S/.test(line));

function nodeOf({ kind, lines }, depth) {
  if (depth > DEEPEST) return h("p", {}, lines.join("\n"));
  return {
    code: () => codeBlock(lines),
    heading: () => h(`h${Math.min(6, HEADING.exec(lines[0])[1].length + 2)}`, {}, inline(HEADING.exec(lines[0])[2])),
    rule: () => h("hr"),
    quote: () => h("blockquote", {}, nodes(lines.map((line) => line.replace(QUOTE, "")), depth + 1)),
    list: () => list(lines, depth),
    table: () => table(lines),
    paragraph: () => h("p", {}, withBreaks(lines)),
  }[kind]();
}

const nodes = (lines, depth) => blocksOf(lines).map((block) => nodeOf(block, depth));

const withBreaks = (lines) =>
  lines.flatMap((line, number) => [...(number ? [h("br")] : []), ...inline(line.trim())]);

function codeBlock(lines) {
  const [, fence, language] = FENCE.exec(lines[0]);
  const closed = lines.length > 1 && lines.at(-1).trim().startsWith(fence);
  const text = lines.slice(1, closed ? -1 : undefined).join("\n");
  const copying = button("copy", () => copy(text, copying, "copy"), { class: "small" });
  const head = h("div", { class: "code-head" }, h("span", {}, language), copying);
  return h("div", { class: "code-block" }, head, h("pre", { tabIndex: 0 }, h("code", {}, text)));
}

function list(lines, depth) {
  const [, indent, mark] = ITEM.exec(lines[0]);
  const items = [];
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found && found[1].length <= indent.length + 1) items.push([found[3]]);
    else items.at(-1).push(line.replace(new RegExp(`^\\s{0,${indent.length + 2}}`), ""));
  }
  const ordered = /\d/.test(mark);
  const made = items.map((item) => h("li", {}, tight(nodes(item, depth + 1))));
  return h(ordered ? "ol" : "ul", ordered ? { start: parseInt(mark, 10) } : {}, made);
}

/** The words of an item whose first block is a paragraph stand beside its mark. */
const tight = ([first, ...rest]) => (first?.tagName === "P" ? [...first.childNodes, ...rest] : first ? [first, ...rest] : []);

function table(lines) {
  const cells = (line) =>
    line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => inline(cell.trim()));
  const row = (line, tag) => h("tr", {}, cells(line).map((cell) => h(tag, {}, cell)));
  const body = lines.slice(2).map((line) => row(line, "td"));
  const whole = h("table", {}, h("thead", {}, row(lines[0], "th")), h("tbody", {}, body));
  return h("div", { class: "wide", tabIndex: 0 }, whole);
}
