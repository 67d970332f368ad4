/* Saves a view as a page of its own that opens offline (see saved_view.py), its figures as a table or a drawing, and puts
   it into a link. */
window.savedView = (() => {
  const { saved: texts } = JSON.parse(document.getElementById("panel-data").textContent);
  const MAX_LINK = 60_000;  // characters; browsers open longer ones, but what sends a link may cut it off
  const DIGITS = 4;  // of a number in a link

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

  /* The view after the `#` of an address, which no browser sends to a server: JSON, packed by deflate, in base64url. */
  async function link(view, { about, data }) {
    const short = (_, value) => (typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(DIGITS)) : value);
    const packed = new Blob([JSON.stringify({ about, data }, short)]).stream().pipeThrough(new CompressionStream("deflate-raw"));
    const bytes = new Uint8Array(await new Response(packed).arrayBuffer());
    const letters = btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ""));
    return `${new URL(`shared/${view}`, document.baseURI)}#${letters.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
  }
  async function copyLink(view, saved, button) {
    const made = await link(view, saved);
    const says = (text) => { button.textContent = text };
    if (made.length > MAX_LINK) return says(texts.too_long.replace("{count}", made.length.toLocaleString("en")).replace("{most}", MAX_LINK.toLocaleString("en")));
    await navigator.clipboard.writeText(made);
    says(texts.copied);
  }

  /* What can be done with a view, folded. `saved` and `rows` give what they save, `figure` the element that is drawn. Without `saved`
     the figures alone can be saved. */
  function buttons(view, { saved = null, rows, figure }) {
    const made = (name, press) => {
      const button = Object.assign(document.createElement("button"),
        { type: "button", className: `${name} save-view free`, title: texts[`${name}_help`], textContent: texts[name], onclick: () => press(button) });
      return button;
    };
    const box = document.createElement("details"), list = document.createElement("div");
    const name = Object.assign(document.createElement("summary"), { textContent: texts.saves });
    const whole = saved ? [made("save", () => save(view, saved())), made("with_result", (button) => copyLink(view, saved(), button))] : [];
    list.append(...whole, made("csv", () => csv(view, rows())), made("svg", () => {
      const drawn = figure();
      download(`parley-${view}.svg`, svgPicture.draw(drawn), "image/svg+xml");
      if (drawn.matches(".figure")) drawn.remove();  // it was made for this
    }));
    box.className = "saves";
    box.append(name, list);
    box.addEventListener("focusout", (event) => { if (event.relatedTarget && !box.contains(event.relatedTarget)) box.open = false });
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !box.open) return;
      event.stopPropagation();
      box.open = false;
      name.focus();
    });
    return box;
  }
  return { buttons, download };
})();
