/* Settings, a first message and how the page looks can stand in the address: ?model=…&strategy=beams&prompt=…&run=1&embed=1
   ?view=tokens&text=… opens a view in the place of the conversation. */
window.links = (() => {
  const OWN = ["prompt", "run", "embed", "lang", "text"], GRADIO = /^__|^(view|deep_link|logs)$/, USED = "parley.link";
  const query = new URLSearchParams(location.search);
  document.documentElement.classList.toggle("embed", query.get("embed") === "1");

  /* What the address asks for, once for each tab; null where it asks for nothing. */
  function given() {
    if (query.get("view") === "compare") return null;  // see views/compare.js
    const settings = Object.fromEntries([...query].filter(([name]) => !OWN.includes(name) && !GRADIO.test(name)));
    const prompt = query.get("prompt") ?? "", asked = Object.keys(settings).length > 0 || prompt;
    if (!asked || sessionStorage.getItem(USED) === location.search) return null;
    sessionStorage.setItem(USED, location.search);
    return { settings, prompt, run: query.get("run") === "1" && Boolean(prompt) };
  }
  /* Resolves when the page can be seen, also inside of a frame that is scrolled to later. */
  const seen = () => new Promise((done) => {
    new IntersectionObserver((entries, observer) => {
      if (!entries.some((each) => each.isIntersecting)) return;
      observer.disconnect();
      done();
    }).observe(document.querySelector("#message") ?? document.body);
  });
  function address(settings, usual, prompt, extra = {}) {
    const link = new URL(location.pathname, location.origin);
    for (const [name, value] of Object.entries(settings))
      if (name === "model" || name === "strategy" || (value ?? "") !== (usual[name] ?? "")) link.searchParams.set(name, value ?? "");
    if (prompt) link.searchParams.set("prompt", prompt);
    for (const [name, value] of Object.entries(extra)) link.searchParams.set(name, value);
    return String(link);
  }
  const embed = (url) => `<iframe src="${url.replaceAll("&", "&amp;")}" width="700" height="500" title="Parley"></iframe>`;
  /* Tells the page around how high this one is without scrolling: see embed.js. Nothing else is told. */
  function tellHeight() {
    let due = 0, told = 0;
    const tell = () => {
      due = 0;
      const compared = document.getElementById("compare"), chat = document.querySelector("#chat .bubble-wrap");
      const [place, height] = compared?.checkVisibility() ? [compared, compared.scrollHeight] : [chat, chat?.firstElementChild?.offsetHeight];
      const wanted = place && Math.ceil(innerHeight - place.clientHeight + height);
      if (!wanted || wanted === told) return;
      told = wanted;
      parent.postMessage({ parleyHeight: wanted }, "*");
    };
    new MutationObserver(() => { due ||= requestAnimationFrame(tell) }).observe(document.body, { childList: true, subtree: true, characterData: true });
  }
  if (parent !== window && query.get("embed") === "1") tellHeight();
  const view = { name: query.get("view") ?? "", text: query.get("text") ?? "" };
  return { given, view, seen, address, embed };
})();
