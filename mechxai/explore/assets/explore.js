"use strict";
// The page's own interactions. The view is a plain object in the store "view"; every interaction stores a new view, and
// the server sends what changes.
(() => {
  const clientside = (window.dash_clientside = window.dash_clientside || {});
  const noUpdate = () => clientside.no_update;
  const state = { view: null, facts: null, sent: 0, pending: null, timer: 0, opened: false };
  const { mechxai } = window;
  const set = (id, props) => clientside.set_props(id, props);
  const text = (value) => (value === null || value === undefined ? "" : String(value));

  function changed(view, parts) {
    const next = { ...view };
    for (const [name, value] of Object.entries(parts)) {
      next[name] = typeof view[name] === "number" ? Number(value) : value;
    }
    return JSON.stringify(next) === JSON.stringify(view) ? noUpdate() : next;
  }

  // A choice, applied to the view that still waits to be sent.
  function merged(view, parts) {
    const pending = state.pending;
    if (!pending) return changed(view, parts);
    dropPending();
    const next = changed(pending, parts);
    return next === noUpdate() ? pending : next;
  }

  function dropPending() {
    state.pending = null;
    clearTimeout(state.timer);
  }

  function move(parts) {
    if (!state.view) return;
    const next = changed(state.view, parts);
    if (next === noUpdate()) return;
    state.view = next;
    // one request at a time: a view that is chosen meanwhile is sent after the answer
    if (state.sent && Date.now() - state.sent < 3000) {
      state.pending = next;
      clearTimeout(state.timer);
      state.timer = setTimeout(flush, 3000);
    } else send(next);
  }

  function send(view) {
    state.sent = Date.now();
    set("view", { data: view });
  }

  function flush() {
    const view = state.pending;
    dropPending();
    if (view) send(view);
  }

  function step(name, change) {
    const facts = state.facts;
    if (!facts) return;
    const count = { pos: facts.n_pos, layer: facts.n_layers, head: facts.n_heads }[name];
    move({ [name]: Math.min(count - 1, Math.max(0, resolved(name) + change)) });
  }

  // The chosen index, which the server may not have answered yet.
  function resolved(name) {
    const index = state.view[name];
    return index >= 0 ? index : state.facts[name];
  }

  // An address that is too long for the request of the page is read here.
  function opened(view) {
    if (state.opened) return false;
    state.opened = true;
    if (!location.hash && location.search.length < 3000) return false;
    const linked = addressed(view);
    if (!linked.prompt) return false;
    setTimeout(() => show(linked), 0);
    return true;
  }

  // The view that the address describes.
  function addressed(view) {
    const query = new URLSearchParams(location.hash.slice(1) || location.search);
    const values = [...query].filter(([name]) => name in view);
    return { ...state.facts.defaults, model: view.model, ...Object.fromEntries(values) };
  }

  // Shows a view, and puts its texts and choices into the controls; returns whether the view is a new one.
  function show(view) {
    const next = changed(state.view, view);
    dropPending();
    if (next !== noUpdate()) { // sent first: the server compares the model chosen below with this view's
      state.view = next;
      send(next);
    }
    set("model-choice", { value: view.model });
    for (const name of ["prompt", "corrupted"]) set(name + "-text", { value: view[name] });
    for (const name of ["inputs", "lens", "color", "site"]) set(name + "-choice", { value: view[name] });
    return next !== noUpdate();
  }

  // One entry of the browser's history per pair of prompts, not per view.
  function storeAddress(view, query) {
    const pair = JSON.stringify([view.model, view.prompt, view.corrupted]);
    const isNew = state.pair && state.pair !== pair && !state.returning;
    Object.assign(state, { pair, returning: false });
    // the part after # is not sent: servers refuse long addresses
    const address = query.length < 30000 ? "?" + query : location.pathname + "#" + query;
    try {
      if (isNew) history.pushState(null, "", address);
      else history.replaceState(null, "", address);
    } catch { /* some browsers limit the rate of changes */ }
  }

  // The change of the view that a click target describes.
  function targetChanges(target) {
    return Object.fromEntries(target.split("\u001f").map((part) => {
      const at = part.indexOf("=");
      return [part.slice(0, at), part.slice(at + 1)];
    }));
  }

  // Draws the prompt's tokens; the tab key reaches the chosen one, the arrow keys move from there.
  function drawTokens(box, tokens) {
    const same = box.children.length === tokens.length, buttons = same ? [...box.children] : tokens.map(tokenButton);
    const focused = buttons.includes(document.activeElement);
    for (const [pos, { text, share, hover, chosen }] of tokens.entries()) {
      const button = buttons[pos], name = share < 0 ? "--against" : "--towards";
      if (button.firstChild.textContent !== text) button.firstChild.textContent = text;
      if (button.title !== hover) button.title = hover;
      button.style.backgroundColor = `color-mix(in srgb, var(${name}) ${Math.round(62 * Math.abs(share))}%, transparent)`;
      if (button.tabIndex === (chosen ? 0 : -1)) continue;
      button.className = chosen ? "token chosen" : "token";
      button.setAttribute("aria-pressed", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
      if (chosen && focused) button.focus();
    }
    if (!same) box.replaceChildren(...buttons);
    const chosenButton = box.querySelector(".chosen");
    if (chosenButton && box.scrollHeight > box.clientHeight) chosenButton.scrollIntoView({ block: "nearest" });
  }

  function tokenButton(_token, pos) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "token", tabIndex: -1 });
    button.dataset.pos = pos;
    button.setAttribute("aria-pressed", "false");
    button.append(document.createElement("bdi"));
    return button;
  }

  clientside.mechxai = {
    chosen(inputs, lens, color, site, view) {
      return merged(view, { inputs, lens, color, site });
    },
    read(_clicks, answer, wrong, prompt, corrupted, view) {
      const triggered = clientside.callback_context.triggered[0];
      const answers = { answer: text(answer), wrong: text(wrong) };
      if (triggered && triggered.prop_id !== "read.n_clicks") return merged(view, answers);
      const position = text(prompt) === view.prompt ? {} : { pos: -1 };
      return merged(view, { ...answers, prompt: text(prompt), corrupted: text(corrupted), ...position });
    },
    // Draws the server's answer: the parts of the page that change.
    shown(answer, view) {
      const { facts } = answer;
      state.sent = 0;
      if (answer.error) { // the page stays as it was
        state.view = state.pending || view;
        state.returning = false;
        if (state.pending) setTimeout(flush, 0);
        return Array(4).fill(noUpdate());
      }
      state.facts = facts;
      if (state.pending) setTimeout(flush, 0);
      for (const [name, { figure, shapes }] of Object.entries(answer.panels)) {
        if (figure) mechxai.draw(document.getElementById(name), figure);
        else mechxai.move(document.getElementById(name), shapes);
      }
      for (const [name, wanted] of Object.entries(facts.has_run_button)) {
        document.getElementById(`${name}-run`).hidden = !wanted;
      }
      if (answer.tokens) drawTokens(document.getElementById("tokens"), answer.tokens);
      document.getElementById("commands").textContent = answer.commands;
      if (!opened(view)) storeAddress(view, facts.query);
      const frame = document.getElementById("views"), box = document.getElementById("views-box");
      if (box && box.open && frame.dataset.prompt !== view.model + view.prompt) drawHeads(frame, view);
      return [facts.where, view.answer, view.wrong, answer.stamps];
    },
    // The figures of a stored run, drawn by plotly.
    results(figures) {
      if (!figures.length) return noUpdate();
      mechxai.plotly().then((plotly) => figures.forEach((figure, index) =>
        plotly.newPlot(document.getElementById(`result-${index}`), figure.data, figure.layout, { displaylogo: false })));
      return noUpdate();
    },
    // A key of everything that determines the runs of the view.
    paired(view, before) {
      const pending = state.pending;
      const isOld = pending && (pending.model !== view.model || pending.prompt !== view.prompt);
      if (isOld) dropPending(); // it belongs to the last prompt
      if (!state.pending) state.view = view;
      const routesPos = state.facts && state.facts.has_run_button.routes ? view.pos : null; // else they need no run
      const pair = JSON.stringify(
        [view.model, view.prompt, view.corrupted, view.answer, view.wrong, view.site, routesPos]);
      if (pair === before) return noUpdate();
      if (before) set("message", { children: "" }); // it was about the last view
      return pair;
    },
    themed(clicks, before) {
      let theme = null;
      try { theme = localStorage.getItem("mechxai-theme"); } catch { /* a browser without storage */ }
      theme = theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
      if (clicks) theme = theme === "dark" ? "light" : "dark";
      try { if (clicks) localStorage.setItem("mechxai-theme", theme); } catch { /* likewise */ }
      document.documentElement.dataset.theme = theme;
      const button = document.getElementById("theme-switch");
      if (button) button.textContent = theme === "dark" ? "Light" : "Dark";
      return theme === before ? noUpdate() : theme;
    },
  };

  // A page of the server about the view.
  async function fetchPage(name) {
    const answer = await fetch(name, { method: "POST", body: new URLSearchParams(state.facts.query) });
    const text = await answer.text();
    if (!answer.ok) throw new Error(text);
    return text;
  }

  const showError = (error) => set("trouble", { children: error.message });

  function drawHeads(frame, view) {
    const prompt = (frame.dataset.prompt = view.model + view.prompt);
    fetchPage("attention.html").then((page) => {
      if (frame.dataset.prompt === prompt) frame.srcdoc = page;
    }).catch(showError);
  }

  function save(button) {
    button.disabled = true;
    fetchPage("export.html").then((page) => {
      const href = URL.createObjectURL(new Blob([page], { type: "text/html" }));
      Object.assign(document.createElement("a"), { href, download: "mechxai-explorer.html" }).click();
      setTimeout(() => URL.revokeObjectURL(href), 60000);
    }).catch(showError).finally(() => { button.disabled = false; });
  }

  async function copy(button, text) {
    const before = (button.dataset.label = button.dataset.label || button.textContent);
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy the address by hand";
    }
    setTimeout(() => { button.textContent = before; }, 1500);
  }

  document.addEventListener("click", (event) => {
    const token = event.target.closest("#tokens [data-pos]");
    const point = mechxai.pointAt(event.target), { png } = event.target.dataset || {};
    if (token) move({ pos: Number(token.dataset.pos) });
    if (point && point.clickTarget) move(targetChanges(point.clickTarget));
    if (png) mechxai.png(png).catch(() => set("trouble", { children: "The image could not be saved." }));
    if (event.target.id === "save" && state.facts) save(event.target);
    if (event.target.id === "share") copy(event.target, location.href);
    if (event.target.id === "copy") copy(event.target, document.getElementById("commands").textContent);
  });
  addEventListener("hashchange", () => location.reload());
  addEventListener("popstate", () => {
    if (!state.facts || location.hash) return;
    state.returning = show(addressed(state.view));
  });
  document.addEventListener("toggle", (event) => {
    if (event.target.id === "views-box" && event.target.open && state.view) {
      drawHeads(document.getElementById("views"), state.view);
    }
  }, true);

  const KEYS = {
    ArrowLeft: ["pos", -1], ArrowRight: ["pos", 1], ArrowUp: ["layer", 1], ArrowDown: ["layer", -1],
    "[": ["head", -1], "]": ["head", 1],
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      document.getElementById("read").click();
      return;
    }
    const typing = event.target.closest("input, textarea, select, [role=listbox], [role=option], .dash-dropdown");
    if (typing || !KEYS[event.key]) return;
    if ((event.ctrlKey || event.metaKey || event.altKey) && !event.getModifierState("AltGraph")) return;
    if (!event.target.closest(".moves")) return;
    event.preventDefault();
    step(...KEYS[event.key]);
  });
})();
