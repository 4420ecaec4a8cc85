const { max_bytes } = JSON.parse(byId("data").textContent);
const MIN_THRESHOLD = 0.02; // lowest score that is requested
const MAX_TAGS = 200;

// The answers for the photo: `own` by the model's thresholds, `all` above MIN_THRESHOLD, `more` with
// boxes and a caption, `words` for the user's words.
let photo = null;
let known = {};
let isOwn = true; // the model's thresholds
let latest = 0; // number of the last request: answers to others are not shown

async function ask(parameters) {
  const answer = await fetch("tag?" + new URLSearchParams(parameters), { method: "POST", body: photo });
  const fields = await answer.json();
  if (!answer.ok) throw new Error(fields.message);
  return fields;
}

function complain(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

// Sends a request, and keeps the answer unless another request followed.
async function learn(name, parameters, turn) {
  try {
    const fields = await ask(parameters);
    if (turn !== latest) return;
    known[name] = fields;
    show();
  } catch (error) {
    if (turn !== latest) return;
    // An error of boxes does not hide that the photo cannot be read.
    if (name === "own" || byId("trouble").hidden) complain(error.message);
    show();
  }
}

function take(file) {
  if (!file) return;
  known = {};
  photo = file;
  const img = byId("photo");
  if (img.src) URL.revokeObjectURL(img.src);
  img.src = URL.createObjectURL(file);
  img.hidden = false;
  img.alt = file.name || "photo";
  askAll();
}

function askAll() {
  const turn = ++latest;
  complain("");
  show();
  if (!photo) return;
  if (photo.size > max_bytes) {
    complain(`This file has more than ${max_bytes / 1e6} MB.`);
    return;
  }
  const words = byId("words").value.trim();
  if (!known.own) learn("own", {}, turn);
  if (!known.all) learn("all", { threshold: MIN_THRESHOLD, top: MAX_TAGS }, turn);
  if (!known.more) learn("more", { boxes: 1, caption: 1 }, turn);
  if (words) learn("words", { labels: words, boxes: 1 }, turn);
}

function show() {
  const level = Number(byId("threshold").value);
  byId("level").value = isOwn ? "the model's" : level.toFixed(2);
  byId("own").setAttribute("aria-pressed", isOwn);
  const tags = isOwn ? known.own : known.all;
  const boxes = (known.more || {}).boxes || {};
  list("tags", tags && tags.scores, boxes, isOwn ? 0 : level);
  const words = known.words || {};
  list("asked", words.scores, words.boxes || {}, isOwn ? 0 : level);
  const isAsked = Boolean(photo) && byId("trouble").hidden;
  byId("caption").textContent = known.more ? known.more.generated_captions.join(" ")
    : isAsked ? "Boxes and a caption follow …" : "";
  byId("found").setAttribute("aria-busy", isAsked && !known.own);
  byId("box").hidden = true;
}

function list(id, scores, boxes, level) {
  byId(id).hidden = !scores;
  if (!scores) return;
  const rows = Object.entries(scores).filter(([, score]) => score > level).map(([tag, score]) => {
    const row = copyOf("row");
    row.querySelector("b").textContent = tag;
    row.querySelector("meter").value = score;
    row.querySelector("small").textContent = score.toFixed(2);
    const button = row.firstElementChild;
    button.classList.toggle("placed", tag in boxes);
    for (const event of ["mouseenter", "focus", "click"])
      button.addEventListener(event, () => point(tag, boxes[tag]));
    for (const event of ["mouseleave", "blur"])
      button.addEventListener(event, () => point(tag, null));
    return row;
  });
  byId(id).querySelector("ol").replaceChildren(...(rows.length ? rows : ["None above the threshold."]));
}

function point(tag, found) {
  const box = byId("box");
  box.hidden = !found;
  if (!found) return;
  place(box, found[0]);
  box.firstElementChild.textContent = tag;
}

byId("here").textContent = location.href;
byId("file").addEventListener("change", (event) => take(event.target.files[0]));
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
for (const name of ["dragover", "drop"])
  document.addEventListener(name, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
document.addEventListener("dragleave", () => byId("drop").classList.remove("over"));
byId("words").addEventListener("change", () => {
  delete known.words;
  askAll();
});
byId("threshold").addEventListener("input", () => {
  isOwn = false;
  show();
});
byId("own").addEventListener("click", () => {
  isOwn = true;
  show();
});
byId("photo").addEventListener("load", ({ target: img }) => {
  const room = byId("caption").clientWidth; // the column's
  const scale = Math.min(3, room / img.naturalWidth, (0.75 * innerHeight) / img.naturalHeight);
  img.width = Math.round(scale * img.naturalWidth);
});
byId("photo").addEventListener("error", () => {
  // The browser does not know the format; the server may.
  byId("photo").hidden = true;
});
show();
