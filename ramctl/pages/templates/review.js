const { name, tags, records, entries } = JSON.parse(byId("data").textContent);
const PER_PAGE = 60;
const LONGER_SIDE = 240; // of a photo, in pixels
const OPPOSITE = { keep: "remove", remove: "keep", add: "remove" };

// The decisions: a log of [image, tag, verdict or null, number of the step], kept by the browser.
// Undo removes the lines of the last step.
const storage = "ramctl review " + name;
const keyOf = (image, tag) => JSON.stringify([image, tag]);
for (const entry of entries) {
  entry.image = records[entry.record].image;
  entry.key = keyOf(entry.image, tags[entry.tag].tag);
}
const before = new Map();
for (const { key, image, tag, verdict } of entries)
  if (verdict) before.set(key, [image, tags[tag].tag, verdict]);
let log = [];
let decided = new Map(before);
try {
  take(JSON.parse(localStorage.getItem(storage)) || []);
} catch (error) {
  warn(error);
}

function take(lines) {
  log = lines;
  decided = new Map(before);
  log.forEach(apply);
}

function apply(line) {
  const key = keyOf(line[0], line[1]);
  decided.delete(key);
  if (line[2]) decided.set(key, line);
}

function keepLog() {
  try {
    localStorage.setItem(storage, JSON.stringify(log));
  } catch (error) {
    warn(error);
  }
}

let isKept = true;
function warn(error) {
  isKept = false;
  byId("trouble").textContent =
    `This browser keeps nothing (${error.message}): download the decisions before you leave.`;
  byId("trouble").hidden = false;
}

// The verdict of accepting: for a tag that was removed, added by a person, or neither.
const accepted = (entry) =>
  entry.state === "removed" ? "remove" : entry.verdict === "add" ? "add" : "keep";
const verdictOf = (entry) => (decided.get(entry.key) || [])[2];

// The probability that a tag is wrong; without a score it is unknown.
const doubtOf = (entry) => 1 - (entry.score ?? 0.5);
const isGiven = (entry) => entry.state === "given" && entry.verdict !== "add";
const sumOfDoubts = (places) => places.reduce((sum, i) => sum + doubtOf(entries[i]), 0);
if (entries.some(isGiven)) {
  // The tags with most expected mistakes first, and of each tag the lowest scores.
  const expected = tags.map(() => 0);
  for (const entry of entries) expected[entry.tag] += doubtOf(entry);
  entries.sort((a, b) => expected[b.tag] - expected[a.tag] || a.tag - b.tag || doubtOf(b) - doubtOf(a));
}

// The places of the entries that pass the filters; a page of them is shown as cards.
// By photo, the first entry of a photo stands for all of them, which are `chips` on its card.
let shown = [];
let chips = new Map(); // entries by their record
let view = "tag";
let current = 0;
let cards = new Map();

function filter() {
  const at = byId("view").value === view ? shown[current] : undefined;
  const tag = byId("tag").value;
  const state = byId("state").value;
  const openOnly = byId("open").checked;
  shown = [...entries.keys()].filter((i) =>
    (tag === "" || entries[i].tag === Number(tag)) &&
    (state === "" || entries[i].state === state) &&
    !(openOnly && decided.has(entries[i].key)));
  view = byId("view").value;
  if (view !== "tag") shown.sort((a, b) => doubtOf(entries[b]) - doubtOf(entries[a]));
  chips = new Map();
  for (const i of shown)
    chips.set(entries[i].record, [...(chips.get(entries[i].record) || []), i]);
  if (view === "photo")
    shown = [...chips.values()].sort((a, b) => sumOfDoubts(b) - sumOfDoubts(a)).map(([first]) => first);
  current = Math.max(0, placeOf(at)); // the first one in another view
  showPage();
}

// The place of an entry, or of its photo, among what is shown.
const placeOf = (i) => (view !== "photo" || i === undefined ? shown.indexOf(i)
  : shown.findIndex((first) => entries[first].record === entries[i].record));
const pageOf = (place) => Math.floor(place / PER_PAGE);
let pageShown = -1;

function showPage() {
  pageShown = pageOf(current);
  cards = new Map();
  const parts = [];
  let tag, grid;
  for (const i of shown.slice(pageShown * PER_PAGE, (pageShown + 1) * PER_PAGE)) {
    const group = view === "tag" ? entries[i].tag : view;
    if (group !== tag) {
      tag = group;
      const part = view === "tag" ? sectionOf(tags[tag]) : make("section");
      if (view !== "tag") part.append(make("div", "", "grid"));
      grid = part.querySelector(".grid");
      parts.push(part);
    }
    const card = cardOf(i);
    cards.set(i, card);
    grid.append(card);
  }
  byId("cards").replaceChildren(...parts);
  if (!parts.length) byId("cards").textContent = "Nothing passes these filters.";
  const n = Math.max(1, Math.ceil(shown.length / PER_PAGE));
  byId("page").value = `page ${pageShown + 1} of ${n}`;
  byId("back").disabled = pageShown === 0;
  byId("forth").disabled = pageShown === n - 1;
  mark();
  count();
}

