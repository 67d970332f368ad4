/* What the views draw with: elements whose text is text, never HTML, and figures as people read them. */
window.drawing = (() => {
  const filled = (text, places) => text.replace(/\{(\w+)\}/g, (_, place) => places[place]);
  function make(tag, values = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(values)) {
      if (name in made) made[name] = value;
      else if (value !== undefined && value !== null) made.setAttribute(name, value);
    }
    made.append(...children.filter((each) => each !== null && each !== undefined));
    return made;
  }
  const theirs = (tag, values, text) => make(tag, { translate: false, dir: "auto", ...values }, text);


  /* A probability, from its logarithm. */
  function share(logprob) {
    if (logprob === undefined || logprob === null) return "—";
    const percent = 100 * Math.exp(logprob);
    if (percent >= 99.95) return "100%";
    if (percent < 0.001) return "<0.001%";
    return `${percent >= 10 ? percent.toFixed(1) : percent.toPrecision(2)}%`;
  }
  const number = (value) => value === undefined || value === null ? "—" : Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);

  /* The text of a token, so that blank space is seen. */
  function named(text, texts) {
    if (!text) return `(${texts.part})`;
    if (!text.trim()) return text.replaceAll("\n", "↵").replaceAll(" ", "␣").replaceAll("\t", "⇥");
    return text.replaceAll("\n", "↵").replace(/^ /, "␣");
  }

  /* An element of a drawing; numbers are rounded to tenths of a pixel. */
  function svg(tag, values = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(values))
      if (value !== undefined && value !== null) made.setAttribute(name, typeof value === "number" ? Math.round(value * 10) / 10 : value);
    made.append(...children);
    return made;
  }
  /* Buttons of which one is pressed, each with what it shows. */
  function parts(name, choices) {
    const buttons = choices.map(([label], index) => make("button", { type: "button", "aria-pressed": index === 0, onclick: () => show(index) }, label));
    const drawn = new Map();
    const group = make("div", { className: "parts", role: "group", "aria-label": name }, ...buttons);
    const place = make("div", { className: "part" });
    function show(index) {
      if (!drawn.has(index)) drawn.set(index, choices[index][1]());
      buttons.forEach((each, i) => each.setAttribute("aria-pressed", String(i === index)));
      place.replaceChildren(drawn.get(index));
      drawn.get(index).shown?.();
    }
    show(0);
    return [choices.length > 1 ? group : null, place];
  }
  return { make, theirs, filled, share, named, number, svg, parts };
})();
