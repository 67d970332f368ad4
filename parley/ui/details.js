/* The details under an answer begin with links to #tab-1, #tab-2 and so on. They show one part of the details each. */
document.addEventListener("click", (event) => {
  const link = event.target.closest?.('#chat .thought-group a[href^="#tab-"]');
  if (!link) return;
  event.preventDefault();
  const parts = link.closest("p").parentElement;
  parts.dataset.tab = link.hash.slice("#tab-".length);
  for (const other of link.parentElement.querySelectorAll("a")) other.toggleAttribute("aria-current", other === link);
});