function sectionOf({ tag, kind, given, added = 0, removed = 0, kept = 0 }) {
  const part = copyOf("section");
  part.querySelector("h2").textContent = tag;
  const done = given ? [`${given} photo${given === 1 ? "" : "s"}`] : [`${removed} removed`, `${added} added`, `${kept} others`];
  part.querySelector(".facts").textContent = [kind, ...done].filter(Boolean).join(" · ");
  return part;
}

function cardOf(i) {
  const entry = entries[i];
  const record = records[entry.record];
  const card = copyOf("card");
  const find = (selector) => card.querySelector(selector);
  showPhoto(record, find("img"));
  if (view === "photo") {
    for (const part of [".state", "figcaption .facts"]) find(part).remove();
    for (const place of chips.get(entry.record)) find(".chips").append(chipOf(place));
    find("[data-choice=refuse]").remove();
    find("[data-choice=accept]").firstChild.textContent = "The rest is right";
  }
  if (entry.box && view !== "photo") {
    find(".box").hidden = false;
    place(find(".box"), entry.box);
  }
  card.classList.add(entry.state);
  for (const [kind, texts] of [["", record.captions], ["generated", record.generated]])
    find(".captions").append(...texts.map((text) => make("span", text, kind)));
  find(".name").textContent = nameOf(record.image);
  card.dataset.place = i;
  find(".missing").hidden = entry.state !== "given";
  card.setAttribute("aria-label", view === "photo" ? nameOf(record.image) : `${tags[entry.tag].tag}: ${entry.state}`);
  if (view === "photo") {
    showVerdict(card, entry);
    return card;
  }
  find(".state b").textContent = tags[entry.tag].tag;
  find(".state span").textContent = entry.state === "given" ? "given by the model"
    : entry.state + (entry.reason ? `: ${entry.reason}` : "");
  find("figcaption .facts").textContent = [
    entry.probability === undefined ? "" : `probability ${entry.probability.toFixed(2)}`,
    entry.score === undefined ? "" : `score ${entry.score.toFixed(2)}`,
    entry.distance === undefined ? "" : `distance ${entry.distance.toFixed(2)}`,
    entry.sources.join(", "),
    entry.box || entry.state === "given" ? "" : "no region",
  ].filter(Boolean).join(" · ");
  const verdict = accepted(entry);
  find("[data-choice=accept] small").textContent = `(${verdict})`;
  find("[data-choice=refuse] small").textContent = `(${OPPOSITE[verdict]})`;
  showVerdict(card, entry);
  return card;
}

// A tag of a photo: a click strikes it.
function chipOf(place) {
  const entry = entries[place];
  const chip = make("button", tags[entry.tag].tag);
  chip.dataset.chip = place;
  if (entry.score !== undefined) chip.title = `score ${entry.score.toFixed(2)}`;
  return chip;
}

const refused = (entry) => OPPOSITE[accepted(entry)];

function showPhoto(record, img) {
  const photo = byId("photo-" + record.photo);
  if (!photo.dataset.size) {
    img.replaceWith("This photo can no longer be read.");
    return;
  }
  const size = photo.dataset.size.split(" ").map(Number);
  // A smaller photo is shown as large as the others.
  [img.width, img.height] = size.map((side) => Math.round((side * LONGER_SIDE) / Math.max(...size)));
  img.src = photo.textContent;
  img.alt = record.captions[0] || "photo";
}

function showVerdict(card, entry) {
  const verdict = verdictOf(entry);
  const choice = verdict && (verdict === accepted(entry) ? "accept" : "refuse");
  card.classList.toggle("decided", Boolean(verdict));
  const all = [...card.querySelectorAll("[data-chip]")];
  for (const chip of all) {
    const found = verdictOf(entries[chip.dataset.chip]);
    const isRefused = found === refused(entries[chip.dataset.chip]);
    chip.classList.toggle("out", isRefused);
    chip.classList.toggle("right", Boolean(found) && !isRefused);
    chip.setAttribute("aria-pressed", isRefused);
  }
  const isDone = all.length > 0 && all.every((chip) => decided.has(entries[chip.dataset.chip].key));
  for (const button of card.querySelectorAll("[data-choice]"))
    if (all.length) button.setAttribute("aria-pressed", isDone);
    else button.setAttribute("aria-pressed", button.dataset.choice === choice);
  const added = [...decided.values()].filter((line) => line[0] === entry.image && line[2] === "add");
  card.querySelector(".missing span").textContent = added.map((line) => "+ " + line[1]).join(" ");
}

