/* The next token of the text so far, in the place of the conversation: its distribution, drawn again as settings change.

   The server (views/next_token.py) is asked for one thing at a time; what changes meanwhile is asked for after that. The
   settings are those of the panel. Where it is a drawer, the view has the sliders of the distribution too. */
window.nextToken = (() => {
  const { next: texts, sliders, settings: known } = JSON.parse(document.getElementById("panel-data").textContent);
  const { make, theirs, filled, share, named } = drawing;
  let start = null, data = null, parts = null, seed = 0, hides = false, seen = false;
  let asked = null, number = 0, busy = false, again = null, began = 0;

  const button = (label, press, kind = "press") => make("button", { type: "button", className: kind, onclick: press }, label);
  const ids = () => data?.ids ?? start.given;
  const settings = () => {
    const now = { ...conversations.now(), ...start.settings };
    return { ...now, seed: [null, undefined, ""].includes(now.seed) ? seed : now.seed };
  };

  /* `begins`: the messages before, what is stored of the answer, and the tokens of it so far. */
  function open(begins, from) {
    [start, data, seen, again] = [begins, null, false, null];
    seed = begins.stored?.settings?.seed ?? Math.floor(Math.random() * 2 ** 32);
    const text = make("p", { className: "so-far", tabIndex: 0, role: "region", "aria-label": texts.so_far });
    const typed = make("input", { type: "text", placeholder: texts.type, "aria-label": texts.type, onkeydown: enter(force) });
    const guess = make("input", { type: "text", placeholder: texts.guess, "aria-label": texts.guess, onkeydown: enter(look) });
    const hide = make("input", { type: "checkbox", checked: hides, onchange: () => { hides = hide.checked; seen = false; draw() } });
    const step = button(texts.draw, () => take(data.score.id), "press strong"), back = button(texts.take_back, takeBack);
    const rows = () => [["id", "text", "logprob", "after", "removed_by"], ...data.score.candidates.map((each) => [each.id, each.text, each.logprob, each.after, each.removed_by])];
    const files = savedView.buttons("next", { rows, figure: () => parts.bars.firstElementChild });
    const force_ = button(texts.add, force), tries = make("div", { className: "line guess" }, guess, button(texts.check, look));
    const said = make("p", { className: "said", role: "status" }), bars = make("div", { className: "bars-place" }), knobs = make("div", { className: "knobs" });
    const on = button(texts.on, writeOn);
    const lines = [make("div", { className: "line" }, step, back, make("label", { className: "hide" }, hide, texts.hide), on, make("span", { className: "files" }, files)), make("div", { className: "line" }, typed, force_), tries, said, knobs, bars];
    parts = { text, typed, guess, step, back, tries, said, bars, on, force_, knobs };
    choices.open(texts.title_next, [make("div", { className: "next-token" }, text, ...lines)], from, closed);
    [tries.hidden, back.disabled] = [!hides, !start.given.length];
    drawKnobs();
    panelChanges.observe(document.getElementById("settings"), { childList: true, subtree: true });
    ask();
    step.focus({ preventScroll: true });
  }
  const closed = () => {
    start = null;
    panelChanges.disconnect();
  };
  const enter = (act) => (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    act();
  };

  /* ---- the server ---- */
  function ask(more = {}) {
    if (!start) return;
    if (busy) { again = { ...again, ...more }; return }
    [busy, again, began] = [true, null, performance.now()];
    number += 1;
    const { messages, stored } = start;
    asked = { number, messages, stored, given: more.given ?? ids(), forced: more.forced ?? "", guess: more.guess ?? "", settings: settings(), spends: more.spends };
    document.getElementById("read-next").click();
  }
  function found(answer) {
    if (answer?.number !== number) return [];
    busy = false;
    if (!start) return [];
    if (answer.error) parts.said.replaceChildren(answer.error);
    else if (answer.seconds) offerGpu(answer.seconds);
    else {
      data = { ids: [], ...answer };
      if (asked.guess) guessed();
      else if (asked.forced || !seen) parts.said.replaceChildren();
      draw();
    }
    if (again) ask(again);
    return [];
  }
  /* Seconds of the visitor's GPU time are spent only after a click. */
  function offerGpu(count) {
    const { given, forced, guess } = asked;
    const look = button(texts.read, () => {
      parts.said.replaceChildren();
      ask({ given, forced, guess, spends: true });
    });
    parts.said.replaceChildren(filled(texts.seconds, { count }), " ", look);
  }
  function failed() {
    busy = false;
    parts?.said.replaceChildren(texts.failed);
    return [];
  }

  /* ---- what a visitor does ---- */
  function take(id) {
    if (busy || !data || data.ended) return;
    seen = false;
    ask({ given: [...ids(), id] });
  }
  function takeBack() {
    if (busy || !ids().length) return;
    seen = false;
    ask({ given: ids().slice(0, -1) });
  }
  function force() {
    if (!parts.typed.value) return;
    seen = false;
    ask({ forced: parts.typed.value });
    parts.typed.value = "";
  }
  function look() {
    if (parts.guess.value) ask({ guess: parts.guess.value });
  }
  function guessed() {
    const { guess } = data;
    seen = true;
    parts.guess.value = "";
    const token = named(guess?.text ?? "", data.texts);
    parts.said.replaceChildren(filled(texts.guessed, { token, share: share(guess?.logprob), rank: guess?.rank }));
  }
  function writeOn() {
    const given = ids(), now = settings(), begins = start;
    choices.close();
    conversations.writeOn({ ...begins, settings: now, given });
  }

  /* ---- what they see ---- */
  function draw() {
    if (!data) return;
    const pieces = (data.pieces ?? data.ids.map(() => "")).map((piece, i) => theirs("span", { className: i === data.ids.length - 1 ? "token last" : "token" }, piece || "▫"));
    const question = start.messages.findLast((each) => each.role === "user");
    const asks = question ? theirs("span", { className: "asked" }, `${typeof question.content === "string" ? question.content : question.content.map((part) => part.text ?? "").join("")}\n`) : "";
    parts.text.replaceChildren(asks, ...pieces, make("i", { className: "caret", "aria-hidden": "true" }));
    parts.text.scrollTop = parts.text.scrollHeight;
    const covered = hides && !seen;
    parts.tries.hidden = !hides;
    parts.bars.replaceChildren(nextView.draw(data, { texts: { ...data.texts, ...texts }, covered, choose: data.ended ? null : (each) => take(each.id) }));
    parts.step.disabled = parts.on.disabled = Boolean(data.ended);
    parts.back.disabled = !data.ids.length;
    if (data.ended) parts.said.replaceChildren(texts.ended);
    performance.measure("next token", { start: began });
  }
  /* The sliders of the panel once more, for where it is a drawer. They follow it, and it follows them. */
  const inPanel = (name) => document.querySelector(`#setting-${name} input[type="range"]`);
  function drawKnobs() {
    const shown = sliders.filter(inPanel), now = settings();
    if (shown.join() !== [...parts.knobs.children].map((each) => each.dataset.name).join()) parts.knobs.replaceChildren(...shown.map(knob));
    for (const each of parts.knobs.children) {
      if (each.contains(document.activeElement)) continue;  // it is dragged, and further on than the panel
      for (const field of each.querySelectorAll("input, output")) field.value = now[each.dataset.name];
    }
  }
  function knob(name) {
    const { min, max, step } = inPanel(name), { label } = known[name];
    const own = make("input", { type: "range", min, max, step }), says = make("output");
    const made = make("label", {}, make("span", {}, label), own, says);
    made.dataset.name = name;
    own.setAttribute("aria-label", label);
    own.addEventListener("input", () => {
      const { value } = own;
      says.value = value;
      settingsPanel.afterValues(() => {
        const range = inPanel(name);
        if (!range) return;
        range.value = value;
        range.dispatchEvent(new Event("input", { bubbles: true }));
      });
    });
    return made;
  }
  const panelChanges = new MutationObserver(() => drawKnobs());  // which settings there are follows from the strategy

  /* Below the box, for the conversation and the draft. */
  function offer() {
    const line = document.getElementById("under");
    if (!line || document.getElementById("open-next")) return;
    const made = button(texts.open, () => {
      const begins = conversations.unanswered();
      if (begins) open(begins, made);
      else document.querySelector("#message textarea")?.focus();
    }, "");
    made.id = "open-next";
    line.append(made);
  }

  return {
    open, found, failed, offer,
    asked: () => [asked],
    changed() {
      if (!start) return;
      start.settings = {};  // those of a link, which the controls have now
      drawKnobs();
      ask();
    },
    isOpen: () => Boolean(start),
  };
})();
