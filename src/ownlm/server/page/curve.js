/** A curve of losses, drawn by hand. */

import { svg } from "./dom.js";
import { t } from "./i18n.js";

const WIDTH = 640;
const HEIGHT = 260;
const EDGE = { left: 48, right: 12, top: 12, bottom: 28 };
const WINDOW = 0.02; // of all steps: what the smooth line averages over on both sides

/**
 * @param {Array<[number, number]>} steps (step, loss) in order
 * @param {Array<[number, number]>} validations
 * @param {number|null} last the step at which training ends
 * @returns {SVGElement}
 */
export function curve(steps, validations, last) {
  const all = [...steps, ...validations];
  const box = bounds(all, last);
  const x = (step) => EDGE.left + ((step - box.left) / (box.right - box.left)) * (WIDTH - EDGE.left - EDGE.right);
  const y = (loss) => EDGE.top + ((box.top - loss) / (box.top - box.bottom)) * (HEIGHT - EDGE.top - EDGE.bottom);
  const line = (points) => points.map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
  const drawn = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "curve", "aria-label": spoken(steps, validations) });
  for (const value of ticks(box.bottom, box.top)) {
    drawn.append(svg("line", { x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(value), y2: y(value), class: "grid" }));
    drawn.append(label(EDGE.left - 8, y(value) + 4, String(value), "end"));
  }
  for (const value of ticks(box.left, box.right)) drawn.append(label(x(value), HEIGHT - 8, value.toLocaleString(), "middle"));
  drawn.append(svg("polyline", { points: line(steps), class: "raw" }), svg("polyline", { points: line(smoothed(steps)), class: "smooth" }));
  if (validations.length) drawn.append(svg("polyline", { points: line(validations), class: "validation" }));
  for (const [step, loss] of validations) drawn.append(svg("circle", { cx: x(step), cy: y(loss), r: 3, class: "validation" }));
  return drawn;
}

function bounds(points, last) {
  const right = Math.max(1, last ?? 0, ...points.map(([step]) => step));
  const losses = points.map(([, loss]) => loss).sort((one, other) => one - other);
  const low = losses[0] ?? 0;
  const high = losses.at(-1) ?? 1;
  const pad = (high - low || 1) * 0.06;
  return { left: 0, right, bottom: Math.max(0, low - pad), top: high + pad };
}

/** The mean of neighbours, so that the trend is seen. */
function smoothed(points) {
  const reach = Math.floor(points.length * WINDOW);
  if (reach < 1) return points;
  const sums = [0];
  for (const [, loss] of points) sums.push(sums.at(-1) + loss);
  return points.map(([step], place) => {
    const near = Math.min(reach, place, points.length - 1 - place);
    return [step, (sums[place + near + 1] - sums[place - near]) / (2 * near + 1)];
  });
}

/** Round numbers between two ends, four or five of them. */
function ticks(low, high) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) found.push(Number((n * step).toPrecision(6)));
  return found;
}

function label(x, y, text, anchor) {
  const made = svg("text", { x, y, "text-anchor": anchor });
  made.append(text);
  return made;
}

function spoken(steps, validations) {
  if (!steps.length) return t("curveEmpty");
  const [step, loss] = steps.at(-1);
  const words = t("curveAt", { step, loss: loss.toFixed(3) });
  return validations.length ? `${words} ${t("curveValidation", { loss: validations.at(-1)[1].toFixed(3) })}` : words;
}
