"use strict";
// Draws the server's figures. They are plotly figures, so that plotly can save any of them as a PNG; here their cells,
// bars and graphs become plain elements, in a few milliseconds where plotly takes a hundred.
(() => {
  const SVG = "http://www.w3.org/2000/svg", COLOR_BAR_MARGIN = 66, MARGIN = 8, MAX_TIP_WIDTH = 360, MAX_LABELS = 60;
  const shown = new WeakMap(); // element -> { figure, kind, key, cells } of its drawing
  let loading = null;

  // Parts ----------------------------------------------------------------------------------------------------------

  function part(name, text, style) {
    const element = document.createElement("div");
    element.className = name;
    if (text) element.textContent = plain(text);
    if (style) Object.assign(element.style, style);
    return element;
  }

  function shape(name, attributes) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  }

  // Texts arrive escaped, as plotly expects them; they are only ever set as text.
  function plain(text) {
    return String(text).replace(/<br>/g, "\n").replace(/<\/?b>/g, "")
      .replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  }

  const share = (value) => `${(100 * value).toFixed(3)}%`;
  const short = (value) => String(Number(value.toPrecision(2))).replace("-", "\u2212");
  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  // A function from a value to [colour, whether the text on it is dark].
  function colorRamp({ colorscale, zmin, zmax }) {
    const stops = colorscale.map(([at, color]) => [at, rgb(color)]);
    return (value) => {
      const at = Math.min(1, Math.max(0, (value - zmin) / (zmax - zmin || 1)));
      const next = Math.max(1, stops.findIndex(([end]) => end >= at));
      const [[low, from], [high, to]] = [stops[next - 1], stops[next]];
      const mixed = from.map((start, index) =>
        Math.round(start + ((to[index] - start) * (at - low)) / (high - low || 1)));
      const [red, green, blue] = mixed.map((channel) => (channel / 255) ** 2.2); // relative luminance of WCAG
      return [`rgb(${mixed})`, 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18];
    };
  }

  // About four round numbers in a range.
  function roundTicks(low, high) {
    const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
    const ticks = [];
    for (let at = Math.ceil(low / step); at * step <= high; at++) ticks.push(at * step);
    return ticks;
  }

  // The area inside the margins; adds the titles of both axes around it.
  function frame(host, layout, right) {
    const { l, t, b } = layout.margin, { xaxis, yaxis } = layout;
    const area = part("area", "", { left: `${l}px`, right: `${right}px`, top: `${t}px`, bottom: `${b}px` });
    host.replaceChildren(area);
    for (const [axis, name] of [[xaxis, "x"], [yaxis, "y"]]) {
      if (axis.title && axis.title.text) {
        const inside = name === "x" ? { left: `${l}px`, right: `${right}px` } : { top: `${t}px`, bottom: `${b}px` };
        host.append(part(`title ${name}`, axis.title.text, inside));
      }
    }
    return area;
  }

  // Labels of cells or bars: `along` maps an index to its place, 0 to 1.
  function labels(area, axis, name, along) {
    if (!axis.ticktext) return;
    for (const [index, text] of axis.ticktext.entries()) {
      if (text === "") continue;
      const turned = axis.tickangle ? " turned" : "", side = name === "x" ? "left" : "top";
      area.append(part(`label ${name}${turned}`, text, { [side]: share(along(index)) }));
    }
  }

  const middle = (count, reversed) => (at) => (reversed ? count - at - 0.5 : at + 0.5) / count;

  // Cells ----------------------------------------------------------------------------------------------------------

  const lattice = ({ layout, data: [{ z }] }) => (
    { rows: z.length, columns: z[0].length, upward: layout.yaxis.autorange !== "reversed" });

  function cells(host, figure, before) {
    const { layout, data: [trace] } = figure, { rows, columns } = lattice(figure);
    const key = JSON.stringify([rows, columns, layout.margin, layout.xaxis, layout.yaxis, trace.colorscale, trace.zmin,
      trace.zmax, trace.colorbar]);
    const same = before && before.key === key;
    const elements = same ? before.cells : grid(host, figure);
    const color = colorRamp(trace);
    for (const cell of elements) {
      const [row, column] = cell.at, value = trace.z[row][column];
      const [ground, light] = value === null ? ["transparent", true] : color(value);
      cell.style.background = ground;
      if (trace.text) {
        cell.textContent = plain(trace.text[row][column]);
        cell.style.color = value === null ? "" : light ? "#0b1118" : "#fff";
      }
    }
    return { key, cells: elements };
  }

  function grid(host, figure) {
    const { layout, data: [trace] } = figure, { rows, columns, upward } = lattice(figure);
    const area = frame(host, layout, trace.colorbar ? COLOR_BAR_MARGIN : MARGIN), elements = [];
    const inside = part("cells", "", { gridTemplate: `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)` });
    for (let step = 0; step < rows; step++) {
      for (let column = 0; column < columns; column++) {
        const cell = document.createElement("i");
        cell.at = [upward ? rows - 1 - step : step, column];
        elements.push(cell);
      }
    }
    inside.append(...elements);
    area.append(inside);
    labels(area, layout.xaxis, "x", middle(columns, false));
    labels(area, layout.yaxis, "y", middle(rows, upward));
    if (trace.colorbar) colorBar(area, trace);
    return elements;
  }

  function colorBar(area, { colorscale, colorbar, zmin, zmax }) {
    const stops = colorscale.map(([at, color]) => `${color} ${100 * at}%`);
    const element = part("bar", "", { background: `linear-gradient(to top, ${stops})` });
    for (const at of [0, 0.5, 1]) {
      element.append(part("label", short(zmin + at * (zmax - zmin)), { bottom: `calc(${100 * at}% - .6em)` }));
    }
    element.append(part("title", colorbar.title.text));
    area.append(element);
  }

  // The frame around the chosen cells.
  function drawFrame(host, figure) {
    for (const old of host.querySelectorAll(".chosen")) old.remove();
    if (figure.data[0].type !== "heatmap") return;
    const { rows, columns, upward } = lattice(figure);
    for (const { x0, x1, y0, y1, line } of figure.layout.shapes || []) {
      const top = upward ? rows - y1 - 0.5 : y0 + 0.5;
      host.firstChild.append(part("chosen", "", {
        left: share((x0 + 0.5) / columns), width: share((x1 - x0) / columns), top: share(top / rows),
        height: share((y1 - y0) / rows), borderColor: line.color,
      }));
    }
  }

  // Bars -----------------------------------------------------------------------------------------------------------

  function bars(host, { layout, data: [trace] }) {
    const flat = trace.orientation === "h", values = flat ? trace.x : trace.y, n = values.length;
    const axis = flat ? layout.xaxis : layout.yaxis;
    const low = axis.range ? axis.range[0] : Math.min(0, ...values) * 1.06;
    const high = axis.range ? axis.range[1] : Math.max(0, ...values) * 1.06 || (low < 0 ? 0 : 1);
    const along = (value) => (value - low) / (high - low), zero = along(0);
    const area = frame(host, layout, MARGIN), elements = [];
    for (const tick of axis.tickvals || roundTicks(low, high)) {
      const at = share(flat ? along(tick) : 1 - along(tick)), side = flat ? "left" : "top";
      area.append(part(tick === 0 ? "line zero" : "line", "", flat
        ? { left: at, top: 0, bottom: 0, width: "1px" } : { top: at, left: 0, right: 0, height: "1px" }));
      area.append(part(`label ${flat ? "x" : "y"}`, short(tick), { [side]: at }));
    }
    const across = middle(n, flat && layout.yaxis.autorange !== "reversed");
    for (const [index, value] of values.entries()) {
      const end = along(value), [from, to] = [Math.min(zero, end), Math.max(zero, end)];
      const thick = share(0.8 / n), start = share(across(index) - 0.4 / n);
      const bar = document.createElement("i");
      Object.assign(bar.style, { background: [trace.marker.color].flat()[index], opacity: trace.marker.opacity || 1 },
        flat ? { top: start, height: thick, left: share(from), width: share(to - from) }
          : { left: start, width: thick, bottom: share(from), height: share(to - from) });
      bar.at = [index];
      elements.push(bar);
      if (trace.text) {
        const place = { left: `calc(${share(to)} + 4px)`, top: share(across(index)) };
        elements.push(part("value", trace.text[index], place));
      }
    }
    area.append(...elements);
    labels(area, flat ? layout.yaxis : layout.xaxis, flat ? "y" : "x", across);
    return {};
  }

  // The width of a figure: its own if it sets one, else the panel's.
  const figureWidth = (host, layout) => (layout.meta || {}).width || host.clientWidth;

  // Graphs ---------------------------------------------------------------------------------------------------------

  function graph(host, { layout, data }) {
    const width = figureWidth(host, layout) || 600, { height } = layout, { l, t, b } = layout.margin;
    const right = width - MARGIN, { xaxis, yaxis } = layout;
    const scale = (range, from, to) => (value) => from + ((value - range[0]) / (range[1] - range[0])) * (to - from);
    const x = scale(xaxis.range, l, right), y = scale(yaxis.range, height - b, t);
    const picture = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
    for (const trace of data) {
      if (trace.mode === "lines") line(picture, trace, [x, y]);
      else nodes(picture, trace, [x, y]);
    }
    host.replaceChildren(picture);
    for (const [index, text] of (xaxis.ticktext || []).entries()) {
      const style = { left: `${x(xaxis.tickvals[index])}px`, top: `${height - b}px` };
      host.append(part(xaxis.tickangle ? "label x turned" : "label x", text, style));
    }
    for (const [index, text] of (yaxis.ticktext || []).entries()) {
      host.append(part("label y", text, { top: `${y(yaxis.tickvals[index])}px`, right: `${width - l}px` }));
    }
    if (yaxis.title) host.append(part("title y", yaxis.title.text, { top: `${t}px`, bottom: `${b}px` }));
    return { width: layout.meta ? 0 : width };
  }

  function line(picture, trace, [x, y]) {
    const place = (value, index) => (value === null ? "" : `${x(value).toFixed(1)} ${y(trace.y[index]).toFixed(1)}`);
    const points = trace.x.map(place);
    const d = points.map((point, index) => point && (points[index - 1] ? "L" : "M") + point);
    const { color, width } = trace.line, style = { d: d.join(""), fill: "none", stroke: color };
    picture.append(shape("path", { ...style, "stroke-width": width, "stroke-opacity": trace.opacity || 1 }));
    if (!trace.text) return;
    const hoverArea = shape("path", { ...style, "stroke-width": Math.max(8, width), "stroke-opacity": 0 });
    hoverArea.hover = trace.text;
    picture.append(hoverArea);
  }

  function nodes(picture, trace, [x, y]) {
    const { size, color, opacity, symbol, colorscale, line: rim } = trace.marker;
    const { cmin: zmin, cmax: zmax } = trace.marker;
    const tone = colorscale ? colorRamp({ colorscale, zmin, zmax }) : (fill) => [fill];
    const of = (values, index) => (Array.isArray(values) ? values[index] : values);
    for (const [index, at] of trace.x.entries()) {
      const [cx, cy] = [x(at), y(trace.y[index])], node = shape("g", {});
      const r = of(size, index) / 2, look = { fill: tone(of(color, index))[0] };
      if (opacity !== undefined) look["fill-opacity"] = of(opacity, index);
      if (rim) Object.assign(look, { stroke: of(rim.color, index), "stroke-width": of(rim.width, index) });
      node.append(symbol === "square" ? shape("rect", { x: cx - r, y: cy - r, width: 2 * r, height: 2 * r, ...look })
        : shape("circle", { cx, cy, r, ...look }));
      if (trace.text) {
        const text = shape("text", { x: cx, y: cy, fill: of(trace.textfont.color, index),
          "font-size": trace.textfont.size, "text-anchor": "middle", "dominant-baseline": "central" });
        text.textContent = plain(trace.text[index]);
        node.append(text);
      }
      node.hover = trace.hovertext[index];
      node.clickTarget = (trace.customdata || [])[index];
      picture.append(node);
    }
  }

  // ----------------------------------------------------------------------------------------------------------------

  const KINDS = { heatmap: cells, bar: bars, scatter: graph };

  function sentence(figure) {
    const note = (figure.layout.annotations || [])[0], [trace] = figure.data;
    return note && !(trace.x || []).length ? note.text : null;
  }

  // The texts for screen readers: the hover texts of the chosen cells, or of all bars and nodes.
  function spokenTexts({ layout, data }) {
    if (data[0].type !== "heatmap") {
      return data.flatMap(({ text, hovertext }) => hovertext || text || []).slice(0, MAX_LABELS);
    }
    return (layout.shapes || []).flatMap(({ x0, x1, y0, y1 }) =>
      data[0].hovertext.slice(y0 + 0.5, y1 + 0.5).flatMap((row) => row.slice(x0 + 0.5, x1 + 0.5)));
  }

  function setLabel(host, texts) {
    host.setAttribute("role", "img");
    host.setAttribute("aria-label", texts.map(plain).join("; "));
  }

  function draw(host, figure) {
    const before = shown.get(host), text = sentence(figure), kind = text === null ? figure.data[0].type : "sentence";
    host.style.minHeight = `${figure.layout.height}px`;
    if (text !== null) host.replaceChildren(part("sentence", text));
    const drawing = text === null ? KINDS[kind](host, figure, before && before.kind === kind ? before : null) : {};
    drawFrame(host, figure);
    setLabel(host, text === null ? spokenTexts(figure) : [text]);
    shown.set(host, { ...drawing, figure, kind });
    host.dataset.drawn = kind;
    if (!tip.hidden) requestAnimationFrame(updateTip); // its text was that of the last figure
    if (!before) resized.observe(host);
  }

  function move(host, shapes) {
    const { figure } = shown.get(host);
    figure.layout.shapes = shapes;
    drawFrame(host, figure);
    setLabel(host, spokenTexts(figure));
  }

  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const now = shown.get(target);
      if (now && now.width && now.width !== target.clientWidth) draw(target, now.figure);
    }
  });

  // The hover text and the click target of an element; null outside of drawings.
  function pointAt(element) {
    const point = element && element.closest && element.closest(".drawing i, .drawing g, .drawing path");
    if (!point) return null;
    const now = shown.get(point.closest(".drawing"));
    if (!point.at) return { hover: point.hover, clickTarget: point.clickTarget };
    const [trace] = now.figure.data, at = (values) => point.at.reduce((value, index) => value[index], values || []);
    return { hover: at(trace.hovertext), clickTarget: at(trace.customdata) };
  }

  const tip = part("tip");
  let pointer = null; // its coordinates in the window

  // Shows the hover text under the pointer, also when the page has changed under a resting pointer.
  function updateTip() {
    const point = pointer && pointAt(document.elementFromPoint(...pointer));
    tip.hidden = !point || !point.hover;
    if (tip.hidden) return;
    if (!tip.isConnected) document.body.append(tip);
    tip.textContent = plain(point.hover);
    const [x, y] = pointer, left = Math.min(x + 14, innerWidth - Math.min(MAX_TIP_WIDTH, tip.offsetWidth) - 8);
    const below = y + 16 + tip.offsetHeight < innerHeight;
    tip.style.transform = `translate(${left}px, ${below ? y + 16 : y - tip.offsetHeight - 10}px)`;
  }

  function hideTip() {
    pointer = null;
    tip.hidden = true;
  }

  tip.hidden = true;
  document.addEventListener("pointermove", ({ clientX, clientY }) => { pointer = [clientX, clientY]; updateTip(); });
  document.documentElement.addEventListener("pointerleave", hideTip);
  addEventListener("blur", hideTip);
  addEventListener("scroll", updateTip, true);

  // Loads plotly when first needed: to save an image, and for the figures of a stored run.
  function plotly() {
    loading = loading || new Promise((done, failed) => {
      const script = document.createElement("script");
      Object.assign(script, { src: "plotly.js", onload: () => done(window.Plotly) });
      script.onerror = (event) => { loading = null; failed(event); };
      document.head.append(script);
    });
    return loading;
  }

  async function png(name) {
    const host = document.getElementById(name), { figure } = shown.get(host), { layout } = figure;
    const ground = getComputedStyle(host.closest(".panel")).backgroundColor;
    const width = figureWidth(host, layout);
    const sized = { ...layout, width, autosize: false, paper_bgcolor: ground };
    const options = { format: "png", scale: 2, filename: `mechxai-${name}`, width };
    return (await plotly()).downloadImage({ data: figure.data, layout: sized }, { ...options, height: layout.height });
  }

  window.mechxai = { draw, move, pointAt, plotly, png };
})();
