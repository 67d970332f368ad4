/* Makes an SVG drawing of an element as it stands on the page: its boxes, its lines of text, and the drawings in it.

   The drawing needs no style sheet and no font file, and has text that can be selected. */
window.svgPicture = (() => {
  const { svg } = drawing;
  const MARGIN = 12, DRAWN = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-weight", "font-family", "text-anchor"];
  const seen = (colour) => colour !== "transparent" && !/, 0\)$/.test(colour);

  /* One text node, as one element for each line that it takes on the page. */
  function lines(node, style, place, measure) {
    const range = document.createRange(), made = [];
    let line = null;
    for (let at = 0, next; at < node.length; at = next) {
      next = at + (node.data.codePointAt(at) > 0xffff ? 2 : 1);
      range.setStart(node, at);
      range.setEnd(node, next);
      const box = range.getClientRects()[0];
      if (!box?.width) continue;
      if (!line || Math.abs(box.top - line.top) > 2) made.push(line = { text: "", left: box.left, top: box.top, bottom: box.bottom });
      line.text += node.data.slice(at, next);
      line.right = box.right;
    }
    measure.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    const { fontBoundingBoxAscent: ascent, fontBoundingBoxDescent: descent } = measure.measureText("x");
    return made.filter((each) => each.text.trim()).map((each) => {
      const values = { x: each.left - place.left, y: each.top - place.top + (each.bottom - each.top - ascent - descent) / 2 + ascent,
        fill: style.color, "font-size": style.fontSize, "font-weight": style.fontWeight, "font-family": style.fontFamily };
      if (each.text.length > 1) Object.assign(values, { textLength: each.right - each.left, lengthAdjust: "spacingAndGlyphs" });
      return svg("text", { ...values, "xml:space": "preserve" }, each.text);
    });
  }
  /* What an element has behind its text, once for each line that it takes. */
  function boxes(element, style, place) {
    const [, bar, share] = /^linear-gradient\(to right, (rgba?\([^)]*\)) ([\d.]+)%/.exec(style.backgroundImage) ?? [];
    const [, under, height] = /^(rgba?\([^)]*\)) 0px -([\d.]+)px 0px 0px inset/.exec(style.boxShadow) ?? [];
    const border = parseFloat(style.borderBottomWidth) && seen(style.borderBottomColor) ? parseFloat(style.borderBottomWidth) : 0;
    const around = border && parseFloat(style.borderTopWidth) && seen(style.borderTopColor);
    return [...element.getClientRects()].flatMap((box) => {
      const at = { x: box.left - place.left, y: box.top - place.top, width: box.width, height: box.height };
      const rounded = { ...at, rx: Math.min(parseFloat(style.borderTopLeftRadius) || 0, box.height / 2) };
      const lowest = (width, fill) => svg("rect", { ...at, y: at.y + at.height - width, height: width, fill });
      return [
        seen(style.backgroundColor) || around ? svg("rect", { ...rounded, fill: seen(style.backgroundColor) ? style.backgroundColor : "none", ...(around && { stroke: style.borderTopColor }) }) : null,
        share > 0 ? svg("rect", { ...at, width: (at.width * share) / 100, fill: bar }) : null,
        under ? lowest(Number(height), under) : null,
        border && !around ? lowest(border, style.borderBottomColor) : null,
      ].filter((each) => each && at.width && at.height);
    });
  }
  /* A drawing in the element, with what its style sheet says. */
  function inner(drawn, place) {
    const box = drawn.getBoundingClientRect(), copy = drawn.cloneNode(true);
    for (const [own, its] of [[drawn, copy], ...[...drawn.querySelectorAll("*")].map((each, at) => [each, copy.querySelectorAll("*")[at]])]) {
      const style = getComputedStyle(own);
      for (const name of DRAWN) its.setAttribute(name, style.getPropertyValue(name));
      for (const name of ["class", "role", "aria-label"]) its.removeAttribute(name);
    }
    for (const [name, value] of Object.entries({ x: box.left - place.left, y: box.top - place.top, width: box.width, height: box.height })) copy.setAttribute(name, value);
    return copy;
  }
  function parts(node, place, measure) {
    if (node.nodeType === Node.TEXT_NODE) return lines(node, getComputedStyle(node.parentElement), place, measure);
    if (node.nodeType !== Node.ELEMENT_NODE || node.matches(".press") || !node.checkVisibility({ visibilityProperty: true })) return [];
    if (node instanceof SVGSVGElement) return [inner(node, place)];
    return [...boxes(node, getComputedStyle(node), place), ...[...node.childNodes].flatMap((each) => parts(each, place, measure))];
  }

  /* The source of the drawing. Buttons that begin something are left out. */
  function draw(element) {
    const box = element.getBoundingClientRect(), place = { left: box.left - MARGIN, top: box.top - MARGIN };
    const inside = parts(element, place, document.createElement("canvas").getContext("2d"));
    const all = [element, ...element.querySelectorAll("*")].filter((each) => each.checkVisibility()).map((each) => each.getBoundingClientRect());
    const width = Math.max(...all.map((each) => each.right)) - place.left + MARGIN, height = Math.max(...all.map((each) => each.bottom)) - place.top + MARGIN;
    const whole = svg("svg", { width, height, viewBox: `0 0 ${Math.ceil(width)} ${Math.ceil(height)}` },
      svg("rect", { width, height, fill: getComputedStyle(document.body).backgroundColor }), ...inside);
    return new XMLSerializer().serializeToString(whole);
  }
  return { draw };
})();
