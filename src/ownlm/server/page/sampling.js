/** From the most probable tokens of a place to the chances with which each is drawn under the settings. */

/**
 * @typedef {{token: string, logprob: number, bytes: number[]}} Top
 * @typedef {{token: string, bytes: number[], probability: number, chance: number}} Chance
 */

/**
 * The chances with which the listed tokens are drawn, in the order in which the engine applies the settings:
 * temperature, then top k, top p and min p.
 *
 * Of the tokens that are not listed only their sum is known. Each of them counts as if it were as probable as the last
 * listed one: exact at temperature 1; below it they get too much, above it too little.
 *
 * @param {Top[]} tops the most probable first
 * @param {{temperature: number, top_p: number, top_k: number, min_p: number}} settings
 * @returns {Chance[]}
 */
export function chances(tops, settings) {
  if (!tops.length) return [];
  const { temperature, top_p: topP, top_k: topK, min_p: minP } = settings;
  const shares = normalised(weights(tops, temperature).map((weight, place) => (topK <= 0 || place < topK ? weight : 0)));
  let before = 0;
  const kept = shares.map((share, place) => {
    const isListed = place < tops.length;
    const least = isListed ? share : shares[tops.length - 1];
    const isKept = (place === 0 || before < topP) && least >= minP * shares[0];
    const part = isListed ? share : Math.min(share, topP - before);
    before += share;
    return isKept ? part : 0;
  });
  const drawn = normalised(kept);
  return tops.map(({ token, bytes, logprob }, place) => ({ token, bytes, probability: Math.exp(logprob), chance: drawn[place] }));
}

/** Of each listed token, and last of all the others together. */
function weights(tops, temperature) {
  if (temperature === 0) return [1, ...tops.map(() => 0)];
  const best = tops[0].logprob;
  const last = tops.at(-1).logprob;
  const others = Math.max(0, 1 - tops.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0));
  const listed = tops.map(({ logprob }) => Math.exp((logprob - best) / temperature));
  return [...listed, others * Math.exp(last * (1 / temperature - 1) - best / temperature)];
}

function normalised(given) {
  const sum = given.reduce((total, one) => total + one, 0);
  return given.map((one) => (sum ? one / sum : 0));
}

/** A token so that spaces and line breaks are seen; bytes that are no whole character as their numbers. */
export function visible(token) {
  if (token.startsWith("bytes:")) return token.slice("bytes:".length).replaceAll("\\x", "‹").replace(/‹(..)/g, "‹$1›");
  return token.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";
}

/** Tokens as texts that can be read: those of one character are joined. @param {string[]} tokens @returns {string[]} */
export function wholeTexts(tokens) {
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  const texts = tokens.map((token) => decoder.decode(token.startsWith("bytes:") ? bytesOf(token) : encoder.encode(token), { stream: true }));
  return [...texts, decoder.decode()].filter(Boolean);
}

const bytesOf = (token) => Uint8Array.from(token.matchAll(/\\x(..)/g), ([, digits]) => parseInt(digits, 16));

/** A share from 0 to 1, short. */
export function percent(share) {
  if (share > 0 && share < 0.001) return "<0.1%";
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;
}
