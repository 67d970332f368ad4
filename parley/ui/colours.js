/* Light or dark: as the system is, until the visitor chooses with the button in the title. The browser keeps the choice. */
{
  const KEY = "parley-colours";
  const colours = document.body.classList;
  const apply = () => {
    const chosen = localStorage.getItem(KEY);
    if (chosen && colours.contains("dark") !== (chosen === "dark")) colours.toggle("dark");
  };
  apply();
  /* Gradio sets the class at its start, and again when the system changes. */
  new MutationObserver(apply).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("#colours")) return;
    localStorage.setItem(KEY, colours.contains("dark") ? "light" : "dark");
    apply();
  });
}
