/* Shows the page in the language of `?lang=`, if there is a file for it (see translations/__init__.py).

   The server speaks English only. Each text that appears is looked up before it is painted. What models and visitors
   write is left alone. */
{
  const language = new URLSearchParams(location.search).get("lang");
  const languages = document.querySelector('meta[name="languages"]').content.split(" ");
  const NAMES = ["placeholder", "aria-label", "title"];
  const show = (table) => {
    const text = (node) => {
      const english = node.data.trim(), other = table[english];
      if (other && other !== english && !node.parentElement?.closest("#chat :is(.message .prose, .example), textarea"))
        node.data = node.data.replace(english, () => other);
    };
    const names = (element) => {
      for (const name of NAMES) {
        const english = element.getAttribute(name), other = table[english];
        if (other && other !== english && !element.closest("#chat .message .prose")) element.setAttribute(name, other);
      }
    };
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
