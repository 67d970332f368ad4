/* Draws a beam search as a tree: a function of its steps to an element. Each step is a column of hypotheses, best first.

   `beams` has for each step its nodes (events.BeamNode). The slider says how far the search has come: what lives there,
   with all that it goes back to, is drawn strongly, and what died on the way is pale. */
window.beamTree = (() => {
  const { make, theirs, filled, named, svg } = drawing;
  const WIDTH = 86, HEIGHT = 40, BOX = 68, TOP = 24, LETTERS = 9;

  function draw(beams, { texts }) {
    const groups = new Set(beams.flat().map((node) => node.group ?? 0));
    const most = Math.max(...beams.map((step) => step.length));
    const picture = make("div", { className: "picture", tabIndex: 0, role: "region" });
    const slider = make("input", { type: "range", min: 1, max: beams.length, value: beams.length, oninput: () => show(Number(slider.value)) });
    slider.setAttribute("aria-label", texts.step);
    const says = make("output", { className: "place" });
    const list = make("ol", { className: "hypotheses" });
    const move = (label, by, sign) => make("button", { type: "button", className: "step", title: label, "aria-label": label, onclick: () => show(Math.min(beams.length, Math.max(1, Number(slider.value) + by))) }, sign);
    const legend = groups.size > 1 ? make("p", { className: "groups" }, ...[...groups].sort().map((each) => make("span", { "data-group": each }, filled(texts.group, { count: each + 1 })))) : null;
    const whole = make("div", { className: "beam-tree" }, make("div", { className: "steps" }, move(texts.earlier_step, -1, "‹"), slider, move(texts.later_step, 1, "›"), says),
      legend, picture, list, make("p", { className: "says" }, texts.tree_says));

    /* The places of the nodes that live at a step: its own, and what they go back to. */
    function living(last) {
      const alive = beams.map(() => new Set());
      beams[last].forEach((_, index) => alive[last].add(index));
      for (let step = last; step > 0; step -= 1)
        for (const index of alive[step]) if (beams[step][index].parent >= 0) alive[step - 1].add(beams[step][index].parent);
      return alive;
    }
    function path(step, index) {
      const back = [];
      for (let at = step, place = index; at >= 0 && place >= 0; place = beams[at][place].parent, at -= 1) back.unshift(beams[at][place]);
      return back;
    }
    function show(count) {
      const last = count - 1, alive = living(last);
      slider.value = count;
      says.value = filled(texts.step_of, { count, all: beams.length });
      const room = Math.max(3, Math.floor((picture.clientWidth || 860) / WIDTH)), begin = Math.max(0, last - room + 1);
      const x = (step) => (step - begin) * WIDTH + 6, y = (index) => TOP + index * HEIGHT;
      const drawn = svg("svg", { width: (last - begin + 1) * WIDTH + 6, height: TOP + most * HEIGHT, role: "img" });
      drawn.setAttribute("aria-label", filled(texts.tree_of, { count: beams[last].length }));
      const lines = svg("g", {}), nodes = svg("g", {});
      for (let step = begin; step <= last; step += 1) {
        drawn.append(svg("text", { x: x(step), y: 12, class: "column" }, String(step + 1)));
        beams[step].forEach((node, index) => {
          const kind = [node.chosen ? "chosen" : "", alive[step].has(index) ? "alive" : "dead", node.finished ? "finished" : ""].join(" ");
          const group = node.group ?? 0, at = { x: x(step), y: y(index) };
          if (step > begin && node.parent >= 0) {
            const from = { x: x(step - 1) + BOX, y: y(node.parent) + 12 }, half = (at.x - from.x) / 2;
            lines.append(svg("path", { d: `M${from.x},${from.y}C${from.x + half},${from.y} ${at.x - half},${at.y + 12} ${at.x},${at.y + 12}`, class: `line ${kind}`, "data-group": group }));
          }
          const text = node.id < 0 ? "■" : named(node.text ?? "", texts);
          const made = svg("g", { class: `node ${kind}`, "data-group": group });
          made.append(svg("title", {}, `${text} ${node.score.toFixed(3)}`), svg("rect", { x: at.x, y: at.y, width: BOX, height: 24, rx: 6 }),
            svg("text", { x: at.x + 6, y: at.y + 16, translate: "no" }, text.length > LETTERS ? `${text.slice(0, LETTERS - 1)}…` : text),
            svg("text", { x: at.x + BOX - 2, y: at.y + 34, class: "score" }, node.score.toFixed(2)));
          nodes.append(made);
        });
      }
      drawn.append(lines, nodes);
      picture.setAttribute("aria-label", filled(texts.tree_of, { count: beams[last].length }));
      picture.replaceChildren(drawn);
      /* What has ended before stays a hypothesis. */
      const places = beams.slice(0, count).flatMap((step, at) => step.map((node, index) => ({ node, at, index })));
      const known = places.filter(({ node, at }) => at === last || node.finished).sort((a, b) => b.node.score - a.node.score);
      list.replaceChildren(...known.map(({ node, at, index }) => {
        const words = path(at, index).map((each) => each.text ?? "").join("");
        return make("li", { className: node.chosen ? "chosen" : "", "data-group": groups.size > 1 ? node.group ?? 0 : null },
          make("b", {}, node.score.toFixed(3)), " ", theirs("span", {}, words.length > 160 ? `…${words.slice(-160)}` : words), node.finished ? ` ${texts.finished}` : "");
      }));
    }
    whole.shown = () => show(Number(slider.value));
    return whole;
  }
  /* The tree as a table: `parent` is the place of the hypothesis, among those of the step before, that it goes on from. */
  function rows(beams) {
    const names = ["step", "place", "parent", "group", "id", "text", "score", "chosen", "finished"];
    return [names, ...beams.flatMap((step, at) => step.map((node, place) =>
      [at + 1, place, node.parent, node.group, node.id, node.text, node.score, Boolean(node.chosen), Boolean(node.finished)]))];
  }
  return { draw, rows };
})();
