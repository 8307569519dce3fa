"use strict";
// What a page does: draws its figures at the width there is and for paper, says values at the arrow keys, copies data.
(() => {
  const PAPER = 650; // CSS pixels between the margins of a sheet
  const make = (tag, name, text = "") => {
    const element = document.createElement(tag);
    element.className = name;
    element.textContent = text;
    return element;
  };

  class Figure {
    constructor(element) {
      this.spec = JSON.parse(element.querySelector('script[type="application/json"]').textContent);
      this.legend = element.querySelector(".legend");
      this.picture = element.querySelector(".picture");
      this.picture.tabIndex = 0;
      this.picture.setAttribute("role", "application");
      this.picture.setAttribute("aria-roledescription", "chart; arrow keys move from value to value");
      this.live = make("p", "live");
      this.live.setAttribute("aria-live", "polite");
      this.picture.after(this.live);
      this.width = 0;
      this.at = -1;
      this.picture.addEventListener("keydown", (event) => this.key(event));
      this.picture.addEventListener("blur", () => this.leave());
    }

    draw(paper = false) {
      const width = paper ? PAPER : Math.floor(this.picture.clientWidth);
      if (!width || (width === this.width && paper === this.paper)) return;
      [this.width, this.paper, this.at] = [width, paper, -1];
      this.drawn = charts.draw(this.spec, width, paper);
      const parts = [...this.drawn.parts];
      if (this.drawn.scrolls) {
        const body = make("div", "scroll");
        body.append(parts.pop());
        parts.push(body);
      }
      this.picture.replaceChildren(...parts);
      this.drawn.scrolls?.(parts.at(-1));
      this.legend.replaceChildren(...this.drawn.legend.map(({ name, picture }) => {
        const entry = make("span", "");
        entry.append(picture, name);
        return entry;
      }));
    }

    // Arrow keys: along the values of one series, between series; in a map, from cell to cell.
    key(event) {
      const { stops, grid } = this.drawn;
      const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
      if (event.key === "Escape") this.leave();
      if (!step && event.key !== "Home" && event.key !== "End") return;
      event.preventDefault();
      if (!step || this.at < 0) this.at = event.key === "End" ? stops.length - 1 : 0;
      else if (grid) {
        const [x, y] = [stops[this.at].x + step[0], stops[this.at].y + step[1]];
        if (x >= 0 && x < grid && y >= 0 && y * grid + x < stops.length) this.at = y * grid + x;
      } else if (step[0]) this.at = Math.min(Math.max(this.at + step[0], 0), stops.length - 1);
      else this.at = this.other(step[1]);
      this.point(stops[this.at]);
    }

    // The value of the next series that is nearest in x; without series, the one before or after.
    other(by) {
      const { stops } = this.drawn;
      const { x, series } = stops[this.at];
      const there = d3.range(stops.length).filter((i) => stops[i].series === series + by);
      if (series === undefined) return Math.min(Math.max(this.at + by, 0), stops.length - 1);
      return there.length ? d3.least(there, (i) => Math.abs(stops[i].x - x)) : this.at;
    }

    // Point at a stop, as a mouse would.
    point(stop) {
      const { svg } = this.drawn;
      const [x, y] = ["x", "y"].map((name) => {
        const scale = svg.scale(name);
        return scale.apply(stop[name]) + (scale.bandwidth ?? 0) / 2;
      });
      const box = this.picture.querySelector(".scroll");
      if (box) box.scrollLeft = Math.min(Math.max(box.scrollLeft, x + 60 - box.clientWidth), x - 60);
      const frame = svg.getBoundingClientRect();
      this.send("pointermove", frame.left + x, frame.top + y);
      this.live.textContent = stop.text;
    }

    leave() {
      this.at = -1;
      this.live.textContent = "";
      this.send("pointerleave", 0, 0);
    }

    send(type, clientX, clientY) {
      this.drawn.svg.dispatchEvent(new PointerEvent(type, { clientX, clientY, pointerType: "mouse" }));
    }
  }

  const figures = [...document.querySelectorAll("figure")].map((element) => new Figure(element));
  const owner = new Map(figures.map((figure) => [figure.picture, figure]));
  const watch = new ResizeObserver((entries) => { for (const one of entries) owner.get(one.target).draw(); });
  for (const figure of figures) {
    figure.draw();
    watch.observe(figure.picture);
  }

  // Of a choice one figure is seen; it is drawn when it has a width.
  for (const choice of document.querySelectorAll(".choice")) {
    const [label, list] = [choice.querySelector("label"), choice.querySelector("select")];
    const several = figures.filter((figure) => choice.contains(figure.picture));
    const show = () => several.forEach((figure, place) => {
      figure.picture.closest("figure").hidden = place !== list.selectedIndex;
      figure.draw();
    });
    label.hidden = several.length < 2;
    list.addEventListener("change", show);
    show();
  }

  addEventListener("beforeprint", () => {
    watch.disconnect();
    for (const figure of figures) figure.draw(true);
    for (const twin of document.querySelectorAll("details:not(.long)")) twin.open = true;
  });
  addEventListener("afterprint", () => {
    for (const figure of figures) {
      figure.draw();
      watch.observe(figure.picture);
    }
  });

  const copy = async (text, button) => {
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "The browser does not allow copying here";
    }
    setTimeout(() => { button.textContent = before; }, 2000);
  };
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const source = document.getElementById(button.dataset.copy);
      const rows = source.tagName === "TABLE"
        ? [...source.rows].map((row) => [...row.cells].map((cell) => cell.dataset.v ?? cell.textContent).join("\t"))
        : [source.textContent];
      copy(rows.join("\n"), button);
    });
  }
})();
