/* Draws a comparison: a function from its data (see comparison_stream.py) to DOM, without Gradio and without the page.

`compareView.draw(data, { texts, head, foot })` gives an element, and `compareView.update(element, data)` shows newer data
in it. `head` and `foot` take the number of a column and give nodes above and below it; without them a column is headed
by its model, its strategy and what its settings differ in. All texts of models are text, and never HTML. */
window.compareView = (() => {
  const MAX_CELLS = 4_000_000;  // of the table by which two texts are compared
  const drawn = new WeakMap();

  function make(tag, values = {}, ...children) {
    const made = Object.assign(document.createElement(tag), values);
    made.append(...children);
    return made;
  }
  const filled = (text, places) => text.replace(/\{(\w+)\}/g, (_, place) => places[place]);
  const number = (value, digits) => value.toFixed(digits);

  /* ---- differences ---- */
  const wordsOf = (text) => text.match(/\s+|[^\s]+/g) ?? [];
  const isWord = (part) => part.trim() !== "";
  /* For each word of both texts whether it is in their longest common subsequence. */
  function common(a, b) {
    const inA = new Uint8Array(a.length), inB = new Uint8Array(b.length);
    let begin = 0, endA = a.length, endB = b.length;
    while (begin < endA && begin < endB && a[begin] === b[begin]) inA[begin] = inB[begin++] = 1;
    while (endA > begin && endB > begin && a[endA - 1] === b[endB - 1]) inA[--endA] = inB[--endB] = 1;
    const rows = endA - begin, columns = endB - begin;
    if (rows * columns > MAX_CELLS) return [inA, inB];
    const length = Array.from({ length: rows + 1 }, () => new Uint16Array(columns + 1));
    for (let i = rows - 1; i >= 0; i--)
      for (let j = columns - 1; j >= 0; j--)
        length[i][j] = a[begin + i] === b[begin + j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    for (let i = 0, j = 0; i < rows && j < columns;)
      if (a[begin + i] === b[begin + j]) inA[begin + i++] = inB[begin + j++] = 1;
      else if (length[i + 1][j] >= length[i][j + 1]) i++;
      else j++;
    return [inA, inB];
  }
  /* The parts of each text, and which of them differ: from the first text or, in the first, from all others. */
  function differences(texts) {
    const parts = texts.map(wordsOf), words = parts.map((each) => each.filter(isWord));
    const shared = words.map((each) => new Uint8Array(each.length));
    for (let other = 1; other < texts.length; other++) {
      if (!words[other].length) continue;
      const [inFirst, inOther] = common(words[0], words[other]);
      inFirst.forEach((is, i) => { shared[0][i] |= is });
      shared[other] = inOther;
    }
    return parts.map((each, text) => {
      let at = 0;
      return each.map((part) => [part, isWord(part) && !shared[text][at++]]);
    });
  }
  function marked(parts) {
    const runs = [];
    for (const [part, differs] of parts) {
      const last = runs.at(-1);
      if (last && (last.differs === differs || !isWord(part))) last.text += part;
      else runs.push({ text: part, differs });
    }
    return runs.map(({ text, differs }) => {
      if (!differs) return text;
      const end = text.trimEnd();
      return [make("mark", {}, end), text.slice(end.length)];
    }).flat();
  }

  /* ---- a column ---- */
  /* Of the settings of a column, those in which the columns differ, as "name: value". */
  function distinguishing(data, at) {
    const all = data.columns.map((each) => each.settings ?? {});
    const names = Object.keys(all[at]).filter((name) => !["model", "strategy"].includes(name));
    return names.filter((name) => new Set(all.map((each) => JSON.stringify(each[name] ?? null))).size > 1)
      .map((name) => [name, all[at][name]]).filter(([, value]) => value !== null && value !== "");
  }
  function title(data, at, labels = {}) {
    const { model, strategy } = data.columns[at];
    const models = new Set(data.columns.map((each) => each.model));
    return [
      make("h3", {}, strategy || model),
      ...(strategy && models.size > 1 ? [make("p", { className: "model" }, model)] : []),
      make("p", { className: "chosen" }, distinguishing(data, at).map(([name, value]) => `${labels[name] ?? name} ${value}`).join(" · ")),
    ];
  }
  /* Rows of figures: name, value, help. What is not known is left out. */
  function figures(data, at, texts) {
    const { figures: known, stored } = data.columns[at], chunks = stored?.usage?.unit === "chunk";
    const { tokens, words } = known, is = (value) => value !== null && value !== undefined;
    const count = (value, one, many) => filled(value === 1 ? one : many, { count: value });
    const length = is(tokens) && [count(tokens, texts.token, chunks ? texts.chunks : texts.tokens), is(words) && count(words, texts.word, texts.words)];
    return [
      [texts.speed, is(known.tokens_per_second) && filled(texts.tokens_per_second, { count: number(known.tokens_per_second, 0) })],
      [texts.first, is(known.time_to_first_token) && `${number(known.time_to_first_token, 2)} s`],
      [texts.drafts, known.drafted > 0 && filled(texts.accepted, known)],
      [texts.logprob, is(known.logprob) && number(known.logprob, 2), texts.logprob_help],
      [texts.perplexity, is(known.perplexity) && number(known.perplexity, known.perplexity < 100 ? 2 : 0), texts.perplexity_help],
      [texts.bits, is(known.bits_per_byte) && number(known.bits_per_byte, 2), texts.bits_help],
      [texts.distinct, is(known.distinct_2) && number(known.distinct_2, 2), texts.distinct_help],
      [texts.repeated, is(known.repeated_4grams) && number(known.repeated_4grams, 2), texts.repeated_help],
      [texts.length, length && length.filter(Boolean).join(" · ")],
    ].filter(([, value]) => value);
  }
  /* The candidates of a beam search: what all begin with is left out. */
  function beams(column, texts) {
    if (!column.beams.length) return [];
    const words = column.beams.map((each) => each.text.split(/\s+/)), shortest = Math.min(...words.map((each) => each.length));
    let same = 0;
    while (same < shortest - 1 && words.every((each) => each[same] === words[0][same])) same++;
    return column.beams.map((each, i) => {
      const rest = make("span", { className: "rest" }, (same ? "… " : "") + words[i].slice(same).join(" "));
      rest.dataset.theirs = "";
      const item = make("li", {}, make("span", { className: "score", title: texts.score }, number(each.score, 2)), rest);
      if (each.finished) item.append(make("span", { className: "finished" }, texts.finished));
      return item;
    });
  }

  function column(at, options) {
    const { texts, head, foot } = options;
    const parts = {
      title: make("header"), status: make("p", { className: "status" }), thought: make("p", { className: "thought" }),
      text: make("div", { className: "text" }), error: make("p", { className: "error" }),
      beams: make("ol", { className: "beams", ariaLabel: texts.beam_list }), notices: make("p", { className: "notices" }), figures: make("dl"),
    };
    for (const part of ["thought", "text"]) parts[part].dataset.theirs = "";
    parts.thoughts = make("details", {}, make("summary", {}, texts.thought), parts.thought);
    parts.body = make("div", { className: "body", tabIndex: 0 }, parts.thoughts, parts.status, parts.text, parts.beams);
    parts.body.setAttribute("role", "group");
    parts.body.setAttribute("aria-label", filled(texts.column, { count: at + 1 }));
    const made = make("article", { className: "column" }, ...(head ? head(at) : [parts.title]), parts.error, parts.body,
      parts.notices, parts.figures, ...(foot ? foot(at) : []));
    return { parts, made, known: {} };
  }
  /* Shows what has changed. */
  function show(each, name, value, draw) {
    const now = JSON.stringify(value ?? null);
    if (each.known[name] === now) return;
    each.known[name] = now;
    draw(each.parts);
  }
  function follow(box, draw) {
    const atEnd = box.scrollTop + box.clientHeight > box.scrollHeight - 24;
    draw();
    if (atEnd) box.scrollTop = box.scrollHeight;
  }
  function showColumn(each, data, at, { texts, head, labels }, parts) {
    const { text, thought, status, error, finish, notices, idle } = data.columns[at], begun = text || thought;
    const ending = finish && finish !== "end" ? texts[`end_${finish.replace(" ", "_")}`] : "";
    if (!head) show(each, "title", distinguishing(data, at), ({ title: box }) => box.replaceChildren(...title(data, at, labels)));
    each.made.toggleAttribute("data-running", !finish && !error && !idle);
    show(each, "status", [status, begun, finish, error, idle], ({ status: line }) => {
      line.textContent = begun || finish || error || idle ? "" : status || texts.reading;
    });
    show(each, "thought", thought, ({ thought: line, thoughts }) => {
      line.textContent = thought;
      thoughts.hidden = !thought;
    });
    show(each, "text", parts ?? text, ({ text: box, body }) =>
      follow(body, () => box.replaceChildren(...(parts ? marked(parts) : [text]))));
    show(each, "beams", data.columns[at].beams, ({ beams: list }) => list.replaceChildren(...beams(data.columns[at], texts)));
    show(each, "error", error, ({ error: line }) => { line.textContent = error });
    show(each, "notices", [ending, ...notices], ({ notices: line }) => { line.textContent = [ending, ...notices].filter(Boolean).join(" · ") });
    show(each, "figures", figures(data, at, texts), ({ figures: list }) =>
      list.replaceChildren(...figures(data, at, texts).map(([name, value, help]) =>
        make("div", help ? { title: help } : {}, make("dt", {}, name), make("dd", {}, value)))));
  }

  function update(element, data, { differ = false } = {}) {
    const { options } = drawn.get(element);
    let { columns } = drawn.get(element);
    if (columns.length !== data.columns.length) {
      columns = data.columns.map((_, at) => column(at, options));
      element.replaceChildren(...columns.map((each) => each.made));
      drawn.set(element, { options, columns });
    }
    const parts = differ ? differences(data.columns.map((each) => each.text)) : [];
    columns.forEach((each, at) => showColumn(each, data, at, options, parts[at]));
    return element;
  }
  function draw(data, options) {
    const element = make("div", { className: "comparison" });
    drawn.set(element, { options, columns: [] });
    return update(element, data);
  }
  return { draw, update, make, filled, differences, distinguishing };
})();
