/* How full the context is: asks the server a moment after typing stops, and when the conversation or a setting changes.
   The turns that will not be read are marked, for the style sheet. See views/context_gauge.py. */
window.contextGauge = (() => {
  const PAUSE = 300; // ms
  let due = 0, unread = 0;
  function ask() {
    clearTimeout(due);
    due = setTimeout(() => {
      if (document.querySelector("#message .stop-button")) return ask(); // the answer is not over
      mark();
      document.getElementById("count-tokens")?.click();
    }, PAUSE);
    return [];
  }
  document.addEventListener("input", (event) => {
    if (event.target.closest?.("#message, #setting-system_prompt, #setting-max_new_tokens")) ask();
  });

  /* Marks the oldest turns. Questions in a row are one turn, as they are for the model. */
  function mark() {
    let turn = 0, asked = false;
    for (const row of document.querySelectorAll("#chat .message-row")) {
      const question = row.classList.contains("user-row");
      if (question && !asked) turn += 1;
      asked = question;
      row.toggleAttribute("data-unread", turn > 0 && turn <= unread);
    }
  }

  return {
    ask,
    /* What has to be counted: the draft, the conversation without what is folded, and the settings. */
    asked: (draft, shown, ...settings) => [
      draft,
      (shown ?? []).filter((message) => !message.metadata?.title).map(({ role, content }) => ({ role, content })),
      ...settings,
    ],
    show(use) {
      const line = document.getElementById("under");
      const gauge = document.getElementById("gauge") ?? line.appendChild(document.createElement("span"));
      Object.assign(gauge, { id: "gauge", textContent: use?.text ?? "", title: use?.title ?? "" });
      gauge.toggleAttribute("data-full", Boolean(use?.full));
      unread = use?.unread ?? 0;
      mark();
      return [];
    },
  };
})();
