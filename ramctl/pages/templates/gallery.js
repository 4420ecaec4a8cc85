const AT_ONCE = 60; // photos that are added to what is shown
const MOST_COMMON = 200;
const photos = byId("photos").textContent.split("\n").filter(Boolean).map((line) => JSON.parse(line));
byId("photos").remove();

const numbers = new Map();
for (const { tags } of photos)
  for (const tag in tags) numbers.set(tag, (numbers.get(tag) || 0) + 1);

function chip(tag, number) {
  const button = document.createElement("button");
  button.dataset.tag = tag;
  button.append(tag);
  if (number !== null) {
    const small = document.createElement("small");
    small.append(number);
    button.append(small);
  }
  return button;
}
byId("common").append(...[...numbers].sort((a, b) => b[1] - a[1]).slice(0, MOST_COMMON)
  .map(([tag, number]) => chip(tag, number)));

// What is searched for: words between spaces or commas, each a part of a tag, or a whole one in
// quotes; with a - before it one that the photo must not have.
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
let asked = [];

function search() {
  asked = words().map(term).filter(({ part }) => part);
  const wanted = asked.filter(({ isOut }) => !isOut);
  const has = (photo, { tags }) => Object.keys(photo.tags).some((tag) => tags.has(tag));
  found = photos.filter((photo) => asked.every((one) => has(photo, one) !== one.isOut));
  const order = Number(byId("order").value);
  if (order) {
    // A photo is as sure as the least sure of the words; without any as its surest tag.
    const sure = new Map(found.map((photo) =>
      [photo, wanted.length ? Math.min(...wanted.map(({ tags }) => bestOf(photo, tags)))
        : bestOf(photo)]));
    found.sort((a, b) => order * (sure.get(a) - sure.get(b)));
  }
  byId("count").value = `${found.length} of ${photos.length} photos`;
  byId("gallery").replaceChildren();
  for (const button of byId("common").children) mark(button);
  showMore();
}

function mark(button) {
  const has = (one) => one.tags.has(button.dataset.tag);
  button.classList.toggle("out", asked.some((one) => one.isOut && has(one)));
  button.classList.toggle("on", asked.some((one) => !one.isOut && has(one)));
}

function figureOf(photo) {
  const figure = copyOf("figure");
  const frame = figure.querySelector(".photo");
  const img = frame.querySelector("img");
  const caption = figure.querySelector("figcaption");
  if (photo.link !== null) frame.href = photo.link;
  [img.width, img.height] = photo.size;
  img.src = photo.thumbnail;
  caption.firstElementChild.textContent = nameOf(photo.image);
  for (const text of photo.captions) {
    const line = document.createElement("i");
    line.append(text);
    caption.append(line);
  }
  for (const [tag, score] of Object.entries(photo.tags)) {
    const button = chip(tag, score === null ? null : score.toFixed(2));
    mark(button);
    caption.append(button);
  }
  for (const [tag, [corners, score]] of Object.entries(photo.boxes)) {
    const box = document.createElement("div");
    box.className = "box";
    box.dataset.tag = tag;
    const label = document.createElement("span");
    label.append(`${tag} ${score.toFixed(2)}`);
    box.append(label);
    place(box, corners);
    frame.append(box);
  }
  return figure;
}

// Photos follow when the end of those that are shown comes near.
const watcher = new IntersectionObserver((changes) => changes.at(-1).isIntersecting && showMore(),
  { rootMargin: "1500px" });

function showMore() {
  const start = byId("gallery").childElementCount;
  byId("gallery").append(...found.slice(start, start + AT_ONCE).map(figureOf));
  watcher.unobserve(byId("end"));
  if (start + AT_ONCE < found.length) watcher.observe(byId("end"));
}

// A click asks for a tag, another one for photos without it, a third one for neither.
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
