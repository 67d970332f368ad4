/* The settings: help on demand, marks and resets of what is changed, "off", the list of strategies, and the drawer.

   The server puts what it knows into #panel-data (views/strategy_picker.py). `show` gets the values (controls.py). */
window.settingsPanel = (() => {
  const known = JSON.parse(document.getElementById("panel-data").textContent);
  const { texts } = known;
  const filled = (text, places) => text.replace(/\{(\w+)\}/g, (_, place) => places[place]);
  const names = Object.keys(known.settings), touch = "(max-width: 859px)";
  const panel = () => document.getElementById("settings");
  const block = (name) => document.getElementById(`setting-${name}`);
  const same = (a, b) => String(a ?? "") === String(b ?? "");
  let usual = {}, values = {}, asked = null, waiting = [];
  const coming = new Set();  // what the server sends values of

  const changed = () => names.filter((name) => name !== "model" && name in usual && !same(values[name], usual[name]));
  const shown = (value) => same(value, "") ? texts.empty : String(value);

  function button(kind, label, text, press) {
    const made = document.createElement("button");
    Object.assign(made, { type: "button", className: kind, textContent: text });
    made.setAttribute("aria-label", label);
    made.title = label;
    made.addEventListener("click", (event) => { event.preventDefault(); press(made) });
    return made;
  }

  function explain(at, name) {
    const label = name === "model" ? texts.about : filled(texts.about_setting, known.settings[name]);
    const made = button("help", label, name === "model" ? label : "?", () => {
      made.setAttribute("aria-expanded", at.toggleAttribute("data-explained"));
    });
    made.setAttribute("aria-expanded", at.hasAttribute("data-explained"));
    return made;
  }

  function mark() {
    const different = new Set(changed());
    for (const name of names) {
      const at = block(name);
      if (!at) continue;
      if (!at.querySelector(":scope > .help") && name !== "strategy") at.append(explain(at, name));
      const { off, label } = known.settings[name], isOff = off !== null && same(values[name], off);
      at.toggleAttribute("data-off", isOff);
      const range = at.querySelector("input[type=range]");
      if (range && isOff) range.setAttribute("aria-valuetext", texts.off);
      else range?.removeAttribute("aria-valuetext");
      at.toggleAttribute("data-changed", different.has(name));
      const old = at.querySelector(":scope > .reset");
      const says = filled(texts.reset_setting, { label, value: shown(usual[name]) });
      if (old && (!different.has(name) || old.dataset.says !== says)) old.remove();
      if (different.has(name) && !at.querySelector(":scope > .reset")) {
        const made = button("reset", says, "↺", () => {
          reset([name]);
          (at.querySelector(".help") ?? panel()).focus(); // the pressed button goes
        });
        made.dataset.says = says; // its title may be shown in another language
        at.prepend(made);
      }
    }
    panel().toggleAttribute("data-changed", different.size > 0);
    const row = known.strategies.find((each) => each.name === values.strategy);
    const strategy = block("strategy") && row;
    const temperature = strategy?.temperature ? values.temperature : null;
    showOnChip(block("model")?.querySelector("input")?.value, strategy?.label, temperature);
  }

  function showOnChip(model, ...rest) {
    const chip = document.getElementById("chip");
    const parts = [model, rest.map((part) => part ?? "").filter(String).map((part) => ` · ${part}`).join("")];
    if (chip.textContent !== parts.join("") || chip.children.length < 2) { // else a press would lose what it is on
      const span = (text) => Object.assign(document.createElement("span"), { textContent: text });
      chip.replaceChildren(...parts.map(span));
    }
    chip.setAttribute("aria-label", filled(texts.chip, { state: chip.textContent }));
    chip.setAttribute("aria-haspopup", "dialog");
    chip.setAttribute("aria-expanded", isOpen());
  }

  function reset(which) {
    asked = which;
    document.getElementById("reset").click();
  }

  /* The list of strategies: a heading over each group, and half a line beside each name. */
  function annotate() {
    let group = "";
    for (const option of block("strategy")?.querySelectorAll("li[data-index]") ?? []) {
      const row = known.strategies[option.dataset.index];
      option.toggleAttribute("data-first", row.group !== group);
      option.dataset.group = group = row.group;
      option.dataset.hint = row.hint;
      option.setAttribute("aria-description", `${row.hint} (${row.group})`);
    }
    const chosen = block("strategy")?.querySelector("li.selected");
    if (chosen && chosen.closest("ul").dataset.seen !== chosen.dataset.index) {
      const list = chosen.closest("ul");
      list.dataset.seen = chosen.dataset.index;
      list.scrollTop = chosen.offsetTop - list.clientHeight / 2;
    }
  }

  /* A narrow page has the settings in a drawer. */
  const isOpen = () => document.body.hasAttribute("data-settings");
  function open() {
    document.body.dataset.settings = "open";
    panel().setAttribute("role", "dialog");
    panel().setAttribute("aria-label", texts.title);
    for (const beside of document.querySelectorAll("#title, #conversation, footer")) beside.inert = true;
    document.getElementById("chip").setAttribute("aria-expanded", "true");
    panel().focus();
  }
  function close() {
    if (!isOpen()) return;
    delete document.body.dataset.settings;
    panel().removeAttribute("role");
    for (const beside of document.querySelectorAll("#title, #conversation, footer")) beside.inert = false;
    const chip = document.getElementById("chip");
    chip.setAttribute("aria-expanded", "false");
    chip.focus();
  }
  matchMedia(touch).addEventListener("change", close);
  document.addEventListener("click", (event) => {
    const on = (selector) => event.target.closest?.(selector);
    if (!event.isTrusted) return; // a script pressed a hidden button
    if (isOpen() && (!panel().contains(event.target) || on("#close-settings"))) close();
    else if (on("#chip")) open();
    else if (on("#reset-all")) {
      reset(changed());
      panel().focus(); // the pressed button goes
    }
  });
  document.addEventListener("keydown", (event) => {
    const list = event.target.getAttribute?.("aria-expanded") === "true" && event.target.role === "combobox";
    if (event.key !== "Escape" || event.isComposing || list || !isOpen()) return;
    event.stopPropagation();
    close();
  }, true);
  /* Beside an option, Gradio takes a click in a list as no choice. */
  document.addEventListener("mousedown", (event) => {
    if (!event.target.closest?.("ul.options, ul[role=listbox]") || event.target.dataset.index) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);
  /* A list's box selects its text when it gets the focus; to release the mouse would put the cursor into it again. */
  document.addEventListener("mousedown", (event) => {
    const box = event.target;
    if (box.role !== "combobox" || box === document.activeElement || event.button) return;
    event.preventDefault();
    box.focus();
  });

  /* Until the server has sent the values of a chosen model, a conversation or a file, those of before are on the page. */
  function arrived(source) {
    coming.delete(source);
    if (!coming.size) for (const each of waiting.splice(0)) each();
  }

  let watched = null;
  function watch() {
    if (watched === panel()) return;
    watched = panel();
    watched.tabIndex = -1;
    let due = 0;
    new MutationObserver((changes) => {
      if (changes.some((change) => change.target.closest?.("ul[role=listbox], #setting-strategy .wrap"))) annotate();
      due ||= requestAnimationFrame(() => { due = 0; mark() });
    }).observe(watched, { childList: true, subtree: true, attributeFilter: ["data-index"] });
  }

  return {
    /* Takes the usual values of the model and then those of all settings, in their order. */
    show(forModel, ...now) {
      usual = forModel ?? {};
      values = Object.fromEntries(names.map((name, i) => [name, now[i]]));
      if (panel()) { watch(); mark() }
      contextGauge.ask();
      return [];
    },
    /* The model, the strategy, and all that the visitor has changed. */
    chosen: () => Object.fromEntries(["model", "strategy", ...changed()].filter((name) => name in values).map((name) => [name, values[name]])),
    modelChosen(...given) {
      coming.add("model");
      return given;
    },
    modelChanged() {
      arrived("model");
      return [];
    },
    /* Those of a conversation or a file take the place of all that is set, so nothing can be set until they are there. */
    awaitAll() {
      panel().inert = true;
      coming.add("all");
    },
    allArrived() {
      panel().inert = false;
      arrived("all");
      return [];
    },
    /* Now, or when the values that are on their way are on the page. */
    afterValues(act) {
      if (coming.size) waiting.push(act);
      else act();
    },
    /* The arguments of the reset that was asked for: the names of the settings come first. */
    toReset(_, ...others) {
      const which = asked;
      asked = null;
      return [which ?? [], ...others];
    },
  };
})();
