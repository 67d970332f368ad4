/* Saves a view as a page of its own that opens offline (see saved_view.py), and its figures as a table. */
window.savedView = (() => {
  const { saved: texts } = JSON.parse(document.getElementById("panel-data").textContent);

  function download(name, content, type) {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([content], { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href));
  }
  /* `saved` has title, about, data, texts and labels. What it holds cannot end the script that it is put into. */
  async function save(view, saved) {
    const page = await (await fetch(`saved_view/${view}.txt`)).text();
    const content = JSON.stringify(saved).replaceAll("<", "\\u003c");
    download(`parley-${view}.html`, page.replace('id="saved">{}<', () => `id="saved">${content}<`), "text/html");
  }
  /* A cell that a spreadsheet would take for a formula begins with an apostrophe. */
  function cell(value) {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }
  const table = (rows) => rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  const csv = (view, rows) => download(`parley-${view}.csv`, table(rows), "text/csv");

  /* Two buttons. `saved` and `rows` give what they save. */
  function buttons(view, saved, rows) {
    const made = (name, press) => Object.assign(document.createElement("button"),
      { type: "button", className: `${name} save-view`, title: texts[`${name}_help`], textContent: texts[name], onclick: press });
    return [made("save", () => save(view, saved())), made("csv", () => csv(view, rows()))];
  }
  return { buttons, download };
})();
