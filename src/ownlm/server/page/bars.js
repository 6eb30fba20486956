/** The next token's chances as bars: what the settings do, on what the model really gives at this place. */

import { h, say } from "./dom.js";
import { sayError } from "./errors.js";
import { t } from "./i18n.js";
import { chances, percent, visible } from "./sampling.js";

const PAUSE = 400; // milliseconds without typing, after which the model is asked
const SHOWN = 10;

/** A list of chances. @param {import("./sampling.js").Chance[]} list @param {string} [chosen] the token that was drawn */
export function barList(list, chosen) {
  const most = Math.max(...list.map((one) => Math.max(one.chance, one.probability)), 1e-9);
  return h("ol", { class: "bars" }, list.map((one) => bar(one, most, one.token === chosen)));
}

function bar({ token, probability, chance }, most, isChosen) {
  const before = h("span", { class: "bar before" });
  const now = h("span", { class: "bar now" });
  before.style.width = `${(100 * probability) / most}%`;
  now.style.width = `${(100 * chance) / most}%`;
  return h(
    "li",
    { class: `${chance === 0 ? "never" : ""} ${isChosen ? "chosen" : ""}` },
    h("code", {}, visible(token)),
    h("span", { class: "track", "aria-hidden": "true" }, before, now),
    h("span", { class: "share", title: t("barShares", { probability: percent(probability), chance: percent(chance) }) }, percent(chance)),
  );
}

/** What is left for all tokens that have no bar. */
export function others(list) {
  const chance = Math.max(0, 1 - list.reduce((sum, one) => sum + one.chance, 0));
  return h("p", { class: "about others", t: ["barsOthers", { share: percent(chance) }] });
}

/** The bars above the settings. */
export class Bars {
  /**
   * @param {import("./settings.js").Settings} settings
   * @param {(signal: AbortSignal) => Promise<import("./sampling.js").Top[]|null>} source asks the model; null: there is
   *   nothing to continue
   */
  constructor(settings, source) {
    this.settings = settings;
    this.source = source;
    this.tops = null;
    this.isSeen = false;
    this.words = h("p", { class: "about", t: "barsWaiting" });
    this.list = h("div");
    this.element = h("section", { class: "next-token", tLabel: "barsTitle" }, h("h3", { t: "barsTitle" }), this.words, this.list);
    settings.addEventListener("change", () => this.draw());
  }

  /** Whether somebody looks at them: only then the model is asked. */
  seen(isSeen) {
    this.isSeen = isSeen;
    this.changed();
  }

  /** The text before the token has changed. */
  changed() {
    clearTimeout(this.timer);
    this.asking?.abort();
    if (this.isSeen) this.timer = setTimeout(() => this.fetch(), PAUSE);
  }

  async fetch() {
    this.asking = new AbortController();
    try {
      this.tops = await this.source(this.asking.signal);
      this.draw();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.list.replaceChildren();
      sayError(this.words, error);
    }
  }

  draw() {
    this.list.replaceChildren();
    if (!this.tops?.length) return say(this.words, "barsWaiting");
    const held = this.tops.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0);
    say(this.words, "barsAbout", { count: this.tops.length, share: percent(Math.min(held, 1)) });
    const list = chances(this.tops, this.settings.values).slice(0, SHOWN);
    this.list.append(barList(list), others(list));
  }
}
