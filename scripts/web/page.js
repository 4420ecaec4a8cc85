// The page: a photo comes in by a drop, a paste or a choice; its tags and the answers are lists.
"use strict";

const at = (id) => document.getElementById(id);
const loading = openModel();
let photo = null, queue = loading;  // one thing after the other: the model runs once at a time

function report(text, isBad = false) {
  at("state").textContent = text;
  at("state").classList.toggle("bad", isBad);
}

function row({ tag, score, given = true, isNew = false }) {
  const item = document.createElement("li"), name = document.createElement("span"), number = document.createElement("span");
  name.textContent = tag + (isNew ? " (new word)" : "");
  number.textContent = score.toFixed(2) + (given ? "" : ", not found");
  item.classList.toggle("not", !given);
  item.style.setProperty("--score", `${100 * score}%`);
  item.append(name, number);
  return item;
}

function later(work) {
  queue = queue.then(work).catch((error) => report(String(error?.message ?? error), true));
}

async function show(file) {
  report("Looking at the photo …");
  await new Promise((resolve) => setTimeout(resolve));  // let the browser draw the line
  const start = performance.now();
  try {
    photo = await readPhoto(file);
  } catch {
    return report(`${file.name}: your browser cannot read this as a photo.`, true);
  }
  URL.revokeObjectURL(at("photo").src);
  at("photo").src = URL.createObjectURL(file);
  at("photo").hidden = false;
  at("hint").hidden = true;
  const tags = await tagsOf(photo);
  at("tags").replaceChildren(...tags.map(row));
  await answer();
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  report(`${file.name}: ${tags.length ? `${tags.length} tags` : "no tag is certain enough"}, ${seconds} seconds.`);
}

async function answer() {
  const words = [...new Set(at("words").value.split(/[,;\n]/).map((word) => word.trim()).filter(Boolean))];
  const { rated, unknown } = photo && words.length ? await wordsOf(photo, words) : { rated: [], unknown: [] };
  at("answers").replaceChildren(...rated.map(row));
  at("unknown").textContent = unknown.length ? `The model knows no part of: ${unknown.join(", ")}` : "";
  if (!photo && words.length) report("Choose a photo first.", true);
}

function take(files) {
  if (files.length) later(() => show(files[0]));
}

at("file").addEventListener("change", () => take(at("file").files));
at("ask").addEventListener("submit", (event) => { event.preventDefault(); later(answer); });
addEventListener("paste", (event) => take(event.clipboardData.files));
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
loading.then(() => report("Ready. Choose a photo."), (error) => report(`The model cannot be loaded: ${error}`, true));
