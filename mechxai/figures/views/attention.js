"use strict";
// Three canvas views of attention patterns. All data comes from the JSON in the page; nothing is fetched.
const data = JSON.parse(document.getElementById("data").textContent);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const n = data.tokens.length, L = data.layers.length, H = data.heads.length, K = data.width;
const weights = bytes(data.weights);                      // [layer, head, dest, k], 255 is 1
const sources = data.sources ? new Uint16Array(bytes(data.sources).buffer) : null;  // [layer, head, dest, k] of stored weights
const thumbs = bytes(data.thumbs), side = data.side;      // [layer, head, side, side]
const qk = data.query ? { q: new Int8Array(bytes(data.query).buffer), k: new Int8Array(bytes(data.key).buffer),
  qs: new Float32Array(bytes(data.query_scale).buffer), ks: new Float32Array(bytes(data.key_scale).buffer),
  d: data.d_head, scale: data.scale } : null;
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#3a9bd6", "#7f7f7f", "#8b5cf6", "#c2410c",
  "#15803d", "#be185d", "#4338ca"];
const ROW = 19, LEFT = 190, GAP = 260;
const state = { view: "head", layer: data.start[0], heads: new Set([data.start[1]]), head: data.start[1], query: n - 1,
  hover: -1 };
const $ = (id) => document.getElementById(id);
const ink = () => getComputedStyle(document.body).color;
const quiet = () => getComputedStyle(document.documentElement).getPropertyValue("--quiet").trim();
const accent = () => getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
const shown = (token) => token.length > 20 ? token.slice(0, 19) + "…" : token;

function attention(layer, head, dest, visit) {
  const at = ((layer * H + head) * n + dest) * K;
  for (let i = 0; i < K; i++) {
    const weight = weights[at + i] / 255;
    if (weight > 0) visit(sources ? sources[at + i] : i, weight);
  }
}

function canvas(width, height) {
  const element = $("canvas"), ratio = Math.min(window.devicePixelRatio || 1, 16000 / height);
  element.width = Math.ceil(width * ratio);
  element.height = Math.ceil(height * ratio);
  element.style.width = width + "px";
  element.style.height = height + "px";
  const context = element.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.font = "13px Inter, Helvetica, Arial, sans-serif";
  context.textBaseline = "middle";
  return context;
}

function headView() {
  const context = canvas(2 * LEFT + GAP, n * ROW + 16), middle = (i) => 8 + i * ROW + ROW / 2;
  const chosen = [...state.heads].sort((a, b) => a - b), focus = state.hover >= 0 ? state.hover : -1;
  const bars = new Float32Array(n);
  for (const head of chosen) {
    context.strokeStyle = COLORS[head % COLORS.length];
    for (let dest = focus < 0 ? 0 : focus; dest < (focus < 0 ? n : focus + 1); dest++) {
      attention(state.layer, head, dest, (src, weight) => {
        if (focus >= 0) bars[src] = Math.max(bars[src], weight);
        if (weight < 0.02) return;
        context.globalAlpha = Math.min(1, weight * (focus < 0 ? 0.8 : 1));
        context.lineWidth = 0.6 + 2.4 * weight;
        context.beginPath();
        context.moveTo(LEFT, middle(dest));
        context.bezierCurveTo(LEFT + GAP / 2, middle(dest), LEFT + GAP / 2, middle(src), LEFT + GAP, middle(src));
        context.stroke();
      });
    }
  }
  context.globalAlpha = 1;
  for (let i = 0; i < n; i++) {
    if (focus >= 0 && bars[i] > 0.004) {
      context.fillStyle = accent();
      context.globalAlpha = 0.25 + 0.5 * bars[i];
      context.fillRect(LEFT + GAP + 4, middle(i) - ROW / 2 + 1, (LEFT - 12) * bars[i], ROW - 2);
      context.globalAlpha = 1;
    }
    context.fillStyle = i === focus ? accent() : ink();
    context.textAlign = "right";
    context.fillText(shown(data.tokens[i]), LEFT - 8, middle(i));
    context.fillStyle = ink();
    context.textAlign = "left";
    context.fillText(shown(data.tokens[i]), LEFT + GAP + 8, middle(i));
  }
  $("note").textContent = focus < 0 ? "Left attends to right. Point at a token on the left to see only its attention."
    : `“${data.tokens[focus]}” (${focus}) attends to: ` + strongest(focus, chosen);
}

