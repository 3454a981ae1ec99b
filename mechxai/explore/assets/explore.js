"use strict";
// What happens in the page itself. The view is a plain object in the store "view"; everything here only makes a new one
// of it, and the server draws what changed.
(() => {
  const clientside = (window.dash_clientside = window.dash_clientside || {});
  const none = () => clientside.no_update;
  const state = { view: null, facts: null, sent: 0, later: null, timer: 0, opened: false };
  const { mechxai } = window;
  const set = (id, props) => clientside.set_props(id, props);
  const text = (value) => (value === null || value === undefined ? "" : String(value));

  function changed(view, parts) {
    const next = { ...view };
    for (const [name, value] of Object.entries(parts)) {
      next[name] = typeof view[name] === "number" ? Number(value) : value;
    }
    return JSON.stringify(next) === JSON.stringify(view) ? none() : next;
  }

  // A choice on top of the moves that still wait to be sent.
  function merged(view, parts) {
    const waiting = state.later;
    if (!waiting) return changed(view, parts);
    forget();
    const next = changed(waiting, parts);
    return next === none() ? waiting : next;
  }

  function forget() {
    state.later = null;
    clearTimeout(state.timer);
  }

  function move(parts) {
    if (!state.view) return;
    const next = changed(state.view, parts);
    if (next === none()) return;
    state.view = next;
    // one request at a time: what is asked while one is under way is sent when it has been answered
    if (state.sent && Date.now() - state.sent < 3000) {
      state.later = next;
      clearTimeout(state.timer);
      state.timer = setTimeout(flush, 3000);
    } else send(next);
  }

  function send(view) {
    state.sent = Date.now();
    set("view", { data: view });
  }

  function flush() {
    const view = state.later;
    forget();
    if (view) send(view);
  }

  function step(name, by) {
    const facts = state.facts;
    if (!facts) return;
    const most = { pos: facts.n_pos, layer: facts.n_layers, head: facts.n_heads }[name];
    const at = Math.min(most - 1, Math.max(0, resolved(name) + by));
    move({ [name]: at });
  }

  // what was asked last, though the server may not have answered yet
  function resolved(name) {
    const asked = state.view[name];
    return asked >= 0 ? asked : state.facts[name];
  }

  // An address too long to come along with the request for the page is read here.
  function opened(view) {
    if (state.opened) return false;
    state.opened = true;
    if (!location.hash && location.search.length < 3000) return false;
    const asked = addressed(view);
    if (!asked.prompt) return false;
    setTimeout(() => show(asked), 0);
    return true;
  }

  // The view that the address describes.
  function addressed(view) {
    const named = [...new URLSearchParams(location.hash.slice(1) || location.search)].filter(([name]) => name in view);
    return { ...state.facts.blank, model: view.model, ...Object.fromEntries(named) };
  }

  // A view as a whole, with what is typed and chosen for it; whether it is another than the present one.
  function show(asked) {
    const next = changed(state.view, asked);
    forget();
    if (next !== none()) { // sent at once: the server compares the model chosen below with this view's
      state.view = next;
      send(next);
    }
    set("model-choice", { value: asked.model });
    for (const name of ["prompt", "corrupted"]) set(name + "-text", { value: asked[name] });
    for (const name of ["inputs", "lens", "color", "site"]) set(name + "-choice", { value: asked[name] });
    return next !== none();
  }

  // A place on the way back for every pair of prompts, not for every step within one.
  function kept(view, query) {
    const pair = JSON.stringify([view.model, view.prompt, view.corrupted]);
    const other = state.pair && state.pair !== pair && !state.returning;
    Object.assign(state, { pair, returning: false });
    // after a # it stays with the browser: servers refuse long addresses
    const address = query.length < 30000 ? "?" + query : location.pathname + "#" + query;
    try {
      if (other) history.pushState(null, "", address);
      else history.replaceState(null, "", address);
    } catch { /* too many at once for some browsers */ }
  }

  // What a point's text says of the view.
  function goes(said) {
    return Object.fromEntries(said.split("\u001f").map((one) => {
      const at = one.indexOf("=");
      return [one.slice(0, at), one.slice(at + 1)];
    }));
  }

  // The prompt's tokens; one of them can be reached by the tabulator, the arrows do the rest.
  function tokens(box, given) {
    const same = box.children.length === given.length, made = same ? [...box.children] : given.map(token);
    const focused = made.includes(document.activeElement);
    for (const [pos, { text, share, said, chosen }] of given.entries()) {
      const one = made[pos], name = share < 0 ? "--against" : "--towards";
      if (one.firstChild.textContent !== text) one.firstChild.textContent = text;
      if (one.title !== said) one.title = said;
      one.style.backgroundColor = `color-mix(in srgb, var(${name}) ${Math.round(62 * Math.abs(share))}%, transparent)`;
      if (one.tabIndex === (chosen ? 0 : -1)) continue;
      one.className = chosen ? "token chosen" : "token";
      one.setAttribute("aria-pressed", String(chosen));
      one.tabIndex = chosen ? 0 : -1;
      if (chosen && focused) one.focus();
    }
    if (!same) box.replaceChildren(...made);
    const at = box.querySelector(".chosen");
    if (at && box.scrollHeight > box.clientHeight) at.scrollIntoView({ block: "nearest" });
  }

  function token(_given, pos) {
    const one = document.createElement("button");
    Object.assign(one, { type: "button", className: "token", tabIndex: -1 });
    one.dataset.pos = pos;
    one.setAttribute("aria-pressed", "false");
    one.append(document.createElement("bdi"));
    return one;
  }

  clientside.mechxai = {
    chosen(inputs, lens, color, site, view) {
      return merged(view, { inputs, lens, color, site });
    },
    read(_clicks, answer, wrong, prompt, corrupted, view) {
      const triggered = clientside.callback_context.triggered[0];
      const asked = { answer: text(answer), wrong: text(wrong) };
      if (triggered && triggered.prop_id !== "read.n_clicks") return merged(view, asked);
      const moved = text(prompt) === view.prompt ? {} : { pos: -1 };
      return merged(view, { ...asked, prompt: text(prompt), corrupted: text(corrupted), ...moved });
    },
    // The server's answer: what changed of the page.
    shown(answer, view) {
      const { facts } = answer;
      state.sent = 0;
      if (answer.error) { // what was shown stays
        state.view = state.later || view;
        state.returning = false;
        if (state.later) setTimeout(flush, 0);
        return Array(4).fill(none());
      }
      state.facts = facts;
      if (state.later) setTimeout(flush, 0);
      for (const [name, { figure, shapes }] of Object.entries(answer.panels)) {
        if (figure) mechxai.draw(document.getElementById(name), figure);
        else mechxai.move(document.getElementById(name), shapes);
      }
      for (const [name, wanted] of Object.entries(facts.started)) document.getElementById(`${name}-run`).hidden = !wanted;
      if (answer.tokens) tokens(document.getElementById("tokens"), answer.tokens);
      document.getElementById("commands").textContent = answer.commands;
      if (!opened(view)) kept(view, facts.query);
      const frame = document.getElementById("views"), box = document.getElementById("views-box");
      if (box && box.open && frame.dataset.prompt !== view.model + view.prompt) heads(frame, view);
      return [facts.where, view.answer, view.wrong, answer.stamps];
    },
    // The figures of a run that was opened, as plotly draws them.
    results(figures) {
      if (!figures.length) return none();
      mechxai.plotly().then((plotly) => figures.forEach((figure, index) =>
        plotly.newPlot(document.getElementById(`result-${index}`), figure.data, figure.layout, { displaylogo: false })));
      return none();
    },
    // what decides which sweeps are looked at
    paired(view, before) {
      const waiting = state.later;
      if (waiting && (waiting.model !== view.model || waiting.prompt !== view.prompt)) forget(); // another one was opened
      if (!state.later) state.view = view;
      const traced = state.facts && state.facts.started.routes ? view.pos : null; // else routes follow by themselves
      const asked = [view.model, view.prompt, view.corrupted, view.answer, view.wrong, view.site];
      const pair = JSON.stringify([...asked, traced]);
      if (pair === before) return none();
      if (before) set("message", { children: "" }); // it spoke of what was asked before
      return pair;
    },
    dress(clicks, before) {
      let theme = null;
      try { theme = localStorage.getItem("mechxai-theme"); } catch { /* a browser that keeps nothing */ }
      theme = theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
      if (clicks) theme = theme === "dark" ? "light" : "dark";
      try { if (clicks) localStorage.setItem("mechxai-theme", theme); } catch { /* likewise */ }
      document.documentElement.dataset.theme = theme;
      const button = document.getElementById("dress");
      if (button) button.textContent = theme === "dark" ? "Light" : "Dark";
      return theme === before ? none() : theme;
    },
  };

  // A page of the server about what is shown.
  async function paged(name) {
    const answer = await fetch(name, { method: "POST", body: new URLSearchParams(state.facts.query) });
    const text = await answer.text();
    if (!answer.ok) throw new Error(text);
    return text;
  }

  const told = (error) => set("trouble", { children: error.message });

  function heads(frame, view) {
    const prompt = (frame.dataset.prompt = view.model + view.prompt);
    paged("attention.html").then((page) => { if (frame.dataset.prompt === prompt) frame.srcdoc = page; }).catch(told);
  }

  function save(button) {
    button.disabled = true;
    paged("export.html").then((page) => {
      const href = URL.createObjectURL(new Blob([page], { type: "text/html" }));
      Object.assign(document.createElement("a"), { href, download: "mechxai-explorer.html" }).click();
      setTimeout(() => URL.revokeObjectURL(href), 60000);
    }).catch(told).finally(() => { button.disabled = false; });
  }

  async function copy(button, what) {
    const before = (button.dataset.label = button.dataset.label || button.textContent);
    try {
      await navigator.clipboard.writeText(what);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy by hand: see the address";
    }
    setTimeout(() => { button.textContent = before; }, 1500);
  }

  document.addEventListener("click", (event) => {
    const token = event.target.closest("#tokens [data-pos]");
    const point = mechxai.under(event.target), own = event.target.dataset || {};
    if (token) move({ pos: Number(token.dataset.pos) });
    if (point && point.goes) move(goes(point.goes));
    if (own.png) mechxai.png(own.png).catch(() => set("trouble", { children: "The picture could not be made." }));
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
      heads(document.getElementById("views"), state.view);
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
