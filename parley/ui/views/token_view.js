/* Draws how the tokens of an answer were chosen: a function of data to an element, which needs nothing else of the page.

   `data` is what views/choices.py describes, `texts` its table. Where there is one, `go(index, candidate)` goes on from
   another token, and `next(index)` opens what could stand in the place of a token. What a model wrote is put into text nodes, and is marked as not to be translated. */
window.tokenView = (() => {
  const LEVELS = [0.9, 0.5, 0.2, 0.05];  // a token below the last one has the darkest tint
  const { make, theirs, filled, share, named, number } = drawing;
  const level = ({ logprob }) => LEVELS.filter((least) => Math.exp(logprob) < least).length;


  function draw(data, { texts, go, next } = {}) {
    const scores = [...data.prompt ?? [], ...data.answer ?? []], first = (data.prompt ?? []).length;
    const choice = make("section", { className: "choice", "aria-live": "polite" }, make("p", { className: "pick" }, texts.pick));
    const options = scores.map(option);
    let pinned = -1, shown = -1;

    function option(score, index) {
      const text = score.text ?? "";
      const made = theirs("span", { role: "option", className: "token", tabIndex: -1, "aria-selected": "false" }, text || "▫");
      made.dataset.level = level(score);
      made.dataset.index = index;
      if (score.control) made.dataset.control = "";
      if (text.includes("\n")) made.dataset.line = "";
      made.setAttribute("aria-label", `${named(text, texts)} ${share(score.logprob)}`);
      return made;
    }
    function mark(index) {
      options[shown]?.removeAttribute("data-shown");
      shown = index;
      options[index]?.setAttribute("data-shown", "");
      choice.replaceChildren(...described(index));
    }
    function pin(index, focus = true) {
      if (!options[index]) return;
      for (const each of options) each.tabIndex = -1;
      options[pinned]?.setAttribute("aria-selected", "false");
      pinned = index;
      options[index].setAttribute("aria-selected", "true");
      options[index].tabIndex = 0;
      if (index < first) prompt.open = true;
      if (focus) options[index].focus({ preventScroll: false });
      mark(index);
    }

    /* ---- one token ---- */
    function described(index) {
      const score = scores[index], answer = index >= first, at = answer ? index - first : index;
      const total = answer ? scores.length - first : first;
      const step = (label, by, sign) => make("button", { type: "button", className: "step", title: label, "aria-label": label,
        disabled: !options[index + by], onclick: () => pin(index + by) }, sign);
      const head = make("div", { className: "head" }, step(texts.earlier, -1, "‹"),
        theirs("strong", {}, named(score.text ?? "", texts)), step(texts.later, 1, "›"),
        make("span", { className: "place" }, filled(texts.place, { count: at + 1, all: total })));
      if (!score.candidates) return [head, make("p", { className: "says" }, texts.first)];
      const facts = [make("li", {}, filled(texts.model, { share: share(score.logprob), rank: score.rank }))];
      if (answer && changes) facts.push(make("li", {}, filled(texts.after, { share: share(score.after), rank: score.after_rank })));
      if (score.entropy !== undefined) facts.push(make("li", { title: texts.entropy_help }, filled(texts.entropy, { count: ((score.entropy ?? 0) / Math.LN2).toFixed(2) })));
      if (score.early_layer !== undefined) facts.push(make("li", {}, filled(texts.compared, { count: score.early_layer })));
      if (answer && data.passes) facts.push(make("li", {}, score.drafted ? texts.was_drafted : texts.was_own));
      if (score.control) facts.push(make("li", {}, texts.control));
      return [head, make("ul", { className: "facts" }, ...facts), table(score, index, answer), ...rivals(answer ? data.beams?.[index - first] : null), ...explained(score, index, answer)];
    }
    /* The hypotheses of a beam search at this token. */
    function rivals(nodes) {
      if (!nodes) return [];
      const rows = nodes.map((node) => make("tr", { className: node.chosen ? "chosen" : "" },
        make("th", { scope: "row" }, theirs("span", { className: "name" }, node.id < 0 ? "■" : named(node.text ?? "", texts))),
        make("td", {}, node.score.toFixed(3)), make("td", {}, node.finished ? texts.finished : "")));
      const head = make("tr", {}, ...[texts.rivals, texts.score, ""].map((name) => make(name ? "th" : "td", name ? { scope: "col" } : {}, name)));
      return [make("table", { className: "rivals" }, make("thead", {}, head), make("tbody", {}, ...rows))];
    }
    const changes = (data.chain ?? []).length > 0;
    const label = (setting) => data.labels?.[setting] ?? setting;
    function table(score, index, answer) {
      const draws = answer && score.candidates.some((each) => each.quotient !== undefined);
      const early = score.candidates.some((each) => each.early !== undefined);
      const winner = draws ? Math.max(...score.candidates.map((each) => each.quotient ?? 0)) : null;
      const columns = [[texts.token], [texts.by_model, (each) => bar(each.logprob)]];
      if (early) columns.push([filled(texts.layer, { count: score.early_layer }), (each) => bar(each.early)]);
      if (answer && changes) columns.push([texts.by_settings, (each) => each.removed_by ? gone(each) : bar(each.after)]);
      if (draws) {
        columns.push([texts.noise, (each) => number(each.noise)]);
        columns.push([texts.quotient, (each) => each.removed_by ? "—" : make(each.quotient === winner ? "b" : "span", {}, number(each.quotient))]);
      }
      if (answer && score.candidates.some((each) => each.value !== undefined)) {
        const best = Math.max(...score.candidates.map((each) => each.value ?? -Infinity));
        columns.push([texts.similarity, (each) => number(each.similarity)]);
        columns.push([texts.score, (each) => make(each.value === best ? "b" : "span", {}, number(each.value))]);
      }
      const head = make("tr", {}, ...columns.map(([name]) => make("th", { scope: "col" }, name)));
      const rows = score.candidates.map((each) => make("tr", { className: each.id === score.id ? "chosen" : each.removed_by ? "removed" : "" },
        make("th", { scope: "row" }, name(each, score, index, answer)),
        ...columns.slice(1).map(([, cell]) => make("td", {}, cell(each)))));
      return make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": texts.token },
        make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
    }
    function bar(logprob) {
      const made = make("span", { className: "bar" }, share(logprob));
      made.style.setProperty("--share", `${logprob === undefined ? 0 : 100 * Math.exp(logprob)}%`);
      return made;
    }
    const gone = (each) => make("span", { title: filled(texts.removed, { setting: label(each.removed_by) }) }, "− ", make("span", {}, label(each.removed_by)));
    function name(each, score, index, answer) {
      const text = named(each.text ?? "", texts);
      if (each.id === score.id) return make("span", { className: "name", title: texts.chosen }, theirs("span", {}, text), " ✓");
      if (!go || !answer) return theirs("span", { className: "name" }, text);
      const made = make("button", { type: "button", className: "name", onclick: () => go(index - first, each) }, theirs("span", {}, text));
      made.setAttribute("aria-label", filled(texts.go, { token: text }));
      made.title = filled(texts.go, { token: text });
      return made;
    }
    function explained(score, index, answer) {
      if (!answer) return [];
      const drew = score.candidates.some((each) => each.quotient !== undefined), weighed = score.candidates.some((each) => each.value !== undefined);
      const says = [drew ? texts.drawn : null, weighed ? texts.weighed : null, go ? texts.branch : null];
      const steps = next ? make("button", { type: "button", className: "press", onclick: () => next(index - first) }, texts.from_here) : null;
      return [...says.filter(Boolean).map((text) => make("p", { className: "says" }, text)), ...(steps ? [steps] : [])];
    }

    /* ---- the whole ---- */
    const list = (name, ...children) => make("div", { className: "tokens", role: "listbox", "aria-label": name }, ...children);
    const promptName = filled(texts.prompt, { count: first });
    const prompt = make("details", { className: "prompt", open: !data.answer?.length }, make("summary", {}, promptName),
      list(promptName, ...options.slice(0, first)));
    const scale = make("p", { className: "scale", "aria-hidden": "true" }, make("span", {}, texts.likely),
      ...[0, 1, 2, 3, 4].map((each) => make("i", { "data-level": each }, ["≥90%", "≥50%", "≥20%", "≥5%", "<5%"][each])), make("span", {}, texts.unlikely));
    const notes = [...data.notes ?? []];
    if (changes) notes.unshift(filled(texts.chain, { settings: data.chain.map(label).join(", ") }));
    if (data.rounding) notes.push(filled(texts.rounding, { share: share(Math.log(data.rounding)) }));
    const text = make("div", { className: "text" }, prompt,
      data.answer?.length ? list(texts.answer, ...options.slice(first)) : null,
      ...notes.map((note) => make("p", { className: "says" }, note)));
    const words = make("div", { className: "words" }, scale, make("div", { className: "beside" }, text, choice));
    const whole = make("div", { className: "token-view" }, ...drawing.parts(texts.parts, [
      [texts.words, () => words],
      ...(data.beams ? [[texts.tree, () => beamTree.draw(data.beams, { texts })]] : []),
      ...(data.passes ? [[texts.passes, () => draftRibbon.draw(data.passes, { texts })]] : []),
    ]).filter(Boolean));

    const at = (event) => Number(event.target.closest?.("[data-index]")?.dataset.index ?? -1);
    text.addEventListener("pointerover", (event) => { if (event.pointerType === "mouse" && at(event) >= 0) mark(at(event)) });
    text.addEventListener("pointerleave", () => { if (pinned >= 0 && shown !== pinned) mark(pinned) });
    text.addEventListener("click", (event) => { if (at(event) >= 0) pin(at(event)) });
    text.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: line(1), ArrowUp: line(-1), Home: -pinned + (pinned >= first ? first : 0), End: options.length - 1 - pinned };
      if (!(event.key in steps) || event.target.closest("summary") || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      pin(Math.min(options.length - 1, Math.max(0, pinned + steps[event.key])));
    });
    /* How many tokens further the one below or above stands. */
    function line(by) {
      const here = options[pinned]?.getBoundingClientRect();
      if (!here) return by;
      let best = 0, least = Infinity;
      for (let other = pinned + by; options[other]; other += by) {
        const box = options[other].getBoundingClientRect(), down = by * (box.top - here.top);
        if (down > 4 && least < Infinity && down > least + 4) break;
        if (down <= 4) continue;
        least = Math.min(least, down);
        const away = (each) => Math.abs(options[each].getBoundingClientRect().left - here.left);
        if (!best || away(other) < away(pinned + best)) best = other - pinned;
      }
      return best;
    }
    whole.begin = (focus) => pin(options.length > first ? first : 0, focus);
    return whole;
  }
  return { draw };
})();
