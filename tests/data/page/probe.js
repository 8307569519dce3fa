"use strict";
// Looks at every figure of a page, presses keys, narrows it, puts it on paper; leaves what it found as JSON.
const rest = () => new Promise((done) => setTimeout(done, 40));
const all = (root, what) => [...root.querySelectorAll(what)];
const widest = (picture) => Math.max(...all(picture, "svg").map((svg) => svg.viewBox.baseVal.width));
const overflow = () => [document.documentElement, document.querySelector("main")]
  .some((one) => one.scrollWidth > one.clientWidth);
const outside = (figure) => all(figure, "svg text").filter((text) => {
  if (text.closest(".scroll") || !text.textContent) return false;
  const [box, frame] = [text.getBoundingClientRect(), figure.getBoundingClientRect()];
  return box.left < frame.left || box.right > frame.right || box.bottom > frame.bottom;
}).map((text) => text.textContent);
const MARKS = ["line", "area", "rule", "rect", "dot", "cell", "bar"];
const seen = (one) => one.getBoundingClientRect().width + one.getBoundingClientRect().height > 0;
const count = (picture) => Object.fromEntries(MARKS.map((name) => (
  [name, all(picture, `g[aria-label=${name}] > *`).filter(seen).length])));
const inks = (figure) => [...new Set(all(figure, "svg text, .legend, .foot, summary").filter((one) => one.textContent)
  .map((one) => getComputedStyle(one)[one.tagName === "text" ? "fill" : "color"]))];
const unlevel = (picture) => all(picture, "svg").filter((svg) => {
  const box = svg.getBoundingClientRect();
  const moved = Math.abs(box.top - picture.getBoundingClientRect().top);
  return moved > 1 || Math.abs(box.height - svg.viewBox.baseVal.height) > 1;
}).length;
const look = async (figure) => {
  const picture = figure.querySelector(".picture");
  const found = {
    drawn: count(picture), outside: outside(figure), inks: inks(figure), unlevel: unlevel(picture),
    ground: getComputedStyle(figure).backgroundColor,
    holes: /NaN|Infinity|undefined/.test(picture.innerHTML), tabs: picture.tabIndex,
    written: all(picture, ".scroll g[aria-label=text] text").length,
    tints: [...new Set(all(picture, "g[aria-label=cell] > rect").map((one) =>
      `${getComputedStyle(one).fill} ${one.getAttribute("fill-opacity") ?? 1}`))],
    said: [], beyond: [],
  };
  for (const key of ["ArrowRight", "ArrowRight", "ArrowDown", "End"]) {
    picture.dispatchEvent(new KeyboardEvent("keydown", { key }));
    await rest();
    const tip = picture.querySelector("g[aria-label=tip]");
    const [box, page] = [tip.getBoundingClientRect(), document.documentElement.clientWidth];
    if (box.left < 0 || box.right > page || !box.width) found.beyond.push([key, box.left, box.right]);
    found.said.push(figure.querySelector(".live").textContent);
  }
  picture.dispatchEvent(new Event("blur"));
  return found;
};
(async () => {
  const figures = all(document, "figure").filter((figure) => !figure.hidden); // a choice shows one of several
  const pictures = figures.map((figure) => figure.querySelector(".picture"));
  const found = { figures: [], overflow: overflow(), page: getComputedStyle(document.body).backgroundColor };
  for (const figure of figures) found.figures.push(await look(figure));
  found.overflowWithTips = overflow();
  found.choices = all(document, ".choice").map((choice) => {
    const list = choice.querySelector("select");
    const turn = (place) => {
      list.selectedIndex = place;
      list.dispatchEvent(new Event("change"));
      const open = all(choice, "figure").filter((figure) => !figure.hidden);
      return open.map((figure) => [figure.querySelector("h3").textContent, count(figure).cell]);
    };
    return { listed: list.options.length, listSeen: seen(list), second: turn(1), first: turn(0) };
  });
  found.buttons = all(document, "button").filter((one) => one.hidden).length;
  const before = pictures.map(widest);
  document.querySelector("main").style.width = "330px";
  resized(pictures);
  await rest();
  found.narrow = {
    overflow: overflow(), outside: figures.flatMap(outside), changed: pictures.map((one, i) => widest(one) < before[i]),
  };
  dispatchEvent(new Event("beforeprint"));
  found.paper = {
    widths: pictures.map((one) => all(one, "svg").reduce((sum, svg) => sum + svg.viewBox.baseVal.width, 0)),
    open: all(document, "details:not(.long)").every((one) => one.open),
  };
  dispatchEvent(new Event("afterprint"));
  resized(pictures);
  await rest();
  found.after = pictures.map(widest);
  found.loaded = performance.getEntriesByType("resource").length;
  found.hacked = "hacked" in window;
  found.complaints = complaints;
  document.body.innerHTML = "<pre id=probe></pre>";
  document.getElementById("probe").textContent = JSON.stringify(found);
})();
