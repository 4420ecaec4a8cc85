"use strict";
const byId = (id) => document.getElementById(id);
const copyOf = (id) => byId(id).content.cloneNode(true).firstElementChild;

function make(kind, text = "", className = "") {
  return Object.assign(document.createElement(kind), { textContent: text, className });
}

// Corners are fractions of the photo's width and height.
function place(box, [x0, y0, x1, y1]) {
  const [left, top, width, height] = [x0, y0, x1 - x0, y1 - y0].map((fraction) => `${100 * fraction}%`);
  Object.assign(box.style, { left, top, width, height });
}