function add(input) {
  const word = input.value.trim().replace(/\s+/g, " ");
  if (!word) return;
  const entry = entries[shown[current]];
  const given = entries.findIndex((one) => one.key === keyOf(entry.image, word));
  noteLines([[entry.image, word, given < 0 ? "add" : accepted(entries[given])]]);
  input.value = "";
}

function mark(focus) {
  for (const [i, card] of cards) {
    const isCurrent = i === shown[current];
    card.tabIndex = isCurrent ? 0 : -1;
    card.setAttribute("aria-current", isCurrent);
    if (isCurrent && focus) {
      card.focus({ preventScroll: true });
      card.scrollIntoView({ block: "nearest" });
    }
  }
}

// An estimate for the undecided tags: the mistakes that scores promise, times how wrong that was
// for the decided ones. A few mistakes are assumed to have been as expected.
function mistakesLeft() {
  const assumed = 3;
  const given = entries.filter(isGiven);
  const judged = given.filter((entry) => decided.has(entry.key));
  const expected = (some) => some.reduce((sum, entry) => sum + doubtOf(entry), 0);
  const wrong = judged.filter((entry) => verdictOf(entry) === "remove").length;
  const open = expected(given.filter((entry) => !decided.has(entry.key)));
  const n = Math.round((open * (wrong + assumed)) / (expected(judged) + assumed));
  return given.length ? `, about ${n} mistake${n === 1 ? "" : "s"} left` : "";
}

// The fraction of accepted tags among those that a model gave, with Wilson's 95 % interval.
function fractionRight() {
  const judged = entries.filter((entry) => isGiven(entry) && decided.has(entry.key));
  const n = judged.length;
  if (!n) return "";
  const p = judged.filter((entry) => verdictOf(entry) === "keep").length / n;
  const z = 1.96;
  const middle = p + (z * z) / (2 * n);
  const half = z * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  const [fraction, low, high] = [p, (middle - half) / (1 + (z * z) / n), (middle + half) / (1 + (z * z) / n)]
    .map((value) => Math.round(100 * value));
  return `${fraction} % of the ${n} tags that you decided on are right. `
    + `If you had decided on many more such tags, it would be ${low} to ${high} % (95 % interval).`;
}

function count() {
  const n = entries.filter((entry) => decided.has(entry.key)).length;
  byId("progress").value = `${n} of ${entries.length} decided${mistakesLeft()}`;
  if (byId("right")) byId("right").textContent = fractionRight();
  byId("meter").max = entries.length || 1;
  byId("meter").value = n;
  byId("save").disabled = !decided.size;
  byId("undo").disabled = !log.length;
}

function goTo(place) {
  if (!shown.length) return;
  current = Math.min(Math.max(place, 0), shown.length - 1);
  if (pageOf(current) !== pageShown) showPage();
  mark(true);
}

function goToRow(step) {
  // The nearest card of the next row of the grid, else the next card in that direction.
  const box = (card) => card.getBoundingClientRect();
  const from = box(cards.get(shown[current]));
  const lies = (card) => (step > 0 ? box(card).top >= from.bottom : box(card).bottom <= from.top);
  let best, far = Infinity;
  for (const [i, card] of cards) {
    if (!lies(card)) continue;
    const gap = 1000 * Math.abs(box(card).top - from.top) + Math.abs(box(card).left - from.left);
    if (gap < far) [best, far] = [i, gap];
  }
  const edge = step > 0 ? (pageShown + 1) * PER_PAGE : pageShown * PER_PAGE - 1;
  goTo(best === undefined ? edge : shown.indexOf(best));
}

function goToTag(step) {
  const tagAt = (place) => entries[shown[place]].tag;
  let place = current;
  while (place + step >= 0 && place + step < shown.length && tagAt(place) === tagAt(current))
    place += step;
  // Backwards to the tag's first photo, not its last.
  while (step < 0 && place > 0 && tagAt(place - 1) === tagAt(place)) place -= 1;
  goTo(place);
}

function decide(choice, toggle) {
  const entry = entries[shown[current]];
  if (!entry) return;
  if (view === "photo") {
    if (choice === "accept") decideRest(choice, (i) => chips.get(entry.record).includes(i));
    return;
  }
  const verdict = choice === "accept" ? accepted(entry) : OPPOSITE[accepted(entry)];
  const isSo = verdictOf(entry) === verdict;
  if (isSo && !toggle) return;
  note([[entry, isSo ? null : verdict]]);
}

function note(decisions) {
  noteLines(decisions.map(([entry, verdict]) => [entry.image, tags[entry.tag].tag, verdict]));
}

