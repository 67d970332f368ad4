/* For a page that embeds Parley: <script src="https://…/embed.js" data-max="800" defer></script> makes each frame of this
   Space as high as what it shows, up to `data-max` pixels. The frame tells its height, and nothing else. */
(() => {
  const { src, dataset } = document.currentScript, { origin } = new URL(src), most = Number(dataset.max) || 800;
  const LEAST = 360;
  addEventListener("message", ({ origin: from, source, data }) => {
    if (from !== origin || !Number.isFinite(data?.parleyHeight)) return;
    for (const frame of document.querySelectorAll("iframe"))
      if (frame.contentWindow === source) frame.style.height = `${Math.min(most, Math.max(LEAST, data.parleyHeight))}px`;
  });
})();
