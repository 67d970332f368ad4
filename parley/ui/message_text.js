/* Prepares what is written in a message for Gradio's Markdown, so that no character of it vanishes.

   Gradio calls `shownText` for each text (see gradio_patches.py). Copying and editing use the text as it was written.
   - `$x$` is mathematics where Pandoc says so: no blank space inside the signs, and no letter or digit outside.
     Other dollar signs are dollar signs.
   - A single tilde strikes nothing. Two do.
   - A tag that is not in TAGS is text. So "if a<b then c>d" is shown whole, and no form or image comes out of it. */
window.shownText = (() => {
  const TAGS = "b|br|code|dd|del|details|dl|dt|em|hr|i|ins|kbd|mark|p|s|small|strong|sub|summary|sup|u";
  const kept = new RegExp([
    /(?<=^|\n)[ \t]*(`{3,}|~{3,})[^\n]*(?:\n[\s\S]*?(?:\n[ \t]*\1[`~]*[ \t]*(?=\n|$)|$)|$)/, // a fenced block of code
    /(?<=^|\n[ \t]*\n)(?:(?: {4}|\t)[^\n]*(?:\n|$))+/, // an indented block of code
    /(?<!`)(`+)(?!`)(?:(?!\n[ \t]*\n)[\s\S])*?(?<!`)\2(?!`)/, // code in a line
    /\$\$[\s\S]+?\$\$|\\\[[\s\S]+?\\\]|\\\([\s\S]+?\\\)/, // mathematics
    /<?\bhttps?:\/\/[^\s<>]+>?/,
  ].map((part) => part.source).join("|"), "g");
  const math = /(?<![\\$\w])\$(?![\s$])((?:[^$\n\\]|\\.)+?)(?<!\s)\$(?![$\w])/g;
  const tag = new RegExp(String.raw`<(?!\/?(?:${TAGS})\s*\/?>|(?:https?:|mailto:)[^\s<>]+>)`, "gi");
  const text = (piece) => piece.replace(/(?<!~)~(?!~)/g, "\\~").replace(tag, "&lt;");
  const prepared = (piece) => {
    let shown = "", end = 0;
    for (const found of piece.matchAll(math)) {
      shown += text(piece.slice(end, found.index)) + `\\(${found[1]}\\)`;
      end = found.index + found[0].length;
    }
    return shown + text(piece.slice(end));
  };
  return (written) => {
    let shown = "", end = 0;
    for (const found of written.matchAll(kept)) {
      shown += prepared(written.slice(end, found.index)) + found[0];
      end = found.index + found[0].length;
    }
    return shown + prepared(written.slice(end));
  };
})();
