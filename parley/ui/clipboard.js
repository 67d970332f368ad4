/* Copying on a page that came over plain HTTP from another machine, such as a teacher's laptop: browsers offer
   navigator.clipboard to secure origins only. What is copied there takes the older way, Gradio's buttons included. */
if (!navigator.clipboard) {
  Object.defineProperty(navigator, "clipboard", { configurable: true, value: { async writeText(text) {
    const before = document.activeElement, held = document.createElement("textarea");
    held.value = text;
    held.style.cssText = "position: fixed; opacity: 0";
    (before?.closest("dialog") ?? document.body).append(held);  // what is outside of an open dialog cannot be selected
    held.select();
    const copied = document.execCommand("copy");
    held.remove();
    before?.focus();
    if (!copied) throw new DOMException("The browser does not let this page copy.", "NotAllowedError");
  } } });
}
