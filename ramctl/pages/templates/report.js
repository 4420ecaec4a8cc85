const { classes, positives, systems } = JSON.parse(byId("data").textContent);

// The chart: recall to the right, precision upwards, in units of the viewBox.
const AREA = { left: 44, top: 12, width: 500, height: 280 };
const at = ([recall, precision]) =>
  [AREA.left + recall * AREA.width, AREA.top + (1 - precision) * AREA.height];

function draw(kind, attributes, text) {
  const shape = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
  if (text !== undefined) shape.textContent = text;
  return shape;
}

function axes() {
  const parts = [];
  for (const mark of [0, 0.25, 0.5, 0.75, 1]) {
    const [x, y] = at([mark, mark]);
    const [right, bottom] = [AREA.left + AREA.width, AREA.top + AREA.height];
    parts.push(
      draw("line", { x1: AREA.left, x2: right, y1: y, y2: y, class: "rule" }),
      draw("text", { x: AREA.left - 6, y: y + 4, class: "end" }, mark),
      draw("text", { x, y: bottom + 16, class: "middle" }, mark));
  }
  parts.push(
    draw("text", { x: AREA.left + AREA.width / 2, y: 332, class: "middle" }, "recall"),
    draw("text", { x: -150, y: 12, class: "middle", transform: "rotate(-90)" }, "precision"));
  return parts;
}

function showCurves(place) {
  byId("chosen").textContent = place === null ? "all classes together" : classes[place];
  const lines = systems.map((system, n) => {
    const points = place === null ? system.pooled : system.curves[place];
    const shape = draw("polyline",
      { points: points.map((point) => at(point).join(",")).join(" "), class: `curve s${n}` });
    shape.append(draw("title", {}, system.name));
    return shape;
  });
  byId("curve").replaceChildren(...axes(), ...lines);
}

const rows = classes.map((name, place) => {
  const row = make("button", "", "class");
  row.type = "button";
  const label = make("span", name);
  label.append(make("small", positives[place]));
  const bars = make("span", "", "pair");
  systems.forEach(({ precisions }, number) => {
    const bar = make("span", "", `bar-of s${number}`);
    const value = precisions[place];
    const fill = make("i");
    fill.style.width = `${100 * (value || 0)}%`;
    bar.append(fill, value === null ? "–" : value.toFixed(3));
    bars.append(bar);
  });
  row.append(label, bars);
  row.addEventListener("click", () => {
    showCurves(place);
    byId("curve").scrollIntoView({ block: "nearest" });
  });
  return row;
});

const apOf = (place, n = 0) => (systems[n].precisions[place] === null ? NaN : systems[n].precisions[place]);
const gainOf = (place) => apOf(place) - apOf(place, 1);
// Lower comes first; classes without a value last.
const KEYS = {
  positives: (place) => -positives[place],
  best: (place) => -apOf(place),
  worst: (place) => apOf(place),
  gain: (place) => -gainOf(place),
  loss: (place) => gainOf(place),
  name: () => 0,
};

function showClasses() {
  const key = KEYS[byId("order").value];
  const wanted = byId("find").value.trim().toLowerCase();
  const value = (place) => (Number.isNaN(key(place)) ? Infinity : key(place));
  const order = classes.map((_, place) => place)
    .filter((place) => classes[place].toLowerCase().includes(wanted))
    .sort((a, b) => value(a) - value(b) || classes[a].localeCompare(classes[b]));
  byId("classes").replaceChildren(...order.map((place) => rows[place]));
}

byId("order").addEventListener("change", showClasses);
byId("find").addEventListener("input", showClasses);
byId("sorting").addEventListener("submit", (event) => event.preventDefault());
byId("whole").addEventListener("click", () => showCurves(null));
showCurves(null);
showClasses();
