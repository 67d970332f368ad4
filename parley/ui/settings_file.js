/* Saves the settings as a file, and opens one: a generation_config.json or a conversation, chosen or dropped on the page. */
window.settingsFile = (() => {
  const { conversations: text } = JSON.parse(document.getElementById("panel-data").textContent);
  const MOST = 100_000; // bytes of settings
  let fields = null;
  const press = (name) => document.getElementById(name).click();

  async function open(file) {
    let given = null;
    try { given = JSON.parse(await file.text()) } catch (_) { /* null is unreadable, too */ }
    if (given?.messages) return conversations.openFile(given);
    if (given?.constructor !== Object || file.size > MOST) return conversations.tell(text.unreadable);
    fields = given;
    settingsPanel.awaitAll();
    press("open-settings");
  }

  const holdsFile = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    document.body.dataset.drop = "";
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) delete document.body.dataset.drop });
  document.addEventListener("drop", (event) => {
    delete document.body.dataset.drop;
    if (!holdsFile(event)) return;
    event.preventDefault();
    open(event.dataTransfer.files[0]);
  });

  return {
    open,
    save: () => press("save-settings"),
    /* The arguments of both events, and what comes back. */
    present: () => JSON.stringify(conversations.now()),
    given: () => JSON.stringify({ fields, now: conversations.now() }),
    saved(said) {
      const { file, notice } = JSON.parse(said);
      if (file) savedView.download("generation_config.json", file, "application/json");
      conversations.tell(notice ?? text.settings_saved);
    },
    opened(said) {
      settingsPanel.allArrived();
      const { notice, others, opened } = JSON.parse(said);
      conversations.tell(opened && text.settings_opened, notice, others && text.others.replace("{names}", () => others));
    },
  };
})();
