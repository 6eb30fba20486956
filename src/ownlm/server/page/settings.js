/** How an answer is sampled: the settings, what each does, and the panel in which they are set. */

import { Bars } from "./bars.js";
import { button, h } from "./dom.js";
import { kept } from "./store.js";

/** One row a setting: its name in a request, its neutral value, and how it is typed. */
const ROWS = [
  { name: "temperature", neutral: 1, low: 0, high: 2, step: 0.05 },
  { name: "top_p", neutral: 1, low: 0, high: 1, step: 0.01 },
  { name: "top_k", neutral: 0, low: 0, high: 100, step: 1 },
  { name: "min_p", neutral: 0, low: 0, high: 1, step: 0.01 },
  { name: "repetition_penalty", neutral: 1, low: 0.5, high: 2, step: 0.05 },
  { name: "max_tokens", neutral: null, low: 1, high: 2 ** 31 - 1, step: 1, typed: true },
  { name: "seed", neutral: null, low: 0, high: 2 ** 53 - 1, step: 1, typed: true },
  { name: "stop", neutral: "", text: true },
];
export const CONTINUATION = 256; // tokens, where no length is set
const START = { temperature: 0.8 };

/** The settings of this browser; whoever listens hears of each change. */
export class Settings extends EventTarget {
  constructor() {
    super();
    const stored = kept.get("settings", {});
    this.values = Object.fromEntries(ROWS.map((row) => [row.name, valid(row, stored[row.name]) ?? startOf(row)]));
  }

  set(name, value) {
    this.values[name] = value;
    kept.set("settings", this.values);
    this.dispatchEvent(new Event("change"));
  }

  /** Back to what they were at first. */
  reset() {
    for (const row of ROWS) this.values[row.name] = startOf(row);
    kept.set("settings", this.values);
    this.dispatchEvent(new Event("reset"));
    this.dispatchEvent(new Event("change"));
  }

  /**
   * The fields of a request; neutral ones are left out. The seed is drawn here when none is set, so that the same
   * request can be sent again.
   */
  fields() {
    const stops = this.values.stop.split("\n").filter(Boolean);
    const fields = {};
    for (const { name, neutral } of ROWS) {
      if (name !== "stop" && this.values[name] !== neutral) fields[name] = this.values[name];
    }
    if (stops.length) fields.stop = stops;
    fields.seed ??= crypto.getRandomValues(new Uint32Array(1))[0];
    return fields;
  }
}

/** The panel: a control and an explanation for each setting, above them the bars of the next token. */
export function settingsPanel(settings, source) {
  const bars = new Bars(settings, source);
  const rows = ROWS.map((row) => control(row, settings));
  const body = h("div", { class: "settings-body" }, bars.element, rows, button("settingsReset", () => settings.reset()));
  return { element: body, bars };
}

function control(row, settings) {
  const id = `setting-${row.name}`;
  const about = h("p", { class: "about", id: `${id}-about`, t: [`about_${row.name}`, { count: CONTINUATION }] });
  const inputs = row.text ? [stopArea(row, id, settings)] : numberInputs(row, id, settings);
  settings.addEventListener("reset", () => inputs.forEach((input) => (input.value = shown(settings.values[row.name]))));
  return h("div", { class: "setting" }, h("label", { htmlFor: id, t: `setting_${row.name}` }), h("div", { class: "pair" }, inputs), about);
}

function stopArea(row, id, settings) {
  const change = (event) => settings.set(row.name, event.target.value);
  return h("textarea", { id, rows: 2, value: settings.values[row.name], "aria-describedby": `${id}-about`, on: { input: change } });
}

function numberInputs(row, id, settings) {
  const bounds = { min: row.low, max: row.high, step: row.step };
  const value = shown(settings.values[row.name]);
  const typed = h("input", { type: "number", id, ...bounds, value, "aria-describedby": `${id}-about`, inputMode: "decimal" });
  const slider = row.typed ? null : h("input", { type: "range", ...bounds, value, tLabel: `setting_${row.name}` });
  const take = (event) => {
    const read = event.target.value === "" ? row.neutral : valid(row, Number(event.target.value));
    typed.setAttribute("aria-invalid", String(read === undefined));
    if (read === undefined) return;
    settings.set(row.name, read);
    for (const other of [typed, slider]) if (other && other !== event.target) other.value = shown(read);
  };
  typed.addEventListener("input", take);
  slider?.addEventListener("input", take);
  return slider ? [slider, typed] : [typed];
}

const shown = (value) => (value === null ? "" : String(value));

const startOf = (row) => START[row.name] ?? row.neutral;

/** The value when it is possible, else undefined. */
function valid(row, value) {
  if (row.text) return typeof value === "string" ? value : undefined;
  if (value === null && row.neutral === null) return null;
  const isPossible = Number.isFinite(value) && value >= row.low && value <= row.high && (row.step < 1 || Number.isInteger(value));
  return isPossible ? value : undefined;
}
