/* The comparison on the page: its columns are edited here, asked for, stopped and kept. compare_view.js draws them.

`?view=compare` opens it. A column is named by its number, `2.temperature=1.2`; a setting without a number is that of all
columns: `?view=compare&prompt=…&seed=7&1.strategy=greedy&2.strategy=sampling`. With `run=1` it is asked at once, where
that costs no GPU time. The server gets the columns as they are here, and sends the comparison so far (`received`). */
window.compare = (() => {
  const { make, filled } = compareView, PAUSE = 300; // ms
  const press = (name) => document.getElementById(name).click();
  const { compare: first, settings: panel } = JSON.parse(document.getElementById("panel-data").textContent);
  const copy = (value) => JSON.parse(JSON.stringify(value));
  const labels = Object.fromEntries(Object.entries(panel).map(([name, { label }]) => [name, label]));
  let known = null, texts = {}, view = null, drawing = null, opener = null;
  let shared = {}, columns = [], data = null, again = false, withBefore = true, differ = false, seconds = 0, due = 0, atOnce = false;
  let number = 0, checks = 0, running = false, toStop = null, fromConversation = false;

  function button(name, label, click, text = label) {
    const made = make("button", { type: "button", className: name, onclick: click, title: label }, text);
    made.setAttribute("aria-label", label);
    return made;
  }
  function labelled(element, label) {
    element.setAttribute("aria-label", label);
    return element;
  }
  function select(options, value, label, change) {
    const groups = new Map();
    const made = labelled(make("select", { onchange: () => change(made.value) }), label);
    for (const [name, text, group] of options) {
      const option = make("option", { value: name, selected: name === value }, text);
      if (group && !groups.has(group)) {
        groups.set(group, make("optgroup", { label: group }));
        made.append(groups.get(group));
      }
      (groups.get(group) ?? made).append(option);
    }
    return made;
  }

  /* ---- the columns as they are asked for: `shared` are the settings of all of them, `columns` those of each ---- */
  const general = () => Object.keys(known.settings).filter((name) => !Object.values(known.uses).some((uses) => uses.includes(name)));
  const whole = (column) => ({ ...shared, ...column });
  const strategyOf = (column) => whole(column).strategy ?? "sampling";
  const takes = (column, name) => name === "model" || known.uses[strategyOf(column)]?.includes(name) || general().includes(name);
  const asked = (column) => Object.fromEntries(Object.entries(whole(column)).filter(([name]) => name === "strategy" || takes(column, name)));
  const empty = (column) => ({
    settings: whole(column), model: "", strategy: "", text: "", thought: "", beams: [], status: "", notices: [], finish: null, error: "", figures: {}, stored: null, idle: true,
  });

  function fill(all, each) {
    shared = copy(all);
    columns = each.slice(0, known.max).map(copy);
    data = { columns: columns.map(empty), notices: [], scored_by: "" };
    redraw();
    check();
  }
  function add() {
    if (columns.length >= known.max) return;
    columns.push(copy(columns.at(-1)));
    data.columns.push(empty(columns.at(-1)));
    redraw();
    check();
  }
  function remove(at) {
    columns.splice(at, 1);
    data.columns.splice(at, 1);
    redraw();
    check();
  }
  function present() {
    const { model, strategy = "sampling", ...changed } = settingsPanel.chosen();
    return [{ model, ...changed }, [{ strategy }, { strategy: strategy === "greedy" ? "sampling" : "greedy" }]];
  }

  /* ---- drawing ---- */
  function field(of, name, redo) {
    const value = of[name], { label, kind, low, high, step, whole: isWhole, choices } = described(name);
    const set = (to) => { of[name] = to; check() };
    let box;
    if (kind === "choice") box = select(choices, value, label, set);
    else if (kind === "switch") box = make("input", { type: "checkbox", checked: Boolean(value), onchange: () => set(box.checked) });
    else if (kind === "text") box = make("textarea", { rows: 1, value: value ?? "", maxLength: high, oninput: () => set(box.value) });
    else box = make("input", { type: "number", min: low, max: high, step: step ?? (isWhole ? 1 : "any"), value: value ?? "", oninput: () => set(box.value === "" ? null : Number(box.value)) });
    const line = make("label", { className: "field" }, make("span", {}, label), box);
    line.dataset.kind = kind;
    return make("div", { className: "setting" }, line, button("without", filled(texts.without, { label }), () => {
      delete of[name];
      redo();
      check();
    }, "×"));
  }
  function described(name) {
    if (name === "model") return { label: labels.model, kind: "choice", choices: known.models };
    const { choices, ...rest } = known.settings[name];
    return { ...rest, choices: choices.map((each) => [each, each]) };
  }
  /* The list from which a setting is added to `of`. */
  function adder(of, names, redo) {
    const more = names.filter((name) => !(name in of)).map((name) => [name, described(name).label]);
    const made = select([["", texts.setting], ...more], "", texts.setting, (name) => {
      of[name] = name === "model" ? known.default : known.settings[name].default ?? (name === "seed" ? 7 : "");
      redo().querySelector(`.setting:nth-last-of-type(1) :is(input, textarea, select)`)?.focus();
      check();
    });
    made.className = "add-setting";
    return made;
  }
  const heads = [], feet = [];
  function head(at) {
    const column = columns[at], redo = () => head(at);
    const strategy = select(known.strategies, strategyOf(column), labels.strategy, (name) => { column.strategy = name; redo(); check() });
    const out = button("remove", filled(texts.remove, { count: at + 1 }), () => remove(at), "✕");
    const names = ["model", ...Object.keys(known.settings)].filter((name) => takes(column, name) && (name !== "model" || known.models.length > 1));
    heads[at].replaceChildren(
      make("div", { className: "choices" }, strategy, adder(column, names, redo), out),
      ...Object.keys(column).filter((name) => name !== "strategy" && takes(column, name)).map((name) => field(column, name, redo)),
      make("p", { className: "refused" }));
    lock();
    return heads[at];
  }
  /* The settings of all columns, but for those that each of them has for itself, or none takes. */
  function showShared() {
    const box = view.querySelector(".shared"), names = ["model", ...Object.keys(known.settings)];
    const seen = (name) => columns.some((each) => !(name in each) && takes(each, name));
    box.replaceChildren(make("span", { className: "name" }, texts.shared),
      ...Object.keys(shared).filter((name) => name !== "strategy" && seen(name)).map((name) => field(shared, name, showShared)), adder(shared, names.filter(seen), showShared));
    lock();
    return box;
  }
  function redraw() {
    heads.length = feet.length = 0;
    const options = {
      texts: { ...known.view, column: texts.column }, labels,
      head: (at) => [(heads[at] = make("div", { className: "head" }))],
      foot: (at) => [(feet[at] = make("div", { className: "foot" },
        button("stop", texts.stop_one, () => stop(at)), button("keep", texts.keep, () => keep(at))))],
    };
    const made = compareView.draw(data, options);
    drawing?.replaceWith(made);
    drawing = made;
    columns.forEach((_, at) => head(at));
    showShared();
    show();
  }
  function show() {
    compareView.update(drawing, data, { differ });
    columns.forEach((_, at) => {
      const { finish, error, stored, idle } = data.columns[at];
      feet[at].querySelector(".stop").hidden = !running || Boolean(finish || error || idle);
      feet[at].querySelector(".keep").hidden = !stored || !finish || running;
      feet[at].hidden = [...feet[at].children].every((each) => each.hidden);
    });
    const scored = data.scored_by ? [filled(texts.scored, { model: data.scored_by })] : [];
    const spent = data.gpu_seconds ? [filled(texts.asked, { count: data.gpu_seconds })] : [];
    say("state", [...data.notices, ...scored, ...spent]);
    lock();
  }
  /* While columns run, they are not changed. */
  function lock() {
    view.toggleAttribute("data-running", running);
    for (const each of view.querySelectorAll(":is(.head, .shared, .tools) :is(select, input, textarea, button):not(.free)"))
      each.disabled = running || (each.matches(".remove") && columns.length <= known.min) || (each.matches(".add") && columns.length >= known.max);
    view.querySelector(".shared").tabIndex = running ? 0 : -1;  // it may scroll, and nothing in it can have the focus
    const go = view.querySelector(".go"), name = running ? texts.stop : texts.run;
    if (go.textContent !== name) go.replaceChildren(name);
    go.classList.toggle("stops", running);
  }
  const said = {};
  function say(about, sentences) {
    said[about] = sentences;
    const all = Object.values(said).flat();
    const box = view.querySelector(".says");
    if (box.dataset.says !== JSON.stringify(all)) {
      box.dataset.says = JSON.stringify(all);
      box.replaceChildren(...all.map((each) => make("p", {}, each)));
    }
  }

  /* ---- asking ---- */
  const question = () => view.querySelector(".question").value;
  function before() {
    const { messages } = conversations.present();
    if (!fromConversation) return messages.length && withBefore ? messages : [];
    return again ? messages.slice(0, messages.findLastIndex((each) => each.role === "user")) : messages;
  }
  function request() {
    const { ids } = conversations.present();
    return { number, message: question(), messages: before(), columns: columns.map(asked), ids };
  }
  /* Asks the server a moment after the last change what it says of it. */
  function check() {
    clearTimeout(due);
    checks += 1;
    due = setTimeout(() => press("check-comparison"), PAUSE);
  }
  function checked(found) {
    if (running || found?.check !== checks) return;  // of what is asked by now
    seconds = found.seconds ?? 0;
    (found.errors ?? []).forEach((error, at) => {
      const line = heads[at]?.querySelector(".refused");
      if (line) line.textContent = error;
    });
    say("seconds", seconds ? [filled(texts.seconds, { count: seconds })] : []);
    if (atOnce && !found.refusal && !seconds) run();
    atOnce = false;
  }
  function run() {
    clearTimeout(due);
    number += 1;
    running = true;
    data = { columns: columns.map((each) => ({ ...empty(each), idle: false })), notices: [], scored_by: "" };
    for (const line of view.querySelectorAll(".refused")) line.textContent = "";
    say("seconds", []);
    say("refusal", []);
    view.querySelector(".announced").textContent = "";
    show();
    press("run-comparison");
  }
  function received({ comparison, state, refusal }) {
    if (comparison !== number) return;
    if (refusal) {
      say("refusal", [refusal]);
      data.columns.forEach((each) => { each.idle = true });
      ended();
    } else if (state.columns.length === columns.length) {
      data = state;
      show();
    }
  }
  function ended() {
    if (!running) return [];
    running = false;
    if (!data.over && !said.refusal.length) {
      say("refusal", [texts.refused]);
      for (const each of data.columns) if (!each.finish && !each.error) each.finish = "stopped";
    }
    show();
    if (data.over) view.querySelector(".announced").textContent = texts.over;
    return [];
  }
  function stop(at = null) {
    toStop = at;
    press("stop-comparison");
  }
  async function keep(at) {
    const column = data.columns[at];
    const settings = { model: known.default, strategy: strategyOf(columns[at]), ...asked(columns[at]) };
    await conversations.keep({ question: data.question ?? question(), again, column, settings, anew: !before().length && !again });
    close();
  }

  /* ---- the view ---- */
  function lessons() {
    return known.lessons.map((lesson) => make("button", { type: "button", className: "lesson", title: lesson.says, onclick: () => teach(lesson) }, lesson.title));
  }
  function teach(lesson) {
    const { model } = settingsPanel.chosen();
    open();
    again = fromConversation = withBefore = false;
    view.querySelector(".question").value = lesson.question;
    say("lesson", [lesson.says]);
    say("before", []);
    atOnce = true;
    fill({ model, ...lesson.shared }, lesson.columns);
  }
  function sweep() {
    const names = Object.keys(known.settings).filter((name) => known.settings[name].sweep);
    const from = labelled(make("input", { type: "number", step: "any" }), texts.from), to = labelled(make("input", { type: "number", step: "any" }), texts.to);
    const count = labelled(make("input", { type: "number", min: known.min, max: known.max, value: 4 }), texts.columns);
    const choose = (name) => [from.value, to.value] = known.settings[name].sweep;
    const which = select(names.map((name) => [name, known.settings[name].label]), "temperature", texts.sweep, choose);
    choose("temperature");
    const go = button("fill", texts.fill, () => {
      const { whole: isWhole, low, high } = known.settings[which.value], many = Math.min(known.max, Math.max(known.min, Number(count.value) || known.min));
      const values = Array.from({ length: many }, (_, i) => Number(from.value) + (i * (to.value - from.value)) / (many - 1));
      const bounded = values.map((value) => Math.min(high, Math.max(low, isWhole ? Math.round(value) : Number(value.toFixed(3)))));
      const base = whole(columns[0] ?? {}), { [which.value]: _, strategy, ...rest } = base;
      const uses = known.strategies.map(([name]) => name).filter((name) => known.uses[name].includes(which.value));
      const by = !uses.length || uses.includes(strategy) ? strategy : uses[0];
      fill(rest, bounded.map((value) => ({ strategy: by, [which.value]: value })));
      box.open = false;
    });
    const line = make("div", { className: "line" }, which, make("span", {}, texts.from), from, make("span", {}, texts.to), to, count, make("span", {}, texts.columns), go);
    const box = make("details", { className: "sweep" }, make("summary", {}, texts.sweep), make("div", { className: "drawer" }, make("p", {}, texts.sweep_help), line));
    return box;
  }
  function build() {
    const box = labelled(make("textarea", { className: "question", rows: 1, placeholder: texts.placeholder, oninput: () => { say("lesson", []); check() } }), texts.ask);
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!running && box.value.trim()) run();
    });
    const go = make("button", { type: "button", className: "go", onclick: () => (running ? stop() : run()) });
    const switched = make("input", { type: "checkbox", className: "free", onchange: () => { differ = switched.checked; show() } });
    drawing = make("div");
    view = labelled(make("section", { id: "compare", hidden: true },
      make("div", { className: "top" }, button("back", texts.back, close, "← " + texts.back), labelled(make("div", { className: "lessons" }, ...lessons()), texts.lessons)),
      make("div", { className: "ask" }, box, go),
      make("div", { className: "tools" }, sweep(), button("add", texts.add, add), make("label", { className: "differ" }, switched, texts.differences),
        make("div", { className: "files" }, savedView.buttons("compare", { saved, rows, figure }), button("link free", texts.link, copyLink))),
      labelled(make("div", { className: "shared" }), texts.shared),
      make("div", { className: "says" }), drawing, make("p", { className: "announced" })), texts.run);
    view.querySelector(".back").replaceChildren("← ", make("span", {}, texts.back));
    for (const group of [".lessons", ".shared"]) view.querySelector(group).setAttribute("role", "group");
    view.querySelector(".says").setAttribute("role", "status");
    view.querySelector(".announced").setAttribute("role", "status");
    document.getElementById("desk").append(view);
  }
  /* Reads what is only needed here. */
  async function load() {
    if (known) return;
    const answer = await (await fetch("compare.json")).json();
    if (known) return;
    known = answer;
    texts = known.texts;
    build();
  }
  const isOpen = () => document.body.dataset.view === "compare";
  function open() {
    opener = document.activeElement;
    document.body.dataset.view = "compare";
    view.hidden = false;
    if (matchMedia("(pointer: fine)").matches) view.querySelector(".question").focus({ preventScroll: true });
  }
  function close() {
    if (running) stop();
    delete document.body.dataset.view;
    view.hidden = true;
    (opener?.isConnected && opener.checkVisibility() ? opener : document.querySelector("#message textarea"))?.focus({ preventScroll: true });
  }
  /* From the conversation: with the text in the box or, if it is empty, with the last question. */
  async function fromBox() {
    await load();
    open();
    if (running) return;
    const { messages, draft } = conversations.present(), last = messages.findLast((each) => each.role === "user");
    again = !draft.trim() && Boolean(last);
    fromConversation = true;
    const text = again ? last.content : draft;
    const box = view.querySelector(".question");
    say("lesson", []);
    say("before", again ? [texts.again] : messages.length ? [texts.before] : []);
    if (box.value === text && columns.length) return;
    box.value = text;
    fill(...present());
  }

  /* ---- links ---- */
  async function fromAddress() {
    const query = new URLSearchParams(location.search);
    if (query.get("view") !== "compare") return;
    await load();
    const all = {}, own = [], unknown = new Set();
    for (const [key, value] of query) {
      if (["view", "prompt", "run", "embed", "lang"].includes(key) || key.startsWith("__")) continue;
      const [, place, name] = /^(?:(\d+)\.)?(.+)$/.exec(key);
      if (!["model", "strategy"].includes(name) && !known.settings[name]) unknown.add(name);
      else if (place) (own[place - 1] ??= {})[name] = typed(name, value);
      else all[name] = typed(name, value);
    }
    const count = Math.max(own.length, 0);
    const wrong = count < known.min || count > known.max;
    open();
    again = fromConversation = withBefore = false;
    view.querySelector(".question").value = query.get("prompt") ?? "";
    atOnce = query.get("run") === "1" && Boolean(query.get("prompt")) && !wrong;
    const [usual, two] = present();
    fill({ ...(wrong && usual), ...all }, wrong ? two : Array.from({ length: count }, (_, i) => own[i] ?? {}));
    const names = [...unknown].map((name) => `“${name.slice(0, 40)}”`).join(", ");
    say("address", [...(unknown.size ? [filled(texts.unknown_setting, { names })] : []), ...(wrong && (count || Object.keys(all).length) ? [texts.few] : [])]);
  }
  function typed(name, value) {
    const kind = known.settings[name]?.kind;
    if (kind === "switch") return ["1", "true"].includes(value);
    return kind === "number" && value !== "" && Number.isFinite(Number(value)) ? Number(value) : value;
  }
  const saved = () => ({ title: texts.run, about: question(), data: copy(data), texts: { ...known.view, column: texts.column }, labels });
  /* As a file of the view has it, with the names of the columns. */
  function figure() {
    const made = make("div", { className: "figure" }, compareView.draw(data, { texts: saved().texts, labels }));
    view.append(made);
    return made;
  }
  function rows() {
    const names = [...new Set(data.columns.flatMap((each) => Object.keys(each.figures)))];
    const settings = [...new Set(data.columns.flatMap((_, at) => compareView.distinguishing(data, at).map(([name]) => name)))];
    return [["model", "strategy", ...settings, ...names, "text"], ...data.columns.map((each) =>
      [each.model, each.strategy, ...settings.map((name) => each.settings?.[name]), ...names.map((name) => each.figures[name]), each.text])];
  }
  async function copyLink() {
    const link = new URL(location.pathname, location.origin);
    link.searchParams.set("view", "compare");
    if (question()) link.searchParams.set("prompt", question());
    for (const [name, value] of Object.entries(shared))
      if (columns.some((each) => !(name in each) && (name === "strategy" || takes(each, name)))) link.searchParams.set(name, value ?? "");
    columns.forEach((each, at) => {
      const own = Object.entries(each).filter(([name]) => name === "strategy" || takes(each, name));
      for (const [name, value] of own.length ? own : [["strategy", strategyOf(each)]]) link.searchParams.set(`${at + 1}.${name}`, value ?? "");
    });
    await navigator.clipboard.writeText(String(link));
    say("address", [texts.copied]);
  }

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing || !isOpen()) return;
    event.preventDefault();
    event.stopPropagation();
    if (running) stop();
    else close();
  }, true);

  return {
    start() {
      const opens = make("button", { type: "button", id: "open-compare", onclick: fromBox }, first.run);
      document.getElementById("under").append(opens);
      fromAddress();
      return [];
    },
    /* Opens the lesson that the first pill of the empty page names; whether this is its title. */
    lesson(title) {
      if (title !== first.lesson) return false;
      load().then(() => teach(known.lessons.find((each) => each.title === title)));
      return true;
    },
    data: () => copy(data),
    asked: () => [request()],
    toCheck: () => [{ ...request(), check: checks }],
    toStop: () => [toStop],
    checked, received, ended,
  };
})();
