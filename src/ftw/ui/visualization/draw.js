"use strict";
// Draws one picture with Observable Plot. draw(spec, width, paper) gives its legend, the <svg>s, and the stops: each
// value that a pointer or the arrow keys can reach, with the words that are said of it.
// The rule of the file: no colour is known here. var(--c1) and its like follow the page's theme and the paper.
const charts = (() => {
  const { length, longest, cut, shown, reach, ticks, span, rounded, ratios, decades } = words;
  const INK = "var(--ink)", SURFACE = "var(--surface)", LINE = "var(--line)", QUIET = "var(--quiet)";
  const FOCUS = "var(--focus)";
  const DASHES = [null, "7 3", "2 3", "9 3 2 3", "4 4", "1 4"]; // series differ without colour too
  const SYMBOLS = ["circle", "square", "triangle", "diamond", "star", "cross"];
  const ORDER = ["bars", "line", "points"]; // from the back to the front
  const ROW = 17; // height of one line of labels
  const WRITTEN = 0.42; // most tint behind a number: the ink keeps 4.5:1 on it in both themes
  const FULL = 0.95; // most tint where nothing is written
  const KINDS = [[0.9], [0.3, 0.9], [0.25, 0.55, 0.9], [0.2, 0.42, 0.65, 0.9]]; // strengths of ribbons

  const PINS = [ // sorts of pins differ in form
    { symbol: "circle", r: 4, fill: INK, stroke: SURFACE, strokeWidth: 1.5 },
    { symbol: "square", r: 4.5, fill: SURFACE, stroke: INK, strokeWidth: 1.5 },
    { symbol: "triangle", r: 4, fill: SURFACE, stroke: INK, strokeWidth: 1.5 },
    { symbol: "diamond", r: 4.5, fill: INK, stroke: SURFACE, strokeWidth: 1.5 },
  ];

  const hue = (place) => `var(--c${place + 1})`;
  // What is said where the pointer is, on the side where there is room. `view` gives the ends of what is seen.
  const said = (stops, pointer, view) => {
    const most = Math.min(252, (view()[1] - view()[0]) * 0.6);
    const tip = Plot.tip(stops, pointer({
      x: "x", y: "y", title: "text", maxRadius: 90, fill: SURFACE, stroke: QUIET,
      lineWidth: most / 12, lineHeight: 1.35, textPadding: 9, pointerSize: 7, fontSize: 12,
      render(index, scales, values, box, context, next) {
        if (index.length) {
          const [left, right] = view();
          const x = values.x[index[0]] + (scales.x.bandwidth?.() ?? 0) / 2;
          const y = values.y[index[0]] + (scales.y.bandwidth?.() ?? 0) / 2;
          const half = Math.min(longest(stops[index[0]].text.split("\n")), most) / 2 + 12;
          const side = x - half < left ? "-left" : x + half > right ? "-right" : "";
          const above = y > box.height * 0.45;
          tip.anchor = `${above ? "bottom" : "top"}${side}`;
          tip.dy = (scales.y.bandwidth?.() ?? 0) * (above ? -0.4 : 0.4); // beside what a cell says, not on it
        }
        return next(index, scales, values, box, context);
      },
    }));
    return tip;
  };
  const plot = (options) => {
    const svg = Plot.plot({ axis: null, grid: false, ...options });
    svg.setAttribute("aria-hidden", "true"); // the figure around it says what it shows
    return svg;
  };
  // A picture of a line in the legend, drawn as in the chart.
  const legend = (entries) => entries.map(({ name, marks, width = 24 }) => {
    const picture = plot({
      width, height: 12, margin: 0, x: { domain: [0, 1] }, y: { domain: [0, 1] }, opacity: { type: "identity" }, marks,
    });
    return { name, picture };
  });

  const upright = (rules) => d3.sort(rules.filter((rule) => !rule.across), (rule) => rule.at);
  const ruled = { stroke: INK, strokeWidth: 1.5, strokeDasharray: "4 3" };
  const haloed = { fill: INK, stroke: SURFACE, strokeWidth: 4 };
  // Upright rules, each up to the row above the frame in which its label stands: the lines, and the labels over them.
  const uprights = (rules, domain, width, left, right, top) => {
    const rows = upright(rules).map((rule, row) => {
      const at = left + (rule.at - domain[0]) / (domain[1] - domain[0]) * (width - left - right);
      const text = cut(rule.label, width - 6);
      const dx = Math.max(2, Math.min(at + 5, width - 3 - length(text))) - left;
      return { at: rule.at, text, dx, up: top - 28 - ROW * row };
    });
    return [
      rows.map((row) => Plot.ruleX([row.at], { ...ruled, insetTop: 12 - row.up })),
      rows.map(({ text, dx, up }) => Plot.text([text], {
        frameAnchor: "top-left", dx, dy: 3 - up, text: (one) => one, lineAnchor: "top", ...haloed,
      })),
    ];
  };
  // Where a value stands between the top (0) and the bottom (1) of an axis at the side.
  const depth = (axis, [low, high]) => (value) => {
    const of = axis.log ? Math.log : (one) => one;
    const share = (of(high) - of(value)) / (of(high) - of(low));
    return axis.down ? 1 - share : share;
  };
  // Rules at a height, likewise; a label that would touch the one below it is lifted.
  const level = (rules, place, height) => {
    const across = d3.sort(rules.filter((rule) => !!rule.across), (rule) => -place(rule.at));
    let before = Infinity;
    const labels = across.map((rule) => {
      const at = place(rule.at) * height;
      before = Math.min(at - 9, before - ROW + 2);
      return Plot.text([rule], {
        y: "at", frameAnchor: rule.left ? "left" : "right", textAnchor: rule.left ? "start" : "end",
        dy: before - at, text: "label", ...haloed,
      });
    });
    return [across.map((rule) => Plot.ruleY([rule.at], ruled)), labels];
  };

  const sample = (dot) => Plot.dot([0.5], { x: (at) => at, y: (at) => at, ...dot });
  const series = {
    line(mark, place) {
      const rows = mark.x.map((x, i) => ({ x, y: mark.y[i], low: mark.low[i], high: mark.high[i] }));
      const stroke = { stroke: hue(place), strokeWidth: 2, strokeDasharray: mark.dashed ? "6 4" : DASHES[place] };
      return {
        heights: [...mark.y, ...mark.low, ...mark.high], across: mark.x, rows,
        marks: () => [
          ...(mark.low.length
            ? [Plot.areaY(rows, { x: "x", y1: "low", y2: "high", fill: hue(place), fillOpacity: 0.16 })] : []),
          rows.length > 1
            ? Plot.line(rows, { x: "x", y: "y", ...stroke })
            : Plot.dot(rows, { x: "x", y: "y", r: 3.5, fill: hue(place) }),
        ],
        sample: [Plot.ruleY([0.5], stroke)],
      };
    },
    points(mark, place) {
      const rows = mark.x.map((x, i) => ({ x, y: mark.y[i], low: mark.low[i], high: mark.high[i] }));
      const dot = { symbol: SYMBOLS[place], r: 3.5, fill: hue(place) };
      return {
        heights: [...mark.y, ...mark.low, ...mark.high], across: mark.x, rows,
        marks: () => [
          ...(mark.low.length
            ? [Plot.ruleX(rows, { x: "x", y1: "low", y2: "high", stroke: hue(place), strokeWidth: 1.5 })] : []),
          Plot.dot(rows, { x: "x", y: "y", ...dot }),
        ],
        sample: [sample(dot)],
      };
    },
    // Tints with a stepped outline, so that one histogram shows through another. Empty bins draw nothing.
    bars(mark, place, named) {
      const rows = mark.values.map((y, i) => ({
        x: (mark.edges[i] + mark.edges[i + 1]) / 2, y, from: mark.edges[i], to: mark.edges[i + 1],
      }));
      const outline = [];
      rows.forEach((row, i) => {
        if (!row.y) return;
        if (!rows[i - 1]?.y) outline.push([NaN, NaN], [row.from, 0]);
        outline.push([row.from, row.y], [row.to, row.y]);
        if (!rows[i + 1]?.y) outline.push([row.to, 0]);
      });
      const stroke = { stroke: hue(place), strokeWidth: 1.5, strokeDasharray: DASHES[place] };
      const fill = { fill: hue(place), fillOpacity: 0.22 };
      const apart = { ...stroke, insetLeft: 10, insetRight: 10 };
      return {
        heights: [0, ...mark.values], across: mark.edges, rows: rows.filter((row) => row.y),
        marks: () => [
          Plot.rectY(rows, { x1: "from", x2: "to", y1: 0, y2: "y", ...fill, ...(named ? apart : {}) }),
          ...(named ? [] : [Plot.line(outline, { ...stroke, clip: true })]),
        ],
        sample: [Plot.rect([0], { x1: 0.04, x2: 0.96, y1: 0.1, y2: 0.9, ...fill, ...stroke })],
      };
    },
  };
  const where = (spec, row) => {
    if (spec.names.length) return spec.names[Math.round(row.x)] ?? shown(row.x);
    const axis = spec.x.label;
    if (row.from === undefined) return `${axis} ${shown(row.x, spec.x.percent)}`;
    return `${axis} ${shown(row.from, spec.x.percent)} to ${shown(row.to, spec.x.percent)}`;
  };
  const saying = (spec, mark, row) => {
    const range = row.low === undefined ? ""
      : ` (${shown(row.low, spec.y.percent)} to ${shown(row.high, spec.y.percent)})`;
    return `${mark.name}: ${shown(row.y, spec.y.percent)}${range}\n${where(spec, row)}`;
  };
  // Where the labels of the x axis stand: round values, or names thinned and cut until they do not touch.
  const bottom = (spec, domain, width) => {
    if (!spec.names.length) {
      const { places, text } = ticks(domain, Math.min(8, Math.max(2, width / 75)), spec.x.percent);
      return { places, text };
    }
    const room = width / spec.names.length;
    const every = Math.max(1, Math.ceil((Math.min(longest(spec.names), 72) + 8) / room));
    const places = d3.range(0, spec.names.length, every);
    return { places, text: (at) => cut(spec.names[at], room * every - 6) };
  };

  function chart(spec, width) {
    const drawn = spec.marks.map((mark, place) => series[mark.kind](mark, place, spec.names.length > 0));
    const levels = spec.rules.filter((rule) => rule.across).map((rule) => rule.at);
    const heights = [...drawn.flatMap((one) => one.heights), ...levels];
    const y = spec.y.log ? ratios(spec.y, heights) : rounded(spec.y, heights, 5);
    const side = spec.y.log ? decades(y, spec.y.percent) : ticks(y, 5, spec.y.percent);
    const base = spec.y.log ? y[spec.y.down ? 1 : 0] : Math.min(Math.max(0, y[0]), y[1]);
    const ends = upright(spec.rules).map((rule) => rule.at);
    const across = spec.names.length
      ? [-0.5, spec.names.length - 0.5] : [...drawn.flatMap((one) => one.across), ...ends];
    const x = span(spec.x, across);
    const left = 12 + longest(side.places.map(side.text)), top = 28 + ROW * upright(spec.rules).length;
    const high = width < 500 ? 190 : 230;
    const under = bottom(spec, x, width - left - 14);
    const right = Math.max(14, 3 + length(under.text(under.places.at(-1) ?? 0)) / 2);
    const stops = drawn.flatMap((one, place) => one.rows.map((row) => (
      { x: row.x, y: row.y, series: place, text: saying(spec, spec.marks[place], row) })));
    const free = spec.marks.every((mark) => mark.kind === "points") && !spec.names.length;
    const pointer = free ? Plot.pointer : Plot.pointerX;
    const svg = plot({
      width, height: top + high + 44, marginLeft: left, marginRight: right, marginTop: top, marginBottom: 44,
      x: { domain: x }, y: { type: spec.y.log ? "log" : "linear", domain: y, reverse: spec.y.down },
      marks: [
        Plot.gridY(side.places, { stroke: LINE, strokeOpacity: 1 }),
        Plot.axisY({ ticks: side.places, tickFormat: side.text, tickSize: 0, label: null, tickPadding: 6 }),
        Plot.axisX({ ticks: under.places, tickFormat: under.text, tickSize: 0, label: null, tickPadding: 9 }),
        Plot.ruleY([base], { stroke: QUIET }),
        ...names(spec.x.label, spec.y.label, left, top, right, width),
        ...ORDER.flatMap((kind) => drawn.filter((_, i) => spec.marks[i].kind === kind).flatMap((one) => one.marks())),
        d3.transpose([level(spec.rules, depth(spec.y, y), high), uprights(spec.rules, x, width, left, right, top)]),
        Plot.dot(stops, pointer({ x: "x", y: "y", r: 5, stroke: INK, strokeWidth: 1.5, maxRadius: 90 })),
        said(stops, pointer, () => [0, width]),
      ],
    });
    const entries = drawn.length < 2 ? [] : drawn.map((one, i) => ({ name: spec.marks[i].name, marks: one.sample }));
    return { legend: legend(entries), parts: [svg], svg, stops, grid: null };
  }
  // What the axes measure: above the one, below the other.
  const names = (x, y, left, top, right, width) => [
    Plot.text([cut(y, width - 4)], {
      frameAnchor: "top-left", dx: 2 - left, dy: 4 - top, lineAnchor: "top", text: (one) => one, fill: QUIET,
    }),
    Plot.text([cut(x, width - 4)], {
      frameAnchor: "bottom-right", dx: right - 2, dy: 40, lineAnchor: "bottom", text: (one) => one, fill: QUIET,
    }),
  ];

  const tint = (spec, value, most) => {
    const [low, high] = spec.span;
    const share = Math.min(Math.max((value - low) / (high - low), 0), 1);
    if (spec.middle === null) return { over: false, strength: most * share };
    return { over: share > 0.5, strength: most * Math.abs(2 * share - 1) };
  };
  // The ends of the tint, and what it measures.
  const ramp = (spec) => {
    const [low, high] = spec.span;
    const boxes = d3.range(11).map((i) => ({ i, ...tint(spec, low + (high - low) * i / 10, FULL) }));
    const ends = spec.middle === null ? [low, high] : [low, spec.middle, high];
    const text = ends.map((end) => shown(end, spec.percent)).join(" to ");
    const marks = boxes.map((box) => Plot.rect([box], {
      x1: box.i / 11, x2: (box.i + 1) / 11, y1: 0, y2: 1, fill: hue(box.over ? 1 : 0), fillOpacity: box.strength,
    }));
    return legend([{ name: `${spec.unit}, ${text}`, width: 110, marks: [...marks, Plot.frame({ stroke: LINE })] }]);
  };
  // How wide and high cells are, and what fits into them.
  const layout = (spec, width, paper) => {
    const [n, m] = [spec.rows.length, spec.columns.length];
    const labelled = spec.labels.length > 0;
    const texts = labelled ? spec.labels : spec.values.map((row) => row.map((value) => shown(value, spec.percent)));
    const left = Math.ceil(Math.min(width * 0.36, Math.max(longest(spec.rows), length(spec.y)) + 12));
    const wanted = Math.min(longest(texts.flat()) + 8, 84);
    const least = labelled && !paper ? Math.min(Math.max(wanted, 30), 58) : 3;
    const cell = Math.max((width - left) / m, paper ? 0 : least);
    const height = Math.min(26, Math.max(labelled ? 19 : 8, 420 / n));
    const written = (labelled ? cell >= Math.min(wanted, 30) : cell >= wanted) && height >= 15;
    return { left, cell, height, written, texts, inner: cell * m, scrolled: cell * m > width - left + 1 };
  };

  // Names below the columns, thinned and cut until they do not touch, the outer ones moved in.
  const columns = (spec, { cell, inner }) => {
    const widest = Math.min(longest(spec.columns), Math.max(cell - 5, 44));
    const every = Math.max(1, Math.ceil((widest + 5) / cell));
    return d3.range(0, spec.columns.length, every).map((j) => {
      const outer = j === 0 || j + every >= spec.columns.length;
      const text = cut(spec.columns[j], Math.max(outer ? cell * (every + 1) / 2 - 3 : cell * every - 6, 8));
      const [middle, half] = [(j + 0.5) * cell, length(text) / 2];
      const dx = Math.max(half - middle, Math.min(0, inner - half - middle));
      return Plot.text([j], { x: [j], frameAnchor: "bottom", dx, dy: 7, lineAnchor: "top", fill: QUIET, text: [text] });
    });
  };

  function heat(spec, width, paper) {
    const at = layout(spec, width, paper);
    const [n, m] = [spec.rows.length, spec.columns.length];
    const most = at.written ? WRITTEN : FULL;
    const cells = spec.values.flatMap((row, y) => row.map((value, x) => ({
      x, y, value, ...tint(spec, value ?? 0, most),
      label: at.written ? cut(at.texts[y][x].trim(), at.cell - 5) : "",
      text: [
        `${spec.rows[y]}, ${spec.columns[x]}`,
        ...(spec.labels.length ? [`${spec.labelled}: ${spec.labels[y][x]}`] : []),
        `${spec.unit}: ${shown(value, spec.percent)}`,
        ...spec.more.map((layer) => `${layer.unit}: ${shown(layer.values[y][x])}`),
      ].join("\n"),
    })));
    const filled = cells.filter((cell) => cell.value !== null);
    const gap = at.cell > 8 && at.height > 8 ? 0.5 : 0;
    const under = at.scrolled ? 26 : 42;
    const size = { height: 24 + at.height * n + under, marginTop: 24, marginBottom: under, marginRight: 0 };
    const rows = { type: "band", domain: d3.range(n), padding: 0, round: false };
    const thin = Math.ceil(13 / at.height);
    const parts = [plot({
      width: at.left, ...size, marginLeft: at.left, y: rows, marks: [
        Plot.text(d3.range(0, n, thin), {
          y: (i) => i, frameAnchor: "left", dx: -6, textAnchor: "end", fill: QUIET,
          text: (i) => cut(spec.rows[i], at.left - 8),
        }),
        Plot.text([spec.y], {
          frameAnchor: "top-left", dx: 2 - at.left, dy: -20, lineAnchor: "top", text: (one) => cut(one, at.left - 4),
          fill: QUIET,
        }),
        ...(at.scrolled ? [Plot.text([spec.x], {
          frameAnchor: "bottom-right", dx: -6, dy: 7, lineAnchor: "top", fill: QUIET,
          text: (one) => cut(one, at.left - 8),
        })] : []),
      ],
    })];
    let box = null;
    const view = () => (at.scrolled
      ? [box?.scrollLeft ?? 0, (box?.scrollLeft ?? 0) + width - at.left] : [-at.left, at.inner]);
    const pointer = (options) => Plot.pointer({ ...options, maxRadius: Math.max(40, at.cell) });
    const fill = (over) => Plot.cell(filled.filter((cell) => cell.over === over), {
      x: "x", y: "y", fill: hue(over ? 1 : 0), fillOpacity: "strength", inset: gap,
      shapeRendering: gap ? null : "crispEdges",
    });
    const svg = plot({
      width: at.inner, ...size, marginLeft: 0, y: rows, opacity: { type: "identity" },
      x: { type: "band", domain: d3.range(m), padding: 0, round: false },
      marks: [
        fill(false), fill(true),
        ...(at.written ? [Plot.text(filled, { x: "x", y: "y", text: "label", fill: INK })] : []),
        ...columns(spec, at),
        ...(at.scrolled ? [] : [Plot.text([spec.x], {
          frameAnchor: "bottom-right", dx: -2, dy: 37, lineAnchor: "bottom", text: (one) => one, fill: QUIET,
        })]),
        Plot.cell(cells, pointer({ x: "x", y: "y", stroke: FOCUS, strokeWidth: 2, inset: gap })),
        said(cells, pointer, view),
      ],
    });
    parts.push(svg);
    const scrolls = at.scrolled ? (element) => {
      box = element;
      if (spec.from_end) box.scrollLeft = box.scrollWidth;
    } : null;
    return { legend: ramp(spec), parts, svg, stops: cells, grid: m, scrolls };
  }

  // Pins of one place as one stop, which says all of them; `half` is that of the frame around it.
  const pinned = (spec, half) => d3.groups(spec.pins, (pin) => `${pin.row} ${pin.at}`).map(([, pins]) => {
    const [row, at] = [pins[0].row, pins[0].at];
    const names = pins.map((pin) => spec.sorts[pin.sort]).join(", ");
    return {
      x: at, y: row, row, low: at - half, high: at + half, sorts: pins.map((pin) => pin.sort),
      text: `${spec.rows[row]}: ${names}\n${spec.x.label} ${shown(at, spec.x.percent)}`,
    };
  });

  function ribbons(spec, width) {
    const strengths = KINDS[spec.kinds.length - 1];
    const n = spec.rows.length;
    const left = Math.ceil(Math.min(width * 0.36, Math.max(longest(spec.rows), 20) + 12));
    const top = 28 + ROW * upright(spec.rules).length, high = n * Math.min(26, Math.max(14, 420 / n));
    const ends = [...spec.stretches.flatMap((one) => [one.low, one.high]), ...spec.rules.map((rule) => rule.at)];
    const x = span(spec.x, [...ends, ...spec.pins.map((pin) => pin.at)]);
    const right = 16;
    const under = ticks(x, Math.min(8, (width - left) / 75), spec.x.percent);
    const bars = spec.stretches.map((one) => ({
      ...one, x: (one.low + one.high) / 2, y: one.row, strength: strengths[one.kind],
      text: `${spec.rows[one.row]}: ${spec.kinds[one.kind]}\n${spec.x.label} ${reach(spec, one)}`,
    }));
    const pins = pinned(spec, (x[1] - x[0]) * 8 / (width - left - right));
    const stops = d3.sort([...bars, ...pins], (one) => one.y, (one) => one.x);
    const pointer = (options) => Plot.pointer({ ...options, maxRadius: 400 });
    const bar = { x1: "low", x2: "high", y: "row", insetTop: 2, insetBottom: 2, insetRight: 1 };
    const svg = plot({
      width, height: top + high + 44, marginLeft: left, marginRight: right, marginTop: top, marginBottom: 44,
      x: { domain: x }, y: { type: "band", domain: d3.range(n), padding: 0, round: false },
      opacity: { type: "identity" },
      marks: [
        Plot.gridX(under.places, { stroke: LINE, strokeOpacity: 1 }),
        Plot.axisX({ ticks: under.places, tickFormat: under.text, tickSize: 0, label: null, tickPadding: 9 }),
        Plot.text(d3.range(n), {
          y: (i) => i, frameAnchor: "left", dx: -6, textAnchor: "end", fill: QUIET,
          text: (i) => cut(spec.rows[i], left - 8),
        }),
        ...names(spec.x.label, spec.y, left, top, right, width),
        ...spec.kinds.map((_, kind) => Plot.barX(bars.filter((one) => one.kind === kind), {
          ...bar, ...(spec.nested && kind ? { insetTop: 7, insetBottom: 7 } : {}),
          fill: hue(0), fillOpacity: "strength",
        })),
        uprights(spec.rules, x, width, left, right, top),
        ...pins.flatMap((pin) => pin.sorts.map((sort, i) => Plot.dot([pin], {
          x: "x", y: "y", dx: 9 * (i - (pin.sorts.length - 1) / 2), ...PINS[sort],
        }))),
        Plot.barX(stops, pointer({ ...bar, px: "x", py: "y", stroke: FOCUS, strokeWidth: 2 })),
        said(stops, pointer, () => [0, width]),
      ],
    });
    const drawn = new Set(spec.stretches.map((one) => one.kind));
    const entries = [
      ...spec.kinds.map((name, i) => ({
        name, marks: [Plot.rect([0], { x1: 0, x2: 1, y1: 0.1, y2: 0.9, fill: hue(0), fillOpacity: strengths[i] })],
      })).filter((_, i) => drawn.has(i)),
      ...spec.sorts.map((name, i) => ({ name, width: 14, marks: [sample({ ...PINS[i] })] })),
    ];
    return { legend: legend(entries), parts: [svg], svg, stops, grid: null };
  }

  return { draw: (spec, width, paper) => ({ chart, heat, ribbons })[spec.kind](spec, width, paper) };
})();
