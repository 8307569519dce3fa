"use strict";
// Numbers and names as a person reads them, how wide they are, and round ends and ticks for an axis.
// The rule of the file: it draws nothing.
const words = (() => {
  const pen = document.createElement("canvas").getContext("2d");
  const measured = new Map();
  const length = (text) => {
    if (!measured.has(text)) {
      pen.font = '12px ui-sans-serif, system-ui, "Inter", "Segoe UI", Roboto, sans-serif';
      measured.set(text, pen.measureText(text).width);
    }
    return measured.get(text);
  };
  const longest = (texts) => d3.max(texts, length) ?? 0;
  // Text in so many pixels, with an ellipsis where it is cut.
  const cut = (text, room) => {
    if (length(text) <= room) return text;
    let letters = [...text];
    while (letters.length && length(`${letters.join("")}…`) > room) letters.pop();
    return letters.length ? `${letters.join("")}…` : "";
  };

  // A value as a person reads it: three digits, whole numbers whole, shares as percents.
  const shown = (value, percent) => {
    if (value === null || value === undefined) return "–";
    if (percent) return `${d3.format(".3~r")(100 * value)}\u00a0%`;
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size < 1e-3 || size >= 1e6) return d3.format(".2e")(value);
    if (Number.isInteger(value)) return d3.format(",d")(value).replaceAll(",", "\u2009");
    return size < 1000 ? d3.format(".3r")(value) : d3.format(".0f")(value);
  };
  // Round values between the ends, and their texts with the decimals that their step needs.
  const ticks = ([low, high], about, percent) => {
    const places = d3.ticks(low, high, about);
    const step = places.length > 1 ? places[1] - places[0] : high - low || 1;
    const [factor, unit] = percent ? [100, "\u00a0%"] : [1, ""];
    const decimals = Math.min(12, d3.precisionFixed(step * factor * (1 + 1e-9)));
    const large = d3.max(places, Math.abs) >= 1e6 || decimals > 6;
    const format = large ? d3.format(".2~e") : d3.format(`,.${decimals}f`);
    return { places, text: (value) => format(value * factor).replaceAll(",", "\u2009") + unit };
  };
  // From the least to the greatest value, or as the axis says; never of no width.
  const span = (axis, values) => {
    let [low, high] = [axis.low ?? d3.min(values), axis.high ?? d3.max(values)];
    if (high - low <= Math.max(1e-9 * Math.max(Math.abs(low), Math.abs(high)), 1e-200)) {
      const reach = 0.5 * Math.max(1, Math.abs(low));
      [low, high] = [axis.low ?? low - reach, axis.high ?? high + reach];
      if (high <= low) high = low + 1;
    }
    return [low, high];
  };
  const rounded = (axis, values, about) => {
    const [low, high] = d3.nice(...span(axis, values), about);
    return [axis.low ?? low, axis.high ?? high];
  };

  // The same for an axis on which equal distances are equal ratios: the ends are values, not round ones.
  const ratios = (axis, values) => {
    const [low, high] = [axis.low ?? d3.min(values), axis.high ?? d3.max(values)];
    return high > low ? [low, high] : [axis.low ?? low / 2, Math.max(low * 2, high)];
  };
  // Powers of ten between the ends, and where they are few, 2 and 5 times them.
  const decades = ([low, high], percent) => {
    const powers = d3.range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1);
    const within = (factors) => powers.flatMap((power) => factors.map((one) => one * 10 ** power))
      .filter((place) => place >= low * (1 - 1e-9) && place <= high * (1 + 1e-9));
    const tens = within([1]);
    const places = tens.length > 7 ? tens.filter((_, i) => i % Math.ceil(tens.length / 7) === 0)
      : tens.length > 2 ? tens : within([1, 2, 5]);
    return { places: places.length ? places : [low, high], text: (value) => shown(value, percent) };
  };

  // Both ends of a stretch, or the one place that it is; on an axis of whole things, the first and the last of them.
  const reach = ({ whole, x }, { low, high }) => {
    const ends = whole ? [Math.ceil(low), Math.floor(high)] : [low, high];
    const [from, to] = ends.map((end) => shown(end, x.percent));
    return from === to ? from : `${from} to ${to}`;
  };

  return { length, longest, cut, shown, reach, ticks, span, rounded, ratios, decades };
})();
