/** From the most probable tokens of a place to the chances with which each is drawn under the settings. */

/**
 * @typedef {{token: string, logprob: number, bytes: number[]}} Top
 * @typedef {{token: string, bytes: number[], probability: number, chance: number}} Chance
 */

/**
 * The chances among the listed tokens, in the order in which the engine applies the settings: temperature, then
 * top k, top p and min p.
 *
 * @param {Top[]} tops the most probable first
 * @param {{temperature: number, top_p: number, top_k: number, min_p: number}} settings
 * @returns {Chance[]}
 */
export function chances(tops, settings) {
  if (!tops.length) return [];
  const { temperature, top_p: topP, top_k: topK, min_p: minP } = settings;
  const best = tops[0].logprob;
  const weights = tops.map(({ logprob }, place) =>
    temperature === 0 ? Number(place === 0) : Math.exp((logprob - best) / temperature),
  );
  const shares = normalised(weights.map((weight, place) => (topK <= 0 || place < topK ? weight : 0)));
  let before = 0;
  const kept = shares.map((share, place) => {
    const isKept = (place === 0 || before < topP) && share >= minP * shares[0];
    before += share;
    return isKept ? share : 0;
  });
  return normalised(kept).map((chance, place) => ({
    token: tops[place].token,
    bytes: tops[place].bytes,
    probability: Math.exp(tops[place].logprob),
    chance,
  }));
}

function normalised(weights) {
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => (sum ? weight / sum : 0));
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
