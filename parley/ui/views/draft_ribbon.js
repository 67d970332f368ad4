/* Draws speculative decoding as a ribbon of passes: a function of `passes` (events.SpeculativePass) to an element. */
window.draftRibbon = (() => {
  const { make, theirs, filled, named } = drawing;

  function draw(passes, { texts }) {
    const sum = (of) => passes.reduce((total, each) => total + of(each), 0);
    const drafted = sum((each) => (each.drafts ?? []).length), accepted = sum((each) => each.accepted ?? 0);
    const tokens = accepted + passes.filter((each) => each.token).length;
    const bar = (label, count, kind) => {
      const made = make("div", { className: `count ${kind}` }, make("span", {}, label), make("b", {}, filled(texts.passes_count, { count })));
      made.style.setProperty("--share", `${(100 * count) / Math.max(1, tokens, passes.length)}%`);
      return made;
    };
    const token = (kind, text, label) => theirs("span", { className: kind, title: label }, named(text, texts));
    const ribbon = passes.map((each, index) => {
      const drafts = each.drafts ?? [], kept = each.accepted ?? 0;
      const made = make("li", {}, make("span", { className: "number", "aria-hidden": "true" }, String(index + 1)),
        ...drafts.map((text, i) => token(i < kept ? "accepted" : "rejected", text, i < kept ? texts.accepted : texts.rejected)),
        each.token ? token("own", each.token, texts.own) : null);
      made.setAttribute("aria-label", filled(texts.pass, { count: index + 1, drafted: drafts.length, accepted: kept }));
      return made;
    });
    const legend = make("p", { className: "kinds" }, ...["accepted", "rejected", "own"].map((kind) => make("span", { className: kind }, texts[kind])));
    return make("div", { className: "draft-ribbon" },
      make("div", { className: "counts" }, bar(texts.with_drafts, passes.length, "with"), bar(texts.plain, tokens, "plain")),
      make("p", { className: "sum" }, filled(texts.saved, { count: Math.max(0, tokens - passes.length) }), " ", filled(texts.kept, { accepted, drafted })),
      legend, make("ol", { className: "ribbon", tabIndex: 0 }, ...ribbon));
  }
  /* The passes as a table with a row for each token. */
  function rows(passes) {
    const of = (each) => [...(each.drafts ?? []).map((text, i) => [text, i < (each.accepted ?? 0) ? "accepted" : "rejected"]), ...(each.token ? [[each.token, "own"]] : [])];
    return [["pass", "text", "kind"], ...passes.flatMap((each, index) => of(each).map((row) => [index + 1, ...row]))];
  }
  return { draw, rows };
})();
