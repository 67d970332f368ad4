/* The turns of the page. The question is shown, the box emptied and Send made to Stop here, before anything is sent.

A turn begins with `begin`, which presses #begin-turn: `begun` shows its messages, `asked` is what the server gets, and
`received` takes what comes (see gradio_patches.py): the messages of the answer alone, without those above it. Each turn
has a number. So what still comes of an earlier turn is left out, and a Stop that overtakes its question finds it. */
window.turns = (() => {
  const { refused, goOn, proceed } = JSON.parse(document.getElementById("panel-data").textContent).turns;
  const BUSY = { __type__: "update", submit_btn: false, stop_btn: true };
  const FREE = { __type__: "update", submit_btn: true, stop_btn: false };
  const press = (name) => document.querySelector(`#${name}`).click();
  let turn = { number: 0, over: true };

  /* A message that will not change. Gradio leaves it as it is, so that a token costs no more in a long conversation: it
     would else wrap, convert and compare each message for each token (see gradio_patches.py). */
  class Settled { constructor(values) { Object.assign(this, values) } }
  const settled = (messages) => messages.map((each) => (each instanceof Settled ? each : new Settled(each)));
  const rows = new WeakMap(), converted = new WeakMap();

  const message = (role, text, more) => ({ role, metadata: null, content: [{ type: "text", text }], options: null, ...more });
  const question = (text) => message("user", text.toWellFormed?.() ?? text);
  const text = ({ content }) => content.map((part) => part.text ?? "").join("");
  const isThought = ({ metadata }) => metadata?.title?.startsWith("Th");  // render.THOUGHT and render.THINKING
  const isPart = (each) => !each.metadata?.title || isThought(each);
  /* The messages up to and including the last question, and those below it. */
  function split(shown) {
    const end = (shown ?? []).findLastIndex((each) => each.role === "user") + 1;
    return [(shown ?? []).slice(0, end), (shown ?? []).slice(end)];
  }

  /* `partial` is an answer that goes on. With `resume` it is made again, and shown where it is longer. */
  function begin(conversation, { partial = [], resume = false, stored = conversations.stored(resume), box = {} } = {}) {
    if (!turn.over || !conversation.length) return;
    const shown = partial.filter(isPart);  // of the answer
    turn = { number: turn.number + 1, over: false, cleared: false, partial, shown, resume, stored, box };
    turn.conversation = settled(conversation);
    settingsPanel.afterValues(() => press("begin-turn"));
  }
  function again(shown, resume) {
    const [conversation, partial] = split(shown);
    begin(conversation, { partial, resume });
  }
  function show(messages) {
    if (turn.cleared) return [];
    const shown = [...turn.conversation, ...messages];
    conversations.absorb(shown);
    return shown;
  }

  return {
    /* As Gradio's chatbot has a message in the place `index`, and the row that it shows it in. */
    converted(message, index, convert) {
      if (!(message instanceof Settled)) return convert();
      const known = converted.get(message);
      if (known?.index !== index) converted.set(message, { index, made: convert() });
      return converted.get(message).made;
    },
    row(message) {
      if (!rows.has(message)) rows.set(message, [message]);
      return rows.get(message);
    },
    send(said, shown) {
      if (said.trim()) begin([...(shown ?? []), question(said)], { box: { value: "" } });
    },
    retry: (shown) => begin(split(shown)[0]),
    edit(shown) {
      const { index, value } = eventData, at = [index].flat()[0], said = String(value);
      if (!turn.over || !said.trim() || shown[at].metadata?.title) return undefined;
      if (shown[at].role === "user") return begin([...shown.slice(0, at), question(said)]);
      const options = [{ label: goOn, value: proceed }];  // no turn: the visitor chooses whether it goes on
      const edited = [...shown.slice(0, at), message("assistant", said.toWellFormed?.() ?? said, { options })];
      conversations.absorb(edited);
      return [edited];
    },
    example(shown) {
      const { text } = eventData.value;
      if (!compare.lesson(text)) begin([...(shown ?? []), question(text)]);  // the box keeps its text
    },
    option(shown) {
      if (eventData.value === proceed) again(shown);
      else if (turn.over) press("choose-other-model");
    },
    goOn: (shown) => again(shown),
    resume: (shown) => again(shown, true),
    branch: (conversation, stored, box) => begin(conversation, { resume: true, stored, box }),
    begun: () => [show(turn.shown), { ...BUSY, ...turn.box }],
    /* What the server reads: of what is folded, only the thought of the answer that goes on and the title of its figures. */
    asked(_, __, ...values) {
      const { number, resume, stored, conversation, partial } = turn;
      conversations.keepSettings(...values);
      const below = partial.map((each) => (isPart(each) ? each : { ...each, content: [{ type: "text", text: "" }] }));
      const messages = [...conversation.filter((each) => !each.metadata?.title), ...below];
      return [{ turn: number, resume, stored }, messages, ...values];
    },
    received(data) {
      const made = data?.[0];
      if (made?.comparison) {
        compare.received(made);
        return [];
      }
      if (!made?.turn) return data;
      if (made.turn !== turn.number || turn.over || turn.cleared || !made.shown) return [];
      turn.shown = structuredClone(made.shown);  // Gradio changes it in place
      const isNew = made.stored && made.stored.finish !== turn.finish;
      if (isNew) turn.finish = made.stored.finish;
      conversations.answered(turn.shown, isNew ? made.stored : null);
      return [[...turn.conversation, ...turn.shown]];
    },
    ended() {
      turn.over = true;
      return [FREE];
    },
    failed() {
      const parts = turn.shown.filter(isPart), options = parts.length ? [{ label: proceed, value: proceed }] : null;
      const failure = message("assistant", refused, { metadata: { title: "**Could not finish**" }, options });
      turn.over = true;
      return [show([...parts, failure]), FREE];
    },
    number: () => [turn.number],
    undo(shown) {
      const [conversation] = split(shown);
      if (!turn.over || !conversation.length) return undefined;
      const question = conversation.pop();
      conversations.absorb(conversation);
      return [conversation, text(question)];
    },
    clear() {
      turn.cleared = true;
      if (!turn.over) document.querySelector("#message .stop-button")?.click();
      conversations.absorb([]);
    },
  };
})();
