/** What is known of an answer beside its words: why it ended, speed, tokens and their chances, prompt, commands. */

import { speedOf } from "./answer.js";
import { ask } from "./api.js";
import { barList, others } from "./bars.js";
import { button, copy, h, say, write } from "./dom.js";
import { t } from "./i18n.js";
import { chances, percent, visible, wholeTexts } from "./sampling.js";
import { asCurl, asPython } from "./snippets.js";

const PLAIN = { temperature: 1, top_p: 1, top_k: 0, min_p: 0 };

/** The line of figures under an answer. */
export function figures(stats) {
  const speed = speedOf(stats);
  const parts = [
    [`finish_${["stop", "length", "stopped", "error"].includes(stats.finish) ? stats.finish : "unknown"}`],
    ["figureTokens", { count: stats.tokens }],
    speed && ["figureSpeed", { speed: speed.toFixed(speed < 10 ? 1 : 0) }],
    stats.firstSeconds !== undefined && ["figureFirst", { seconds: stats.firstSeconds.toFixed(2) }],
    stats.meanLogprob !== undefined && ["figureLogprob", { value: stats.meanLogprob.toFixed(2) }],
  ];
  const shown = parts.filter(Boolean).map((words) => h("span", { t: words }));
  return h("p", { class: "figures" }, shown.flatMap((one, number) => (number ? [" · ", one] : [one])));
}

/**
 * The buttons that open the details, and the place where they open: one at a time.
 *
 * @param {{route: string, request: Object, tokens: import("./answer.js").Token[]|null, isLocked: boolean}} about `tokens`
 *   null: they are not known any more; `request` holds messages or prompt
 */
export function details(about) {
  const place = h("div", { class: "details" });
  const tabs = [
    ["detailsTokens", () => tokensView(about.tokens, about.request)],
    ["detailsPrompt", () => promptView(about)],
    ["asCurl", () => snippet(asCurl(about.route, about.request, about.isLocked))],
    ["asPython", () => snippet(asPython(about.route, about.request, about.isLocked))],
  ];
  const buttons = tabs.map(([key, view]) =>
    button(key, () => {
      const isOpen = buttons.some((one) => one.dataset.key === key && one.getAttribute("aria-expanded") === "true");
      for (const one of buttons) one.setAttribute("aria-expanded", String(!isOpen && one.dataset.key === key));
      place.replaceChildren(...(isOpen ? [] : [view()]));
      place.scrollIntoView({ block: "nearest" });
    }, { class: "quiet", data: { key }, "aria-expanded": "false" }),
  );
  return { buttons, place };
}

/** Tokens coloured by their probability; the one that is pointed at or focused shows what else was possible. */
function tokensView(tokens, settings) {
  if (!tokens) return h("p", { class: "about", t: "tokensGone" });
  const about = h("div", { class: "alternatives", role: "status", "aria-live": "polite" }, h("p", { class: "about", t: "tokensAbout" }));
  const shown = tokens.map((token, place) => tokenSpan(token, place, () => about.replaceChildren(...alternatives(token, settings))));
  const line = h("div", { class: "tokens", role: "group", tLabel: "detailsTokens" }, shown);
  if (shown.length) shown[0].tabIndex = 0;
  line.addEventListener("keydown", (event) => walk(event, shown));
  return h("div", {}, scale(), line, about);
}

function tokenSpan(token, place, look) {
  const probability = Math.exp(token.logprob);
  const words = `${visible(token.token)} ${percent(probability)}`;
  const span = h(
    "span",
    { class: `token p${bucket(probability)}`, tabIndex: -1, role: "img", "aria-label": words, on: { mouseenter: look, focus: look } },
    token.token.startsWith("bytes:") ? visible(token.token) : token.token,
  );
  if (token.token.includes("\n")) span.classList.add("breaks");
  return span;
}

/** Left and right go from token to token, so that Tab passes the whole line by one step. */
function walk(event, shown) {
  const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
  const here = shown.indexOf(document.activeElement);
  if (step === undefined || here < 0) return;
  event.preventDefault();
  const next = Math.max(0, Math.min(shown.length - 1, here + step));
  shown[here].tabIndex = -1;
  shown[next].tabIndex = 0;
  shown[next].focus();
}

function alternatives(token, request) {
  const settings = { ...PLAIN, ...request };
  const list = chances(token.top_logprobs, settings);
  const isListed = list.some((one) => one.token === token.token);
  const head = h("p", {}, h("code", {}, visible(token.token)), ` ${t("tokenFigures", { share: percent(Math.exp(token.logprob)), logprob: token.logprob.toFixed(3) })}`);
  return [head, barList(list, token.token), others(list), !isListed && h("p", { class: "about", t: "tokenUnlisted" })].filter(Boolean);
}

const scale = () =>
  h("p", { class: "scale", "aria-hidden": "true" }, [0, 1, 2, 3, 4].map((n) => h("span", { class: `token p${n}` }, ["<2%", "2–10%", "10–40%", "40–80%", ">80%"][n])));

const bucket = (p) => (p < 0.02 ? 0 : p < 0.1 ? 1 : p < 0.4 ? 2 : p < 0.8 ? 3 : 4);

/** The text that the model read, as its chat template wrote it, token by token. */
function promptView({ request }) {
  const words = h("p", { class: "about", t: "promptAsking" });
  const text = h("pre", { class: "prompt", tabIndex: 0 });
  const { model, messages, prompt } = request;
  ask("/tokenize", messages ? { model, messages } : { model, prompt }).then(
    (found) => {
      say(words, "promptAbout", { count: found.count, window: found.max_model_len });
      text.append(...wholeTexts(found.token_strs).map((part, n) => h("span", { class: n % 2 ? "odd" : "even" }, part)));
    },
    (error) => write(words, error.message),
  );
  return h("div", {}, words, text);
}

function snippet(text) {
  const copying = button("copy", () => copy(text, copying, "copy"), { class: "small" });
  return h("div", { class: "code-block" }, h("div", { class: "code-head" }, h("span"), copying), h("pre", { tabIndex: 0 }, h("code", {}, text)));
}
