/* Shows the page in the language of `?lang=`, if there is a file for it (see translations/__init__.py).

   The server speaks English only. Each text that appears is looked up before it is painted. What models and visitors
   write is left alone. */
{
  const language = new URLSearchParams(location.search).get("lang");
  const languages = document.querySelector('meta[name="languages"]').content.split(" ");
  const NAMES = ["placeholder", "aria-label", "aria-description", "aria-valuetext", "title", "data-hint", "data-group"];
  /* What a model or a visitor has written. */
  const THEIRS = "#chat :is(.message .prose, .example:not(:first-of-type)), textarea, #conversation-list .name, pre, " +
    "[data-theirs], [translate=no]";
  /* What is ours in it: the titles of what is folded, errors, the figures, and the heads of the table of beams. */
  const OURS = '#chat .thought-group :is(.title, th, td:nth-child(2)), #chat .thought-group:has(.title strong) .prose, ' +
    '#chat .thought-group .md:has(> p a[href^="#tab-"]) :is(a, li)';
  const show = (table) => {
    /* "About {label}": the longest one that fits. A count is a number, so that no sentence that ends alike is taken for one. */
    const templates = Object.keys(table).filter((english) => /\{\w+\}/.test(english)).map((english) => {
      const form = english.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace("{count}", "(?<count>[\\d.,]+)").replace(/\{(\w+)\}/g, "(?<$1>.+?)");
      return { form: new RegExp(`^${form}$`, "s"), other: table[english], length: english.replace(/\{\w+\}/g, "").length };
    }).sort((a, b) => b.length - a.length);
    const translated = (english) => {
      if (Object.hasOwn(table, english)) return table[english];
      const parts = english.split(" · ");
      if (parts.length > 1) return parts.map(translated).join(" · ");
      for (const { form, other } of templates) {
        const places = form.exec(english)?.groups;
        if (places) return other.replace(/\{(\w+)\}/g, (_, place) => translated(places[place]));
      }
      return english.includes(", ") ? english.split(", ").map(translated).join(", ") : english;
    };
    const shown = new WeakMap(); // what an element shows now, which is not to be translated again
    const text = (node) => {
      const english = node.data.trim(), at = node.parentElement;
      if (!english || shown.get(node) === node.data || (at?.closest(THEIRS) && !at.closest(OURS))) return;
      const other = translated(english);
      if (other === english) return;
      node.data = node.data.replace(english, () => other);
      shown.set(node, node.data);
    };
    const names = (element) => {
      for (const name of NAMES) {
        const english = element.getAttribute(name), known = shown.get(element) ?? {};
        if (!english || known[name] === english || element.closest("#chat .message .prose, [translate=no]")) continue;
        const other = translated(english);
        if (other === english) continue;
        shown.set(element, { ...known, [name]: other });
        element.setAttribute(name, other);
      }
    };
    document.documentElement.style.setProperty("--off", JSON.stringify(translated("off"))); // for panel.css
    const all = (node) => {
      if (node.nodeType === Node.TEXT_NODE) text(node);
      if (node.nodeType === Node.ELEMENT_NODE) names(node);
      node.childNodes.forEach(all);
    };
    new MutationObserver((changes) => {
      for (const { type, target, addedNodes } of changes) {
        if (type === "characterData") text(target);
        else if (type === "attributes") names(target);
        else addedNodes.forEach(all);
      }
    }).observe(document.body, {
      subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: NAMES,
    });
    const root = document.documentElement;
    const name = () => {
      if (root.lang !== language) root.lang = language;
    };
    new MutationObserver(name).observe(root, { attributeFilter: ["lang"] }); // Gradio names its own language
    name();
    all(document.body);
  };
  if (languages.includes(language))
    fetch(`translations/${language}.json`).then((answer) => answer.json()).then(show);
}
