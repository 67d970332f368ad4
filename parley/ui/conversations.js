/* Keeps the conversations in the visitor's browser.

A conversation is a tree. A node is a question or an answer: { id, parent, role, messages, stored }, with the messages as
the chatbot shows them (without the details of a stats line, which are made anew) and what views/conversations.py calls the
stored answer. `path` has the ids of the nodes that are shown. A version is a node with the same parent. Each conversation
has a key of its own in the local storage, so that two tabs write different keys.

`absorb` finds out what has changed from what the chatbot shows: after a question without an answer comes a new version.
`answered` takes what comes of the last answer. */
window.conversations = (() => {
  const KEY = "parley.conversation.", OPEN = "parley.open", RESUME = 10 * 60_000, UNDO = 10_000, SAVE = 500;
  const { settings: known, asks, conversations: text } = JSON.parse(document.getElementById("panel-data").textContent);
  const now = () => Date.now(), id = () => crypto.randomUUID?.() ?? String(Math.random()).slice(2);
  const press = (name) => document.querySelector(`#${name}`)?.click();
  let open = create(), settingsNow = {}, defaults = null, saving = null, lost = false, resumedAt = "", note = "", link = null;
  const detailed = new Set();  // the answers whose details are on the page, by the ids of their nodes
  let settling = false;  // while the controls get the settings of a conversation, theirs are not those of the visitor

  function create() {
    return { id: id(), title: "", created: now(), updated: now(), saved: 0, draft: "", settings: null, nodes: {}, path: [] };
  }

  /* ---- storage ---- */
  function read(key) {
    try { return JSON.parse(localStorage.getItem(key)) } catch (_) { return null }
  }
  function all() {
    const keys = Array.from({ length: localStorage.length }, (_, i) => localStorage.key(i)).filter((key) => key?.startsWith(KEY));
    return keys.map(read).filter((each) => each?.path?.length).sort((a, b) => b.updated - a.updated);
  }
  const savedCount = (key) => Number(/^\{"saved":(\d+)/.exec(localStorage.getItem(key) ?? "")?.[1] ?? 0);

  function save() {
    clearTimeout(saving);
    saving = null;
    if (!open.path.length && !open.draft && !savedCount(KEY + open.id)) return;
    if (savedCount(KEY + open.id) > open.saved) {
      open = { ...open, id: id(), title: `${title(open)} (2)`, saved: 0 };
      say(text.copy);
    }
    const { saved, ...rest } = { ...open, updated: now() };
    try {
      localStorage.setItem(KEY + open.id, JSON.stringify({ saved: saved + 1, ...rest }));
      Object.assign(open, { saved: saved + 1, updated: rest.updated });
      sessionStorage.setItem(OPEN, open.id);
      if (note === text.full) say("");
    } catch (_) { say(text.full) }
  }
  const saveSoon = () => { saving ??= setTimeout(save, SAVE) };

  /* ---- the tree ---- */
  const words = (messages) => messages.filter((m) => !m.metadata?.title).map((m) => m.content.map((p) => p.text ?? "").join("")).join("");
  const title = (each) => each.title || words(each.nodes[each.path[0]]?.messages ?? []).trim().slice(0, 60) || text.untitled;
  const versions = (node) => Object.values(open.nodes).filter((other) => other.parent === node.parent && other.role === node.role);
  const isOver = (node) => Boolean(node.stored?.finish) || node.edited;

  function grouped(shown) {
    const groups = [];
    for (const message of shown) {
      if (message.role === "user" || groups.at(-1)?.role !== "assistant") groups.push({ role: message.role, messages: [] });
      groups.at(-1).messages.push(message);
    }
    return groups;
  }
  const isStats = (message) => Boolean(message.metadata?.title?.includes(" · "));
  function kept(message) {
    const content = isStats(message) ? [{ type: "text", text: "" }] : message.content;
    return { role: message.role, metadata: message.metadata, content, ...(message.options?.length && { options: message.options }) };
  }

  const named = (values) => Object.fromEntries(Object.keys(known).map((name, i) => [name, values[i]]));

  function absorb(shown) {
    if (!shown.length) {
      contextGauge.ask();
      if (open.path.length) {
        save();
        const { settings } = open;
        open = { ...create(), settings };
        sessionStorage.removeItem(OPEN);
        refresh();
      }
      return;
    }
    const path = [];
    let parent = null, same = true;
    for (const { role, messages } of grouped(shown)) {
      const before = same ? open.nodes[open.path[path.length]] : null, said = words(messages);
      let node = before?.role === role ? before : null;
      if (node && role === "user" && words(node.messages) !== said) node = null;
      if (node && role === "assistant" && isOver(node) && !said.startsWith(words(node.messages))) node = null;
      const isVersion = !node && before;
      if (!node) {
        same = false;
        if (role === "user") open.draft = "";
        node = { id: id(), parent, role, made: now() };
        if (role === "assistant" && !messages.some((m) => m.metadata?.title)) node.edited = true;
      }
      open.nodes[node.id] = filled(node, messages);
      path.push(node.id);
      parent = node.id;
      if (isVersion) break;  // Gradio still shows what followed the one before
    }
    open.path = path;
    requestAnimationFrame(decorate);
    noted(open.nodes[path.at(-1)]);
  }
  /* What has come of the answer to the last question. One that failed without a word is no version of it. */
  function answered(messages, stored) {
    let last = open.nodes[open.path.at(-1)];
    if (last.role === "user") {
      const failed = Object.values(open.nodes).find((node) => node.parent === last.id && broke(node) && !words(node.messages));
      last = failed ?? { id: id(), parent: last.id, role: "assistant", made: now() };
      delete last.stored;
      open.path.push(last.id);
      requestAnimationFrame(decorate);
    }
    last = open.nodes[last.id] = filled(last, messages);
    if (isOver(last) || messages.some(isStats)) requestAnimationFrame(decorate);
    if (stored) {
      last.stored = { ids: [], usage: null, ...stored };
      for (const other of Object.values(open.nodes)) if (other !== last && other.stored) other.stored.prompt_ids = [];
    }
    noted(last);
  }
  function filled(node, messages) {
    if (messages.some((m) => isStats(m) && m.content.some((p) => p.text))) detailed.add(node.id);
    else detailed.delete(node.id);
    return Object.assign(node, { messages: messages.map(kept) });
  }
  function noted(last) {
    saveSoon();
    contextGauge.ask();
    if (last.stored?.finish && !broke(last)) [lost, resumedAt] = [false, ""];
    if (lost && broke(last)) setTimeout(resume);
  }
  const broke = (node) => node?.messages.some((m) => m.metadata?.title?.startsWith("**"));

  /* ---- showing another conversation or version ---- */
  const ids = (each) => each.path.map((name) => each.nodes[name]);
  function taken() {
    requestAnimationFrame(decorate);
    contextGauge.ask();
    return [ids(open).flatMap((node) => node.messages), open.draft];
  }
  /* Of an answer that is made again, all that is kept of it; else the tokens of the conversation as they were generated. */
  function stored(resume) {
    if (resume) return open.nodes[open.path.at(-1)]?.stored ?? null;
    const { prompt_ids, ids: generated } = ids(open).findLast((node) => node.stored)?.stored ?? {};
    return { prompt_ids, ids: generated };
  }
  async function free() {
    document.querySelector("#message .stop-button")?.click();
    while (document.querySelector("#message .stop-button")) await new Promise(requestAnimationFrame);
  }
  async function show(next) {
    await free();
    save();
    open = next;
    sessionStorage.setItem(OPEN, open.id);
    if (isBroken() && (asks || isLate())) offer();
    press("open-conversation");
    applySettings();
    compare();
    refresh();
  }
  function applySettings() {
    if (!open.settings || JSON.stringify(open.settings) === JSON.stringify(settingsNow)) return;
    settling = true;
    settingsPanel.awaitAll();
    setTimeout(() => press("apply-settings"));
  }
  function settled() {
    settling = false;
    return settingsPanel.allArrived();
  }
  function compare() {
    const last = ids(open).findLast((node) => node.stored);
    say("");
    if (last) press("compare-fingerprints");
  }
  async function step(node, by) {
    await free();
    const all = versions(node), next = all[(all.findIndex((each) => each.id === node.id) + by + all.length) % all.length];
    const path = open.path.slice(0, open.path.indexOf(node.id));
    for (let each = next; each; each = Object.values(open.nodes).filter((n) => n.parent === each.id).sort((a, b) => a.made - b.made).at(-1))
      path.push(each.id);
    open.path = path;
    press("open-conversation");
    saveSoon();
  }

  /* ---- one answer ---- */
  const said = (messages) => messages.filter((m) => !m.metadata?.title).map(({ role, content }) => ({ role, content }));
  const above = (node) => ids(open).slice(0, open.path.indexOf(node.id)).flatMap((each) => each.messages);
  /* What views/choices.py reads of it; null where it is not shown. */
  function answer(id) {
    const node = open.path.includes(id) ? open.nodes[id] : null;
    return node && { messages: said(above(node)), text: words(node.messages), stored: node.stored ?? null, settings: settingsNow };
  }
  /* Another version of it, which goes on from this token in the place `index`. */
  async function branch(id, index, token) {
    await free();
    const node = open.nodes[id];
    if (node) turns.branch(above(node), { ...node.stored, given: [...node.stored.ids.slice(0, index), token] });
  }

  /* What views/next_token.js begins with: an answer up to a token, or a question that has no answer yet. */
  const before = (id, index) => ({ ...answer(id), settings: {}, given: open.nodes[id].stored.ids.slice(0, index), id });
  function unanswered() {
    const draft = document.querySelector("#message textarea")?.value.trim();
    const messages = said(ids(open).flatMap((node) => node.messages));
    if (!draft && messages.at(-1)?.role !== "user") return null;
    return { messages: draft ? [...messages, { role: "user", content: draft }] : messages, stored: null, settings: {}, given: [], draft };
  }
  /* An answer of these tokens, which goes on. */
  async function writeOn({ id: of, draft, stored: known, settings, given }) {
    await free();
    const path = of ? above(open.nodes[of]) : ids(open).flatMap((node) => node.messages);
    const question = { role: "user", metadata: null, content: [{ type: "text", text: draft }], options: null };
    turns.branch(draft ? [...path, question] : path, { ...known, settings, given }, draft ? { value: "" } : {});
  }

  /* ---- an answer that broke off ---- */
  const isLate = () => now() - open.updated > RESUME;
  function resume() {
    lost = false;
    const last = open.nodes[open.path.at(-1)];
    const at = [open.id, ...ids(open).map((node) => words(node.messages).length).filter(Boolean)].join();
    if (!last || isLate()) return;
    if (asks || at === resumedAt) return;  // where that brought no word, it waits for a click
    resumedAt = at;
    press("resume-answer");
  }
  /* On ZeroGPU to go on spends seconds of the visitor's, so that it takes a click. */
  function offer() {
    const last = open.nodes[open.path.at(-1)], options = [{ label: text.goOn, value: "Continue" }];
    if (last.role === "assistant" && words(last.messages)) return void (last.messages.at(-1).options = options);
    const failed = { role: "assistant", content: [{ type: "text", text: text.unanswered }], metadata: { title: "**Could not finish**" } };
    if (last.role === "assistant") return void (last.messages = [failed]);
    const node = { id: id(), parent: last.id, role: "assistant", made: now(), messages: [failed] };
    open.nodes[node.id] = node;
    open.path.push(node.id);
  }
  function isBroken() {
    const last = open.nodes[open.path.at(-1)];
    return last && (last.role === "user" || (!isOver(last) && !last.messages.some((m) => m.options?.length)) || broke(last));
  }
  function start(...values) {
    settingsNow = defaults = named(values);
    link = links.given();
    const before = link ? null : read(KEY + sessionStorage.getItem(OPEN));
    open = before ?? { ...open, draft: link?.prompt ?? "", settings: link?.settings ?? null };
    build();
    applySettings();
    nextToken.offer();
    if (links.view.name === "next") setTimeout(() => unanswered() && nextToken.open({ ...unanswered(), settings: link?.settings ?? {} }));
    if (links.view.name === "tokens") setTimeout(() => choices.paste(links.view.text, { ...settingsNow, ...link?.settings }));
    if (before) {
      setTimeout(compare);
      if (isBroken() && (asks || isLate())) offer();
      else if (isBroken()) setTimeout(resume);
    }
    return taken();
  }
  /* From the list, as after a crash: what broke off goes on, unless another tab still writes it. */
  async function choose(each) {
    await show(read(KEY + each.id));
    if (isBroken()) setTimeout(() => { if (open.id === each.id && savedCount(KEY + open.id) === open.saved) resume() }, 2 * SAVE);
  }
  async function applied(answer) {
    const { notice, atOnce } = JSON.parse(answer);
    settled();
    if (notice) say(notice);
    const run = link?.run;
    link = null;
    if (!run || !atOnce) return;
    await links.seen();
    if (document.querySelector("#message textarea").value) document.querySelector("#message .submit-button")?.click();
  }

  /* ---- files ---- */
  function asMessages(each) {
    return ids(each).map((node) => {
      const thought = node.messages.find((m) => m.metadata?.title?.startsWith("Thought"))?.content.map((p) => p.text ?? "").join("");
      return { role: node.role, content: words(node.messages), ...(thought && { reasoning_content: thought }) };
    });
  }
  function asJson(each) {
    const { title: _, nodes, path, saved, draft, ...rest } = each;
    const answers = ids(each).map((node) => node.stored ?? null);
    return JSON.stringify({ messages: asMessages(each), parley: { version: 1, ...rest, title: title(each), answers } }, null, 1);
  }
  function asMarkdown(each) {
    const parts = ids(each).map((node) => {
      const stats = node.messages.map((m) => m.metadata?.title).filter((t) => t?.includes(" · ")).at(-1);
      return `**${node.role === "user" ? "You" : "Answer"}**\n\n${words(node.messages).trim()}${stats ? `\n\n*${stats}*` : ""}`;
    });
    return `# ${title(each)}\n\n${parts.join("\n\n")}\n`;
  }
  const { download } = savedView;
  function fromJson(given) {
    const made = create(), extra = given.parley ?? {};
    if (!Array.isArray(given.messages) || !given.messages.length) throw new Error(text.unreadable);
    let parent = null;
    given.messages.forEach(({ role, content, reasoning_content }, i) => {
      if (!["user", "assistant"].includes(role) || typeof content !== "string") throw new Error(text.unreadable);
      const part = (words, metadata) => ({ role, content: [{ type: "text", text: words }], metadata: metadata ?? {} });
      const messages = [...(reasoning_content ? [part(String(reasoning_content), { title: "Thought", status: "done" })] : []), part(content)];
      const node = { id: id(), parent, role, made: now() + i, messages, edited: role === "assistant" };
      if (extra.answers?.[i]) node.stored = extra.answers[i];
      made.nodes[node.id] = node;
      made.path.push(parent = node.id);
    });
    made.title = String(extra.title ?? "").slice(0, 120);
    made.settings = extra.settings ?? null;
    return made;
  }

  /* ---- what the visitor sees of it ---- */
  const make = (tag, values = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), values);
    made.append(...children);
    return made;
  };
  const button = (label, click, content = label) => {
    const made = make("button", { type: "button", onclick: click, title: label }, content);
    made.setAttribute("aria-label", label);
    return made;
  };
  let panel, entries, status, query, removed = null;

  function say(sentence) {
    note = sentence;
    const sentences = [sentence].flat().filter(Boolean).flatMap((each, i) => (i ? [" ", make("span", {}, each)] : [each]));  // each is translated by itself
    status?.replaceChildren(...(sentences.length ? [...sentences, button(text.close, () => say(""), "✕")] : []));
  }
  function build() {
    if (panel) return;
    query = make("input", { type: "search", placeholder: text.search, oninput: refresh });
    query.setAttribute("aria-label", text.search);
    entries = make("ul");
    const file = make("input", { type: "file", accept: ".json", hidden: true, onchange: async () => {
      await settingsFile.open(file.files[0]);
      file.value = "";
    } });
    const copy = (label, of) => button(label, async () => {
      const asked = words(open.nodes[open.path[0]]?.messages ?? []) || open.draft;
      await navigator.clipboard.writeText(of(asked));
      close();
      say(text.copied);
    });
    const foot = make("div", { className: "foot" }, button(text.import, () => file.click()), file,
      button(text.settings, settingsFile.save),
      copy(text.link, (asked) => links.address(settingsNow, defaults, asked)),
      copy(text.embed, (asked) => links.embed(links.address(settingsNow, defaults, asked, { embed: 1 }))));
    if (window.storageBlocked) foot.prepend(make("p", {}, text.blocked));
    const head = make("div", { className: "head" }, make("h2", {}, text.list), button(text.begin, () => { fresh(); close() }), button(text.close, close, "✕"));
    panel = make("dialog", { id: "conversation-list", onclick: closeBeside }, make("div", {}, head, query, entries, foot));
    panel.setAttribute("aria-label", text.list);
    status = make("p", { id: "conversation-note" });
    status.setAttribute("role", "status");
    (document.querySelector(".gradio-container") ?? document.body).append(panel, status);
    say(note);
  }
  const close = () => panel.close();
  /* It returns nothing: from a handler that returns false, the browser opens no chooser of files. */
  function closeBeside(event) {
    if (event.target === panel) close();
  }
  async function openFile(given) {
    try { await show(fromJson(given)); save(); refresh() } catch (_) { say(text.unreadable) }
  }
  async function fresh() {
    await free();
    document.querySelector('#chat [data-name="New conversation"]')?.click();
  }
  function refresh() {
    if (!panel) return;
    const wanted = query.value.trim().toLowerCase();
    const found = all().filter((each) => !wanted || JSON.stringify([title(each), Object.values(each.nodes).map((n) => words(n.messages))]).toLowerCase().includes(wanted));
    entries.replaceChildren(...found.map(entry));
    if (removed) entries.prepend(make("li", { className: "removed" }, make("span", {}, text.removed), button(text.undo, putBack)));
    else if (!found.length) entries.append(make("li", { className: "none" }, wanted ? "—" : text.none));
  }
  function entry(each) {
    const name = make("button", { type: "button", className: "name", onclick: async () => { close(); if (each.id !== open.id) await choose(each) } }, title(each));
    const date = new Intl.DateTimeFormat(document.documentElement.lang || undefined, { dateStyle: "medium" }).format(each.updated);
    const edit = button(text.rename, () => {
      const box = make("input", { value: title(each), onkeydown: (event) => {
        if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
        event.preventDefault();
        if (event.key === "Enter") rename(each, box.value);
        refresh();
      }, onblur: () => { rename(each, box.value); refresh() } });
      box.setAttribute("aria-label", text.rename);
      name.replaceWith(box);
      box.select();
    });
    const tools = make("span", { className: "tools" }, edit,
      button(text.markdown, () => download(`${title(each)}.md`, asMarkdown(each), "text/markdown"), "Markdown"),
      button(text.json, () => download(`${title(each)}.json`, asJson(each), "application/json"), "JSON"),
      button(text.remove, () => remove(each)));
    const item = make("li", {}, name, make("time", {}, date), tools);
    if (each.id === open.id) item.setAttribute("aria-current", "true");
    return item;
  }
  function rename(each, name) {
    if (each.id === open.id) { open.title = name.trim(); return save() }
    const { saved, ...rest } = read(KEY + each.id);
    localStorage.setItem(KEY + each.id, JSON.stringify({ saved: saved + 1, ...rest, title: name.trim() }));
  }
  async function remove(each) {
    if (each.id === open.id) { save(); await fresh(); await until(() => open.id !== each.id) }
    removed = { key: KEY + each.id, content: localStorage.getItem(KEY + each.id) };
    localStorage.removeItem(removed.key);
    const { content } = removed;
    setTimeout(() => { if (removed?.content === content) { removed = null; refresh() } }, UNDO);
    refresh();
  }
  function putBack() {
    localStorage.setItem(removed.key, removed.content);
    removed = null;
    refresh();
  }
  async function until(holds) {
    while (!holds()) await new Promise(requestAnimationFrame);
  }

  /* ‹ 1/2 › beside what has more than one version. The rows of the chatbot are its messages in their order. */
  function decorate() {
    const rows = document.querySelectorAll("#chat .message-row"), wanted = new Map();
    let row = 0;
    for (const node of ids(open)) {
      row += node.messages.length;
      const all = versions(node);
      if (node.role === "assistant" && (isOver(node) || node.messages.some(isStats)) && rows[row - 1]) choices.offer(rows[row - 1], node.id);
      if (all.length > 1 && rows[row - 1]) wanted.set(rows[row - 1], [node, `${all.indexOf(node) + 1}/${all.length}`]);
    }
    for (const bar of document.querySelectorAll("#chat .versions")) {
      const [node, label] = wanted.get(bar.parentElement) ?? [];
      if (bar.dataset.node === node?.id && bar.dataset.label === label) wanted.delete(bar.parentElement);
      else bar.remove();
    }
    for (const [at, [node, label]] of wanted) {
      const bar = make("span", { className: "versions" }, button(text.earlier, () => step(node, -1), "‹"), label, button(text.later, () => step(node, 1), "›"));
      Object.assign(bar.dataset, { node: node.id, label });
      bar.setAttribute("role", "group");
      bar.setAttribute("aria-label", text.versions);
      at.append(bar);
    }
  }

  /* The details of an answer that was stored are made anew when they are unfolded. */
  let asked = null;
  document.addEventListener("click", (event) => {
    const line = event.target.closest?.("#chat .thought-group .title");
    if (!line) return;
    const index = [...document.querySelectorAll("#chat .message-row")].indexOf(line.closest(".message-row"));
    let first = 0;
    const node = ids(open).find((each) => (first += each.messages.length) > index);
    const message = node?.messages[index - first + node.messages.length];
    if (!node?.stored || !isStats(message ?? {}) || detailed.has(node.id)) return;
    asked = JSON.stringify({ index, stored: node.stored });
    press("remake-details");
  }, true);  // Gradio lets no click on this line through

  document.addEventListener("input", (event) => {
    if (!event.target.matches?.("#message textarea")) return;
    open.draft = event.target.value;
    saveSoon();
  });
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("#show-conversations")) return;
    save();
    refresh();
    panel.showModal();
  });
  addEventListener("pagehide", () => saving && save());
  /* Gradio has closed its streams when the page was left, so one that Back brings from the browser's cache hears no more. */
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { if (saving) save() }
    else if (broke(open.nodes[open.path.at(-1)]) && lost) resume();
  });

  return {
    absorb, answered, start, stored, taken, applied, settled, answer, branch, before, unanswered, writeOn, openFile, now: () => settingsNow,
    tell(...sentences) {
      close();
      say(sentences);
    },
    keepSettings(...values) {
      settingsNow = named(values);
      nextToken.changed();
      if (settling || !open.path.length) return;
      open.settings = settingsNow;
      saveSoon();
    },
    /* What a comparison begins with: the messages, the text in the box, and the tokens of the conversation. */
    present() {
      const { prompt_ids = [], ids: generated = [] } = stored(false);
      const messages = asMessages(open).map(({ role, content }) => ({ role, content })).filter((each) => each.content);
      return { messages, draft: document.querySelector("#message textarea")?.value ?? "", ids: [...prompt_ids, ...generated] };
    },
    /* A column of a comparison becomes the end of the conversation: the answer to a new question, or, `again`, another one
       to the last question. `anew`: it read nothing of this conversation. */
    async keep({ question, again, anew, column, settings }) {
      await free();
      save();
      if (anew && open.path.length) open = create();
      const titled = (title, status, text = "") => ({ role: "assistant", content: [{ type: "text", text }], metadata: { title, ...(status && { status }) } });
      const said = (role, text) => ({ role, content: [{ type: "text", text }], metadata: null });
      const path = [...open.path];
      if (again) while (path.length && open.nodes[path.pop()].role !== "user");
      const before = again && open.nodes[open.path[path.length]];
      const asks = before && words(before.messages) === question ? before
        : { id: id(), parent: path.at(-1) ?? null, role: "user", made: now(), messages: [said("user", question)] };
      const messages = [...(column.thought ? [titled("Thought", "done", column.thought)] : []), ...(column.text ? [said("assistant", column.text)] : []), titled(column.stats, "done")];
      if (["time", "length", "stopped"].includes(column.finish)) messages.at(-1).options = [{ label: text.goOn, value: "Continue" }];
      const answer = { id: id(), parent: asks.id, role: "assistant", made: now(), messages, stored: column.stored };
      for (const other of Object.values(open.nodes)) if (other.stored) other.stored.prompt_ids = [];
      Object.assign(open.nodes, { [asks.id]: asks, [answer.id]: answer });
      Object.assign(open, { path: [...path, asks.id, answer.id], settings, draft: again ? open.draft : "" });
      press("open-conversation");
      applySettings();
      save();
      refresh();
    },
    unfolded: (shown) => [shown, asked],
    settings: () => JSON.stringify(open.settings ?? {}),
    made: () => { const last = ids(open).findLast((node) => node.stored); return last ? JSON.stringify(last.stored) : "" },
    compared: (differs) => { if (differs) say(text.elsewhere) },
    connectionLost: () => { lost = true },
  };
})();
