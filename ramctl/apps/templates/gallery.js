const AT_ONCE = 60; // photos that are added to what is shown
const MAX_COMMON = 200;
const photos = byId("photos").textContent.split("\n").filter(Boolean).map((line) => JSON.parse(line));
byId("photos").remove();

const numbers = new Map();
for (const { tags } of photos)
  for (const tag in tags) numbers.set(tag, (numbers.get(tag) || 0) + 1);

function chip(tag) {
  const button = make("button", tag);
  button.dataset.tag = tag;
  return button;
}
byId("common").append(...[...numbers].sort((a, b) => b[1] - a[1]).slice(0, MAX_COMMON)
  .map(([tag]) => {
    const button = chip(tag);
    button.append(make("small"));
    return button;
  }));

// Search words, between spaces or commas: each is a part of a tag, or a whole tag in quotes; after a
// `-` it is a tag that the photo must not have.
const bare = (text) => text.toLowerCase().replaceAll('"', "");
const words = () => byId("search").value.match(/-?"[^"]*"?|[^\s,]+/g) || [];

function term(word) {
  const isOut = word.startsWith("-");
  const isWhole = word[Number(isOut)] === '"';
  const part = bare(word.slice(isOut));
  const fits = (tag) => (isWhole ? tag === part : tag.includes(part));
  const tags = new Set([...numbers.keys()].filter((tag) => fits(bare(tag))));
  return { isOut, part, tags };
}

const bestOf = (photo, tags) => Math.max(-1, ...Object.keys(photo.tags).map((tag) =>
  (tags && !tags.has(tag) ? -1 : photo.tags[tag] ?? 1)));

let found = [];
let terms = [];

function search() {
  terms = words().map(term).filter(({ part }) => part);
  const included = terms.filter(({ isOut }) => !isOut);
  const has = (photo, { tags }) => Object.keys(photo.tags).some((tag) => tags.has(tag));
  found = photos.filter((photo) => terms.every((one) => has(photo, one) !== one.isOut));
  const order = Number(byId("order").value);
  if (order) {
    // A photo's score is the lowest of its words; without words the highest of its tags.
    const scores = new Map(found.map((photo) =>
      [photo, included.length ? Math.min(...included.map(({ tags }) => bestOf(photo, tags)))
        : bestOf(photo)]));
    found.sort((a, b) => order * (scores.get(a) - scores.get(b)));
  }
  byId("count").value = `${found.length} of ${photos.length} photos`;
  byId("gallery").replaceChildren();
  const here = new Map();
  for (const { tags } of found)
    for (const tag in tags) here.set(tag, (here.get(tag) || 0) + 1);
  for (const button of byId("common").children) {
    const number = here.get(button.dataset.tag) || 0;
    button.lastElementChild.textContent = number;
    button.classList.toggle("none", !number);
    mark(button);
  }
  showMore();
}

function mark(button) {
  const has = (one) => one.tags.has(button.dataset.tag);
  button.classList.toggle("out", terms.some((one) => one.isOut && has(one)));
  button.classList.toggle("on", terms.some((one) => !one.isOut && has(one)));
}

function figureOf(photo) {
  const figure = copyOf("figure");
  const frame = figure.querySelector(".photo");
  const img = frame.querySelector("img");
  const caption = figure.querySelector("figcaption");
  if (photo.link !== null) frame.href = photo.link;
  [img.width, img.height] = photo.size;
  img.src = photo.thumbnail;
  img.alt = photo.captions[0] || Object.keys(photo.tags).join(", ") || photo.image;
  caption.firstElementChild.textContent = photo.image;
  caption.append(...photo.captions.map((text) => make("i", text)));
  for (const [tag, score] of Object.entries(photo.tags)) {
    const button = chip(tag);
    if (score !== null) button.title = `score ${score.toFixed(2)}`;
    mark(button);
    caption.append(button);
  }
  for (const [tag, [corners, score]] of Object.entries(photo.boxes)) {
    const box = make("div", "", "box");
    box.dataset.tag = tag;
    box.append(make("span", `${tag} ${score.toFixed(2)}`));
    place(box, corners);
    frame.append(box);
  }
  return figure;
}

// More photos are added when the end of the page comes near.
const watcher = new IntersectionObserver((changes) => changes.at(-1).isIntersecting && showMore(),
  { rootMargin: "1500px" });

function showMore() {
  const start = byId("gallery").childElementCount;
  byId("gallery").append(...found.slice(start, start + AT_ONCE).map(figureOf));
  watcher.unobserve(byId("end"));
  if (start + AT_ONCE < found.length) watcher.observe(byId("end"));
}

// A click searches for a tag, a second one for photos without it, a third one for neither.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-tag]");
  if (!button) return;
  const tag = `"${bare(button.dataset.tag)}"`;
  const rest = words().filter((word) => ![tag, "-" + tag].includes(word.toLowerCase()));
  const next = button.matches(".on") ? ["-" + tag] : button.matches(".out") ? [] : [tag];
  byId("search").value = [...rest, ...next].join(" ");
  search();
});

function point(event, isOn) {
  const button = event.target.closest && event.target.closest("figure button[data-tag]");
  if (!button) return;
  const photo = button.closest("figure").querySelector(".photo");
  photo.classList.toggle("one", isOn);
  for (const box of photo.querySelectorAll(".box"))
    box.classList.toggle("shown", isOn && box.dataset.tag === button.dataset.tag);
}
document.addEventListener("mouseover", (event) => point(event, true));
document.addEventListener("mouseout", (event) => point(event, false));
byId("search").addEventListener("input", search);
byId("order").addEventListener("change", search);
search();
