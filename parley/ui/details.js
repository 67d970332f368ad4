/* The details under an answer begin with links to #tab-1, #tab-2 and so on. They show one part of the details each.

   `data-tab` says which one is shown. `data-folded` marks the rows of what is folded, and `data-failed` what went wrong, whose
   title is bold. With `:has` in the place of these marks, the browser would style the whole conversation for each token. */
document.addEventListener("click", (event) => {
  const link = event.target.closest?.('#chat .thought-group a[href^="#tab-"]');
  if (!link) return;
  event.preventDefault();
  const parts = link.closest("p").parentElement;
  parts.dataset.tab = link.hash.slice("#tab-".length);
  for (const other of link.parentElement.querySelectorAll("a")) other.toggleAttribute("aria-current", other === link);
});
{
  const mark = (row) => {
    const groups = [...row.querySelectorAll(".thought-group")];
    for (const group of groups) {
      group.toggleAttribute("data-failed", Boolean(group.querySelector(".title strong")));
      for (const text of group.querySelectorAll(".md"))
        if (text.querySelector(':scope > p:first-child a[href^="#tab-"]')) text.dataset.tab ??= "1";
        else delete text.dataset.tab;
    }
    row.toggleAttribute("data-folded", groups.length > 0);
    row.toggleAttribute("data-failed", groups.some((group) => group.hasAttribute("data-failed")));
  };
  const rows = ({ target, addedNodes }) => {
    const row = target.closest?.("#chat .message-row");
    return row ? [row] : [...addedNodes].flatMap((node) =>
      node.matches?.("#chat .message-row") ? [node] : [...(node.querySelectorAll?.("#chat .message-row") ?? [])]);
  };
  new MutationObserver((changes) => new Set(changes.flatMap(rows)).forEach(mark))
    .observe(document.body, { childList: true, subtree: true });
}
