/** One answer while it is streamed: its text, its tokens, its times. */

import { ask, events } from "./api.js";
import { Complaint } from "./i18n.js";

const SHORTEST = 0.1; // seconds
const TOPS = 8; // alternatives that are asked for at each token

/**
 * @typedef {{token: string, logprob: number, bytes: number[], top_logprobs: import("./sampling.js").Top[]}} Token
 */

export class Answer {
  /** @param {"/v1/chat/completions"|"/v1/completions"} route @param {Object} request its fields */
  constructor(route, request) {
    this.route = route;
    this.request = request;
    this.text = "";
    /** @type {Token[]} */
    this.tokens = [];
    this.finish = null;
    this.usage = null;
    this.stopping = new AbortController();
  }

  /** Let the model write; `grown` is called whenever there is more. Raises a Problem; being stopped is none. */
  async run(grown) {
    const begin = performance.now();
    const asked = { ...this.request, ...listed(this.route), stream_options: { include_usage: true } };
    try {
      for await (const event of events(this.route, asked, this.stopping.signal)) {
        this.take(event, (performance.now() - begin) / 1000);
        grown();
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error;
      this.finish = "stopped";
    }
  }

  stop() {
    this.stopping.abort();
  }

  take(event, seconds) {
    this.usage = event.usage ?? this.usage;
    this.model = event.model;
    const choice = event.choices[0];
    if (!choice) return;
    this.text += choice.delta ? (choice.delta.content ?? "") : choice.text;
    const tokens = tokensOf(choice.logprobs);
    if (tokens.length) this.first ??= { seconds, tokens: tokens.length };
    this.tokens.push(...tokens);
    this.seconds = seconds;
    this.finish = choice.finish_reason ?? this.finish;
  }

  /** What is kept of it beside its text. */
  stats() {
    const known = this.tokens.filter(({ logprob }) => logprob > -9999);
    const sum = known.reduce((total, { logprob }) => total + logprob, 0);
    return {
      tokens: this.usage?.completion_tokens ?? this.tokens.length,
      promptTokens: this.usage?.prompt_tokens,
      firstSeconds: this.first?.seconds,
      seconds: this.seconds,
      meanLogprob: known.length ? sum / known.length : undefined,
      finish: this.finish,
      request: withoutText(this.request),
    };
  }
}

/** Tokens in a second, from the first one on; null where the time is too short to tell. */
export function speedOf({ tokens, seconds, firstSeconds }) {
  return tokens > 1 && seconds - firstSeconds > SHORTEST ? (tokens - 1) / (seconds - firstSeconds) : null;
}

/** How many tokens fit into the window after a prompt. Raises a Complaint when none does. */
export async function roomAfter(request, signal = undefined) {
  const { count, max_model_len: window } = await ask("/tokenize", { ...request, return_token_strs: false }, signal);
  if (count >= window) throw new Complaint("windowFull", { count, window });
  return window - count;
}

/** The most probable tokens at the place after a prompt, for the bars. */
export async function nextTokens(route, request, signal) {
  await roomAfter(request, signal);
  const one = { ...request, max_tokens: 1, temperature: 0, seed: 0 };
  const isChat = route === "/v1/chat/completions";
  const body = isChat ? { ...one, logprobs: true, top_logprobs: 20 } : { ...one, logprobs: 20 };
  const { choices } = await ask(route, body, signal);
  return tokensOf(choices[0].logprobs)[0]?.top_logprobs ?? [];
}

const listed = (route) => (route === "/v1/chat/completions" ? { logprobs: true, top_logprobs: TOPS } : { logprobs: TOPS });

const withoutText = ({ messages, prompt, ...rest }) => rest;

/** Both of OpenAI's forms as one. @returns {Token[]} */
function tokensOf(logprobs) {
  if (!logprobs) return [];
  if (logprobs.content) return logprobs.content;
  return logprobs.tokens.map((token, place) => ({
    token,
    logprob: logprobs.token_logprobs[place] ?? 0,
    bytes: [],
    top_logprobs: Object.entries(logprobs.top_logprobs[place] ?? {})
      .map(([name, logprob]) => ({ token: name, logprob, bytes: [] }))
      .sort((one, other) => other.logprob - one.logprob),
  }));
}