function strongest(dest, heads) {
  const largest = [];
  for (const head of heads) attention(state.layer, head, dest, (src, weight) => largest.push([weight, src, head]));
  largest.sort((a, b) => b[0] - a[0]);
  const name = (head) => heads.length > 1 ? ` (head ${data.heads[head]})` : "";
  return largest.slice(0, 4).map(([w, s, h]) => `${data.tokens[s]} ${w.toFixed(2)}${name(h)}`).join(", ");
}

function modelView() {
  const size = Math.max(38, Math.min(96, Math.floor(1100 / H))), top = 24, left = 44;
  const context = canvas(left + H * (size + 4), top + L * (size + 4) + 4);
  const tile = document.createElement("canvas");
  tile.width = tile.height = side;
  context.imageSmoothingEnabled = false;
  const small = tile.getContext("2d"), image = small.createImageData(side, side);
  for (let layer = 0; layer < L; layer++) {
    context.fillStyle = quiet();
    context.textAlign = "right";
    context.fillText(data.layers[layer], left - 8, top + (layer + 0.5) * (size + 4));
    for (let head = 0; head < H; head++) {
      const at = (layer * H + head) * side * side, color = COLORS[head % COLORS.length];
      const rgb = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
      for (let i = 0; i < side * side; i++) {
        image.data.set([...rgb, thumbs[at + i]], 4 * i);
      }
      small.putImageData(image, 0, 0);
      const x = left + head * (size + 4), y = top + layer * (size + 4);
      context.drawImage(tile, x, y, size, size);
      context.strokeStyle = layer === state.layer && state.heads.has(head) ? accent() : quiet() + "55";
      context.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
    }
  }
  context.textAlign = "center";
  context.fillStyle = quiet();
  for (let head = 0; head < H; head++) context.fillText(data.heads[head], left + head * (size + 4) + size / 2, 12);
  modelView.place = (x, y) => {
    const head = Math.floor((x - left) / (size + 4)), layer = Math.floor((y - top) / (size + 4));
    return head >= 0 && head < H && layer >= 0 && layer < L ? [layer, head] : null;
  };
  $("note").textContent = "Layers go downward, heads to the right; in a tile, rows attend to columns. Click it to open the head.";
}

function neuronView() {
  if (!qk) {
    canvas(400, 40);
    $("note").textContent = data.no_query;
    return;
  }
  const d = qk.d, cell = Math.max(3, Math.min(16, Math.floor(620 / d))), strip = Math.max(d * cell, 250), x0 = 180, top = 62;
  const last = data.causal ? state.query + 1 : n, context = canvas(x0 + strip + 240, top + last * ROW + 10);
  const at = (state.layer * H + state.head) * n, q = at + state.query, products = [], scores = [];
  let most = 1e-9, large = 1e-9;
  for (let i = 0; i < d; i++) large = Math.max(large, Math.abs(qk.q[q * d + i] * qk.qs[q]));
  for (let src = 0; src < last; src++) {
    const row = new Float32Array(d);
    let total = 0;
    for (let i = 0; i < d; i++) {
      row[i] = qk.q[q * d + i] * qk.qs[q] * qk.k[(at + src) * d + i] * qk.ks[at + src] * qk.scale;
      total += row[i];
      most = Math.max(most, Math.abs(row[i]));
    }
    products.push(row);
    scores.push(total);
  }
  const paint = (value, limit, x, y, h) => {
    context.fillStyle = value >= 0 ? "#2166ac" : "#b2182b";
    context.globalAlpha = Math.min(1, Math.sqrt(Math.abs(value) / limit));
    context.fillRect(x, y, cell - 0.5, h);
    context.globalAlpha = 1;
  };
  context.fillStyle = quiet();
  context.textAlign = "left";
  context.fillText("query, " + d + " dimensions", x0, 12);
  context.fillText("query × key, dimension by dimension", x0, top - 12);
  context.fillText("score", x0 + strip + 14, top - 12);
  context.fillText("attention", x0 + strip + 78, top - 12);
  context.textAlign = "right";
  context.fillStyle = accent();
  context.fillText(shown(data.tokens[state.query]), x0 - 10, 30);
  for (let i = 0; i < d; i++) paint(qk.q[q * d + i] * qk.qs[q], large, x0 + i * cell, 22, 16);
  const weight = new Float32Array(n);
  attention(state.layer, state.head, state.query, (src, w) => { weight[src] = w; });
  for (let src = 0; src < last; src++) {
    const y = top + src * ROW;
    context.fillStyle = ink();
    context.textAlign = "right";
    context.fillText(shown(data.tokens[src]), x0 - 10, y + ROW / 2);
    for (let i = 0; i < d; i++) paint(products[src][i], most, x0 + i * cell, y + 2, ROW - 4);
    context.fillStyle = ink();
    context.textAlign = "right";
    context.fillText(scores[src].toFixed(1), x0 + strip + 56, y + ROW / 2);
    context.fillStyle = accent();
    context.fillRect(x0 + strip + 80, y + 3, 120 * weight[src], ROW - 6);
    if (weight[src] > 0.02) {
      context.textAlign = "left";
      context.fillStyle = quiet();
      context.fillText(weight[src].toFixed(2), x0 + strip + 86 + 120 * weight[src], y + ROW / 2);
    }
  }
  $("note").textContent = "Blue raises the score, red lowers it. A row sums to its score; the softmax of the scores is the attention.";
}

