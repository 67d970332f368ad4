/* "Show choices" under each answer. A view opens in the place of the conversation, and Escape or its button closes it.

   views/choices.py reads the answer again, and token_view.js draws what it found. */
window.choices = (() => {
  const { choices: texts } = JSON.parse(document.getElementById("panel-data").textContent);
  const { make } = drawing;
  let onClose = null, view = null, from = null, asked = null, number = 0, pasted = "";

  function button(label, press) {
    return make("button", { type: "button", className: "quiet", onclick: press }, label);
  }
  /* Beside the figures of an answer. */
  function offer(row, id) {
    const old = row.querySelector(":scope > .show-choices");
    if (old?.dataset.node === id) return;
    old?.remove();
    const made = make("button", { type: "button", className: "show-choices", onclick: () => { from = made; ask({ id }) } }, texts.show);
    made.dataset.node = id;
    row.append(made);
    row.dataset.choices = "";  // for the style sheet: see details.js
  }

  /* Another view in the same place: `opener` gets the focus back, and `closed` is called. */
  function other(title, content, opener, closed) {
    from = opener ?? from;
    const body = open(title, ...content);
    onClose = closed;
    return body;
  }
  function open(title, ...content) {
    onClose?.();
    onClose = null;
    const body = make("div", { className: "body" }, ...content);
    const back = button(texts.back, close);
    back.classList.add("back");
    back.prepend(make("span", { "aria-hidden": "true" }, "‹"));
    const next = make("section", { className: "view", "aria-label": title }, make("div", { className: "bar" }, back, make("h2", {}, title)), body);
    if (view) view.replaceWith(next);
    else document.querySelector("#conversation").append(next);
    next.parentElement.dataset.view = "";
    if (!view || !next.contains(document.activeElement)) back.focus({ preventScroll: true });
    view = next;
    return body;
  }
  function close() {
    if (!view) return;
    onClose?.();
    onClose = null;
    delete view.parentElement.dataset.view;
    view.remove();
    [view, asked] = [null, null];
    (from?.isConnected ? from : document.querySelector("#message textarea"))?.focus({ preventScroll: true });
  }
  document.addEventListener("keydown", (event) => {
    const elsewhere = document.body.hasAttribute("data-settings") || document.querySelector("dialog[open]");
    const list = event.target.getAttribute?.("aria-expanded") === "true" && event.target.role === "combobox";
    if (!view || event.key !== "Escape" || event.isComposing || elsewhere || list) return;
    event.stopPropagation();
    event.preventDefault();
    close();
  }, true);

  /* Of an answer, or of a text that is only scored. */
  function ask({ id = null, text = "", settings = null }) {
    const known = id ? conversations.answer(id) : { messages: [], text, settings };
    number += 1;
    const wait = make("p", { className: "wait", role: "status" }, known ? texts.reading : texts.gone);
    open(id ? texts.title : texts.scored, ...(id ? [] : [pasteBox(text)]), wait);
    if (!known) return;
    asked = { ...known, number, id };
    document.getElementById("read-choices").click();
  }
  function found(data) {
    if (!view || !asked || data?.number !== asked.number) return [];
    if (data.error) return failed(data.error);
    if (data.seconds) return offerGpu(data.seconds);
    const { id } = asked, go = id && data.branches ? (index, candidate) => branch(id, index, candidate) : null;
    const next = id && data.branches ? (index) => nextToken.open(conversations.before(id, index)) : null;
    const drawn = tokenView.draw(data, { texts: data.texts, go, next });
    const title = id ? texts.title : texts.scored, about = make("p", { className: "about" }, data.about);
    const saved = () => ({ title, about: data.about, data, texts: data.texts });
    const figure = () => drawn.querySelector(".part").firstElementChild;
    const files = savedView.buttons("choices", { saved, rows: () => rows(data, figure()), figure });
    about.append(make("span", { className: "files" }, files));
    open(title, ...(id ? [] : [pasteBox(pasted)]), about, drawn);
    drawn.begin(Boolean(id));
    return [];
  }
  /* Seconds of the visitor's GPU time are spent only after a click. */
  function offerGpu(count) {
    const read = button(texts.read, () => {
      number += 1;
      asked = { ...asked, number, spends: true };
      view.querySelector(".wait").replaceChildren(texts.reading);
      document.getElementById("read-choices").click();
    });
    read.className = "press";
    view.querySelector(".wait").replaceChildren(drawing.filled(texts.seconds, { count }), " ", read);
    read.focus({ preventScroll: true });
    return [];
  }
  /* Of the figure that is shown. */
  function rows({ prompt = [], answer = [], beams, passes }, figure) {
    if (figure.matches(".beam-tree")) return beamTree.rows(beams);
    if (figure.matches(".draft-ribbon")) return draftRibbon.rows(passes);
    const names = ["id", "text", "logprob", "rank", "after", "after_rank", "entropy"];
    const of = (part, scores) => scores.map((score) => [part, ...names.map((name) => score[name])]);
    return [["part", ...names], ...of("prompt", prompt), ...of("answer", answer)];
  }
  function failed(sentence = texts.failed) {
    view?.querySelector(".wait")?.replaceChildren(sentence);
    view?.querySelector(".wait")?.classList.add("wrong");
    return [];
  }
  async function branch(id, index, candidate) {
    close();
    await conversations.branch(id, index, candidate.id);
  }

  function pasteBox(text) {
    const box = make("textarea", { value: text, rows: 3, "aria-label": texts.paste, placeholder: texts.paste });
    const look = () => { pasted = box.value; if (pasted.trim()) ask({ text: pasted, settings: conversations.now() }) };
    return make("div", { className: "paste" }, box, make("button", { type: "button", className: "press", onclick: look }, texts.look));
  }
  /* ?view=tokens&text=… */
  function paste(text, settings) {
    from = null;
    pasted = text;
    if (text.trim()) return ask({ text, settings });
    open(texts.scored, pasteBox("")).querySelector("textarea").focus();
  }

  return { offer, open: other, asked: () => [asked], found, failed, paste, close };
})();
