/* Shows the one view of a saved page with `draw`, or of a link: its data stand after the `#`, as saved_view.js put them. */
{
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const colour = () => document.documentElement.classList.toggle("dark", scheme.matches);
  scheme.addEventListener("change", colour);
  colour();
  const place = (name) => document.getElementById(name);
  function show({ title, about, data, texts, labels }) {
    document.title = `${title} · Parley`;
    document.querySelector("h1").textContent = title;
    place("about").textContent = about;
    document.querySelector("main").append(draw(data, { texts, labels }));
  }
  async function open(letters, { shared, parley, ...known }) {
    const bytes = Uint8Array.from(atob(letters.replaceAll("-", "+").replaceAll("_", "/")), (each) => each.charCodeAt(0));
    const whole = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    show({ ...await new Response(whole).json(), ...known });
    const link = Object.assign(document.createElement("a"), { href: "../", textContent: parley });
    place("about").append(` · ${shared} `, link);
  }
  const saved = JSON.parse(place("saved").textContent);
  if (!saved.shared) show(saved);
  else open(location.hash.slice(1), saved).catch((error) => {
    console.info(error);
    document.querySelector("main").replaceChildren(saved.damaged);
  });
}
