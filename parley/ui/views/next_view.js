/* Draws what may follow a text: a function of data (views/next_token.py) to an element of bars, which needs nothing else.

   The pale bar is the model's probability, the strong one what the settings leave of it. While it is `covered`, only the
   figures of the whole are seen. */
window.nextView = (() => {
  const { make, theirs, filled, share, named, svg } = drawing;
  const ENDS = [0.02, 0.05, 0.1, 0.2, 0.5, 1];  // of the scale
  const chance = (logprob) => logprob === undefined || logprob === null ? 0 : Math.exp(logprob);

  function draw(data, { texts, choose, covered = false, last = null } = {}) {
    const { score } = data, label = (setting) => data.labels?.[setting] ?? setting;
    const most = Math.max(...score.candidates.map((each) => Math.max(chance(each.logprob), chance(each.after))));
    const end = ENDS.find((each) => each >= most) ?? 1;
    const left = filled(texts.left, { count: data.kept.toLocaleString("en"), all: data.vocabulary.toLocaleString("en") });
    const facts = [left, filled(texts.entropy, { count: ((score.entropy ?? 0) / Math.LN2).toFixed(2) })];
    if (data.chain?.length) facts.push(filled(texts.chain, { settings: data.chain.map(label).join(", ") }));
    const rows = covered ? [] : score.candidates.map(row);
    const rest = 1 - score.candidates.reduce((sum, each) => sum + chance(each.logprob), 0);
    const others = covered ? null : make("li", { className: "others" }, make("span", {}, filled(texts.others, { count: (data.vocabulary - score.candidates.length).toLocaleString("en") })), make("span", {}, share(Math.log(Math.max(rest, 1e-9)))));
    const head = make("div", { className: "heads", "aria-hidden": "true" }, make("span", {}, texts.token), make("span", {}, filled(texts.scale, { share: `${100 * end}%` })), make("span", {}, texts.by_settings), make("span", {}, texts.by_model));
    return make("div", { className: "next-view" }, make("ul", { className: "facts" }, ...facts.map((fact) => make("li", {}, fact))),
      covered ? make("p", { className: "cover" }, texts.covered) : head, make("ol", { className: "bars" }, ...rows, ...(others ? [others] : [])));

    function row(each) {
      const text = named(each.text ?? "", texts), gone = each.removed_by;
      const bar = svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("rect", { class: "own", y: 0, height: 10, width: 100 * chance(each.logprob) / end }),
        svg("rect", { class: "after", y: 2, height: 6, width: 100 * chance(each.after) / end }));
      const name = theirs("span", {}, text), after = gone ? ["− ", make("span", {}, label(gone))] : [share(each.after)];
      const made = choose ? make("button", { type: "button", className: "name", onclick: () => choose(each) }, name) : make("span", { className: "name" }, name);
      if (choose) made.setAttribute("aria-label", filled(texts.take, { token: text, share: share(gone ? each.logprob : each.after) }));
      return make("li", { className: [gone ? "removed" : "", each.id === last ? "chosen" : ""].join(" ") }, made, bar, make("span", { className: "share" }, ...after), make("span", { className: "share own" }, share(each.logprob)));
    }
  }
  return { draw };
})();
