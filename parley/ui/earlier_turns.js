/* Of a long conversation the last turns are displayed, and the ones before as soon as somebody scrolls up to them.

What is not displayed is neither laid out nor painted, so that a key stroke and a token cost little more than in a short
conversation. On paper all turns are displayed. */
{
  const SHOWN = 50;  // messages and lines of buttons, about ten turns
  let begin = 0;  // the first one that is displayed
  let known = null;  // the conversation on the page
  let place = 0;  // where it was scrolled to
  const scroller = (wrap) => wrap.closest(".bubble-wrap");

  function show(wrap, first) {
    const parts = [...wrap.children], box = scroller(wrap);
    begin = Math.max(0, first);
    while (begin > 0 && !parts[begin].matches(".user-row")) begin -= 1;
    const below = box.scrollHeight - box.scrollTop;
    const changed = parts.filter((part, i) => part.hasAttribute("data-earlier") !== i < begin);
    for (const part of changed) part.toggleAttribute("data-earlier");
    if (changed.length) box.scrollTop = box.scrollHeight - below;
  }
  /* Whoever reads further up keeps what they see. */
  function changed(wrap) {
    const box = scroller(wrap), last = wrap.childElementCount - SHOWN;
    const isAtEnd = wrap !== known || box.scrollHeight - box.scrollTop - box.clientHeight < 100;
    known = wrap;
    show(wrap, isAtEnd ? last : Math.min(begin, last));
    while (begin > 0 && box.scrollHeight < 2 * box.clientHeight) show(wrap, begin - SHOWN);  // else nothing would scroll
  }
  new MutationObserver((changes) => {
    const wrap = document.querySelector("#chat .message-wrap");
    const isIn = ({ target, addedNodes }) => target === wrap || [...addedNodes].some((node) => node.contains(wrap));
    if (wrap && changes.some(isIn)) changed(wrap);
  }).observe(document.body, { childList: true, subtree: true });
  document.addEventListener("scroll", ({ target }) => {
    if (!target.matches?.("#chat .bubble-wrap")) return;
    const isUpwards = target.scrollTop < place;
    place = target.scrollTop;
    const wrap = isUpwards && begin && target.querySelector(".message-wrap");
    if (wrap && place < target.clientHeight) show(wrap, begin - SHOWN);
  }, { capture: true, passive: true });
}
