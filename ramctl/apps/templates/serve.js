const { max_bytes } = JSON.parse(byId("data").textContent);
const MIN_THRESHOLD = 0.02; // lowest score that is requested
const MAX_TAGS = 200;

// The photo on the page has its file, its URL, and the answers for it: `own` by the model's
// thresholds, `all` above MIN_THRESHOLD, `more` with boxes and a caption, `words` for the user's.
let photo = null;
let isOwn = true; // the model's thresholds
let unable = ""; // why there are no boxes and captions

async function ask(file, parameters) {
  let answer;
  try {
    answer = await fetch("tag?" + new URLSearchParams(parameters), { method: "POST", body: file });
  } catch {
    throw new Error("no answer: is ramctl serve still running?");
  }
  const fields = await answer.json();
  if (!answer.ok) throw new Error(fields.message.replace(/^the photo: /, ""));
  return fields;
}

function complain(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

// Tags a file and shows it. An error changes nothing but the line of errors.
async function take([file]) {
  if (!file) return;
  const name = file.name || "photo";
  complain("");
  byId("progress").textContent = `Tagging ${name} …`;
  byId("progress").hidden = false;
  try {
    if (file.size > max_bytes) throw new Error(`more than ${max_bytes / 1e6} MB`);
    choose({ file, name, known: { own: await ask(file, {}) }, url: URL.createObjectURL(file) });
  } catch (error) {
    complain(`${name}: ${error.message}`);
  }
  byId("progress").hidden = true;
}

function choose(chosen) {
  photo = chosen;
  byId("photo").src = photo.url;
  byId("photo").hidden = false;
  byId("photo").alt = photo.name;
  learnAll();
}

// Keeps an answer for a photo; an error leaves the earlier one.
async function learn(target, name, parameters) {
  try {
    target.known[name] = { ...(await ask(target.file, parameters)), parameters };
  } catch (error) {
    if (name === "more") unable = error.message;
    else if (target === photo) complain(error.message);
  }
  if (target === photo) show();
}

function learnAll() {
  show();
  if (!photo) return;
  const labels = byId("words").value.trim();
  const { more, words } = photo.known;
  learnLow();
  if (!more && !unable) learn(photo, "more", { boxes: 1, caption: 1 });
  if (!labels) delete photo.known.words;
  else if (!words || words.parameters.labels !== labels) {
    complain("");
    learn(photo, "words", { labels, threshold: 0, ...(unable ? {} : { boxes: 1 }) });
  }
}

function learnLow() {
  if (photo && !isOwn) photo.low ??= learn(photo, "all", { threshold: MIN_THRESHOLD, top: MAX_TAGS });
}

function show() {
  const level = Number(byId("threshold").value);
  byId("level").value = isOwn ? "the model's" : level.toFixed(2);
  byId("own").setAttribute("aria-pressed", isOwn);
  const { own, all, more, words } = photo ? photo.known : {};
  const tags = isOwn || !all ? own : all;
  list("tags", tags && tags.scores, (more || {}).boxes || {}, isOwn ? 0 : level);
  list("asked", words && words.scores, (words || {}).boxes || {}, isOwn ? 0 : level);
  const caption = more ? more.generated_captions.join(" ")
    : unable ? `No boxes and no caption: ${unable}.` : photo ? "Boxes and a caption follow …" : "";
  const isExample = photo && photo.isExample ? "An example: drop a photo of your own. " : "";
  byId("caption").textContent = isExample + caption;
  byId("copy").disabled = !byId("tags").querySelector("b");
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

async function copyTags() {
  const text = [...document.querySelectorAll("#tags b")].map((tag) => tag.textContent).join(", ");
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https, browsers let pages of other machines copy only what is selected.
    const area = make("textarea", text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  byId("copy").textContent = "Copied";
  setTimeout(() => (byId("copy").textContent = "Copy tags"), 1500);
}

byId("here").textContent = location.href;
byId("file").addEventListener("change", ({ target }) => take(target.files));
document.addEventListener("paste", ({ clipboardData }) => take(clipboardData.files));
for (const name of ["dragover", "drop"])
  document.addEventListener(name, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files);
  });
document.addEventListener("dragleave", () => byId("drop").classList.remove("over"));
byId("words").addEventListener("change", learnAll);
byId("threshold").addEventListener("input", () => {
  isOwn = false;
  show();
  learnLow();
});
byId("own").addEventListener("click", () => {
  isOwn = true;
  show();
});
byId("copy").addEventListener("click", copyTags);
byId("photo").addEventListener("load", ({ target: img }) => {
  const room = byId("caption").clientWidth; // the column's
  const scale = Math.min(3, room / img.naturalWidth, (0.75 * innerHeight) / img.naturalHeight);
  img.width = Math.round(scale * img.naturalWidth);
});
byId("photo").addEventListener("error", () => {
  // The browser does not know the format; the server may.
  byId("photo").hidden = true;
});

// An example, until the user has a photo. If it cannot be tagged, the page begins without it.
const content = Uint8Array.from(atob(byId("example").textContent), (letter) => letter.charCodeAt(0));
const file = new Blob([content], { type: "image/jpeg" });
ask(file, {}).then((own) => {
  if (!photo) choose({ file, name: "an example", known: { own }, url: URL.createObjectURL(file), isExample: true });
}, () => {});
show();