function noteLines(lines) {
  const step = (log.at(-1)?.[3] ?? 0) + 1;
  for (const decision of lines) {
    const line = [...decision, step];
    log.push(line);
    apply(line);
  }
  keepLog();
  refresh();
}

// Decides on the undecided entries whose places belong to a photo or tag.
function decideRest(choice, belongs) {
  const open = entries.filter((entry, i) => belongs(i) && !decided.has(entry.key));
  const verdict = choice === "accept" ? accepted : refused;
  if (open.length) note(open.map((entry) => [entry, verdict(entry)]));
}

function decideRestOfTag(choice) {
  const entry = entries[shown[current]];
  if (entry && view !== "photo") decideRest(choice, (i) => entries[i].tag === entry.tag);
}

function decideAndGo(choice) {
  decide(choice);
  goTo(current + 1);
}

function undo() {
  const step = log.at(-1)?.[3];
  const first = log.findIndex((line) => line[3] === step);
  if (first < 0) return;
  const key = keyOf(log[first][0], log[first][1]);
  take(log.slice(0, first));
  keepLog();
  refresh();
  const undone = entries.findIndex((entry) => entry.key === key);
  if (undone < 0) return;
  if (placeOf(undone) < 0) {
    byId("filters").reset();
    filter();
  }
  goTo(placeOf(undone));
}

function refresh() {
  for (const [i, card] of cards) showVerdict(card, entries[i]);
  count();
}

function save() {
  const lines = [...decided.values()].map(
    ([image, tag, verdict]) => JSON.stringify({ image, tag, verdict }) + "\n");
  const link = make("a");
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  link.download = "decisions.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const KEYS = {
  j: () => goTo(current + 1),
  k: () => goTo(current - 1),
  ArrowRight: () => goTo(current + 1),
  ArrowLeft: () => goTo(current - 1),
  ArrowDown: () => goToRow(1),
  ArrowUp: () => goToRow(-1),
  a: () => decideAndGo("accept"),
  r: () => decideAndGo("refuse"),
  A: () => decideRestOfTag("accept"),
  R: () => decideRestOfTag("refuse"),
  u: undo,
  n: () => goToTag(1),
  p: () => goToTag(-1),
  w: () => cards.get(shown[current])?.querySelector(".missing:not([hidden]) input")?.focus(),
};
document.addEventListener("keydown", (event) => {
  if (event.target.matches(".missing input")) {
    if (event.key === "Enter") add(event.target);
    if (["Enter", "Escape"].includes(event.key)) mark(true);
  }
  const act = KEYS[event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("select, input")) return;
  event.preventDefault();
  act();
});
byId("cards").addEventListener("click", (event) => {
  const rest = event.target.closest("[data-rest]");
  if (rest) {
    const first = rest.closest("section").querySelector("figure");
    current = shown.indexOf(Number(first.dataset.place));
    decideRestOfTag(rest.dataset.rest);
  }
  const card = event.target.closest("figure");
  if (!card) return;
  current = shown.indexOf(Number(card.dataset.place));
  const button = event.target.closest("[data-choice], [data-chip]");
  if (button?.dataset.chip) {
    const entry = entries[button.dataset.chip];
    note([[entry, verdictOf(entry) === refused(entry) ? null : refused(entry)]]);
  } else if (button) decide(button.dataset.choice, true);
  mark(!button && !event.target.closest(".missing"));
});
// The pointer over a tag shows its region.
for (const kind of ["mouseover", "mouseout"])
  byId("cards").addEventListener(kind, (event) => {
    const chip = event.target.closest("[data-chip]");
    if (!chip) return;
    const box = chip.closest("figure").querySelector(".box");
    const corners = entries[chip.dataset.chip].box;
    box.hidden = kind === "mouseout" || !corners;
    if (corners) place(box, corners);
  });
byId("back").addEventListener("click", () => goTo((pageShown - 1) * PER_PAGE));
byId("forth").addEventListener("click", () => goTo((pageShown + 1) * PER_PAGE));
byId("undo").addEventListener("click", undo);
byId("save").addEventListener("click", save);
byId("filters").addEventListener("change", filter);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
// Take over decisions of another tab with the same records: saving here would delete them.
window.addEventListener("storage", (event) => {
  if (event.key !== storage) return;
  take(JSON.parse(event.newValue) || []);
  refresh();
});
window.addEventListener("beforeunload", (event) => {
  if (!isKept && log.length) event.preventDefault();
});
const n = new Map();
for (const { tag } of entries) n.set(tag, (n.get(tag) || 0) + 1);
for (const [tag, many] of n)
  byId("tag").append(new Option(`${tags[tag].tag} (${many})`, tag));
byId("open").checked = before.size > 0 && entries.some(isGiven);
filter();
