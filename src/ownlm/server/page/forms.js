/** What each task asks and how its results are shown. */

import { h } from "./dom.js";
import { percent } from "./sampling.js";

const TEXT = { name: "input", label: "fieldText", rows: 6, required: true };

/**
 * The last word of a route -> its fields, the body of a request, and its results as elements.
 *
 * @type {Object<string, {fields: Object[], body: (values: Object) => Object, show: (results: any, values: Object) => Node[]}>}
 */
export const FORMS = {
  search: {
    fields: [
      { name: "question", label: "fieldQuestion", required: true },
      { name: "answer", label: "fieldAnswer", choices: [
        { value: "span", key: "answerSpan", when: (offer) => "answer" in (offer?.tasks ?? {}) },
        { value: "text", key: "answerText", when: (offer, model) => model.chat_template && model.generates },
        { value: "passages", key: "answerPassages" },
      ] },
    ],
    body: ({ question, answer }) => ({ question, answer }),
    show: passages,
  },
  answer: {
    fields: [
      { name: "context", label: "fieldContext", rows: 8, required: true },
      { name: "question", label: "fieldQuestion", required: true },
    ],
    body: ({ context, question }) => ({ context, question, top_k: 3 }),
    show: spans,
  },
  translate: {
    fields: [
      TEXT,
      { name: "from", label: "fieldFrom", about: "aboutFrom" },
      { name: "to", label: "fieldTo", about: "aboutTo", required: true, value: () => "de" },
    ],
    body: ({ input, from, to }) => ({ input, to: to.trim(), ...(from.trim() ? { from: from.trim() } : {}) }),
    show: ([{ translation_text: text }]) => [h("div", { class: "text" }, text)],
  },
  classify: {
    fields: [
      { ...TEXT, rows: 4 },
      { name: "labels", label: "fieldLabels", about: "aboutLabels", value: (offer) => (offer?.labels ?? []).join(", ") },
    ],
    body: ({ input, labels }) => ({ input, labels: listed(labels), top_k: 20 }),
    show: ([labels]) => [labelBars(labels)],
  },
  summarize: {
    fields: [{ ...TEXT, rows: 10 }],
    body: ({ input }) => ({ input }),
    show: ([{ summary_text: text }]) => [h("div", { class: "text" }, text)],
  },
};

function listed(labels) {
  const found = labels.split(/[,，、\n]/).map((one) => one.trim()).filter(Boolean);
  return found.length ? found : null;
}

function labelBars(labels) {
  const rows = labels.map(({ label, score }) => {
    const bar = h("span", { class: "bar now" });
    bar.style.width = `${100 * Math.min(1, Math.max(0, score))}%`;
    return h("li", {}, h("span", {}, label), h("span", { class: "track", "aria-hidden": "true" }, bar), h("span", { class: "share" }, percent(score)));
  });
  return h("ol", { class: "bars labels" }, rows);
}

/** The answers, and the context with the best one marked where it stands. */
function spans(answers, { context }) {
  const [best, ...others] = answers;
  if (!best?.answer) return [h("p", { t: "notInText" })];
  const characters = Array.from(context); // offsets count characters, not UTF-16 units
  const part = (begin, end) => characters.slice(begin, end).join("");
  const shown = h("div", { class: "text quoted" }, part(0, best.start), h("mark", {}, part(best.start, best.end)), part(best.end));
  const rest = others.filter(({ answer }) => answer).map(({ answer, score }) => h("li", {}, answer, h("span", { class: "about" }, ` ${percent(score)}`)));
  return [
    h("p", { class: "best" }, best.answer, h("span", { class: "about" }, ` ${percent(best.score)}`)),
    shown,
    rest.length > 0 && h("h3", { t: "otherAnswers" }),
    rest.length > 0 && h("ul", {}, rest),
  ].filter(Boolean);
}

/** The answer from a folder with its sources, then the passages. */
function passages(found) {
  const { answer, found: isFound, passages: list, documents, missing, notes } = found;
  const head = answer
    ? [h("p", { class: "best" }, answer.answer), h("p", { class: "sources" }, h("span", { t: "sources" }), " ", answer.sources.map((source) => h("code", {}, source)))]
    : [h("p", { class: "best", t: isFound ? ["foundPassages", { count: list.length }] : ["notFound", { count: documents }] })];
  if (!isFound && list.length) head.push(h("p", { class: "about", t: "nearestPassages" }));
  if (!isFound && missing.length) head.push(h("p", { class: "about", t: ["missingWords", { words: missing.join(", ") }] }));
  head.push(...notes.map((note) => h("p", { class: "about" }, note)));
  const shown = list.map(({ source, heading, text }, number) =>
    h("li", { class: number === answer?.passage ? "chosen" : "" }, h("p", { class: "source" }, h("code", {}, source), heading ? ` ${heading}` : ""), h("div", { class: "text quoted" }, text)),
  );
  return [...head, h("ol", { class: "passages" }, shown)];
}