const VIEWS = { head: headView, model: modelView, neuron: neuronView };

function draw() {
  for (const name of Object.keys(VIEWS)) $("tab-" + name).setAttribute("aria-selected", state.view === name);
  $("heads-box").hidden = state.view !== "head";
  $("head-box").hidden = $("query-box").hidden = state.view !== "neuron";
  $("layer-box").hidden = state.view === "model";
  $("layer").value = state.layer;
  $("head").value = state.head;
  $("query").value = state.query;
  for (const button of $("heads").children) {
    button.setAttribute("aria-pressed", state.heads.has(Number(button.dataset.head)));
  }
  VIEWS[state.view]();
}

function option(value, text) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = text;
  return element;
}

function build() {
  data.layers.forEach((layer, i) => $("layer").append(option(i, layer)));
  data.heads.forEach((head, i) => {
    $("head").append(option(i, head));
    const button = document.createElement("button");
    button.textContent = head;
    button.dataset.head = i;
    button.style.background = COLORS[i % COLORS.length];
    button.title = "head " + head + " (double click: only this head)";
    button.onclick = () => { state.heads.has(i) ? state.heads.delete(i) : state.heads.add(i); draw(); };
    button.ondblclick = () => { state.heads = new Set([i]); draw(); };
    $("heads").append(button);
  });
  data.tokens.forEach((token, i) => $("query").append(option(i, i + ": " + shown(token))));
  $("layer").onchange = (event) => { state.layer = Number(event.target.value); draw(); };
  $("head").onchange = (event) => { state.head = Number(event.target.value); draw(); };
  $("query").onchange = (event) => { state.query = Number(event.target.value); draw(); };
  for (const name of Object.keys(VIEWS)) $("tab-" + name).onclick = () => { state.view = name; state.hover = -1; draw(); };
  const place = (event) => {
    const box = $("canvas").getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  $("canvas").onmousemove = (event) => {
    if (state.view !== "head") return;
    const [x, y] = place(event), row = Math.floor((y - 8) / ROW), over = x < LEFT && row >= 0 && row < n ? row : -1;
    if (over !== state.hover) { state.hover = over; draw(); }
  };
  $("canvas").onmouseleave = () => { if (state.hover >= 0) { state.hover = -1; draw(); } };
  $("canvas").onclick = (event) => {
    if (state.view !== "model") return;
    const cell = modelView.place(...place(event));
    if (!cell) return;
    [state.layer, state.head] = cell;
    state.heads = new Set([cell[1]]);
    state.view = "head";
    draw();
  };
  $("stage").onkeydown = (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || state.view === "model") return;
    event.preventDefault();
    if (state.view === "neuron") state.query = Math.max(0, Math.min(n - 1, state.query + step));
    else state.hover = Math.max(0, Math.min(n - 1, (state.hover < 0 ? (step > 0 ? -1 : n) : state.hover) + step));
    draw();
  };
  state.view = data.view;
  draw();
  document.body.dataset.ready = Math.round(performance.now());
}

build();
