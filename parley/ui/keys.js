/* The keys of the page, and what a screen reader says of an answer.

   - While an input method composes (Japanese, Chinese), all keys belong to it, in every box.
   - Enter sends an edited question, and Escape leaves it as it was. Else Escape stops the answer.
   - Arrow up in an empty box edits the last question.
   - When an answer ends, it is read aloud once, and the focus goes back to the box if it was lost. */
{
  const composing = (event) => {
    if (event.isComposing || event.keyCode === 229) event.stopImmediatePropagation();
  };
  for (const kind of ["keydown", "keypress"]) window.addEventListener(kind, composing, true);

  const one = (selector) => document.querySelector(selector);
  const last = (selector) => [...document.querySelectorAll(selector)].at(-1);
  const press = (button) => {
    button?.click();
    return Boolean(button);
  };
  const box = () => one("#message textarea");
  const buttonOf = (edited, name) =>
    edited.closest(".message-row").nextElementSibling?.querySelector(`[data-name="${name}"]`);

  const edit = () => {
    if (!press(last('#chat .message-buttons-right [data-name="Edit"]:not(:disabled)'))) return false;
    requestAnimationFrame(() => one("#chat .edit-textarea")?.focus());
    return true;
  };
  const handled = (event) => {
    const { key, target } = event;
    const edited = target.closest?.("#chat .edit-textarea");
    if (key === "Enter" && edited && !event.shiftKey) return press(buttonOf(edited, "Submit"));
    if (key === "Escape" && edited) {
      press(buttonOf(edited, "Cancel"));
      box()?.focus();
      return true;
    }
    if (key === "Escape" && target.getAttribute?.("aria-expanded") !== "true") return press(one("#message .stop-button"));
    return key === "ArrowUp" && target === box() && !target.value && edit();
  };
  document.addEventListener("keydown", (event) => {
    const modified = event.ctrlKey || event.metaKey || event.altKey;
    if (!event.defaultPrevented && !modified && handled(event)) event.preventDefault();
  });

  const announced = document.createElement("div");
  announced.id = "announced";
  announced.setAttribute("role", "status");
  const ended = () => {
    const rows = [...document.querySelectorAll("#chat .message-row")];
    const turn = rows.slice(rows.findLastIndex((row) => row.matches(".user-row")) + 1);
    const said = turn.find((row) => row.querySelector(".title strong")) // what went wrong
      ?? turn.find((row) => !row.querySelector(".thought-group"));
    announced.textContent = said?.innerText ?? "";
    if (document.activeElement === document.body && matchMedia("(pointer: fine)").matches)
      box()?.focus({ preventScroll: true }); // on a touch screen it would open the keyboard over the answer
  };
  /* The stop button is there exactly while an answer runs. */
  const watch = (message) => {
    let running = false;
    new MutationObserver(() => {
      const now = Boolean(message.querySelector(".stop-button"));
      if (running && !now) setTimeout(ended); // after what came with the same event is shown
      if (!running && now) announced.textContent = "";
      running = now;
    }).observe(message, { childList: true, subtree: true });
  };
  /* What scrolls has to be reached with the keyboard: the tables of an answer. */
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes)
      for (const node of addedNodes)
        for (const table of node.closest?.("#chat") ? [node, ...node.querySelectorAll("table")] : [])
          if (table.matches("table")) table.tabIndex = 0;
  }).observe(document.body, { childList: true, subtree: true });

  document.body.append(announced);
  const mounted = new MutationObserver(() => {
    if (!one("#message textarea")) return;
    mounted.disconnect();
    one("#skeleton")?.remove();
    watch(one("#message"));
  });
  mounted.observe(document.body, { childList: true, subtree: true });
}
