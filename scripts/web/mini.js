// What `ramctl tag` does, in the browser: pixels, scores, the choice of tags, and rows of new words.
// Each part names the file of ramctl/ that it follows. ABOUT and FILES come from data.js (build.py).
"use strict";

const clip = (value, low, high) => Math.min(Math.max(value, low), high);
const sigmoid = (logit) => 1 / (1 + Math.exp(-Math.max(logit, -80)));
const logOdds = (p) => { const q = clip(p, ABOUT.closest, 1 - ABOUT.closest); return Math.log(q / (1 - q)); };
const unit = (row) => { const length = Math.hypot(...row) || 1; return row.map((v) => v / length); };
const model = { session: null, rows: null, width: 0, text: 0, vectors: null, scales: null };

function fromHalf(buffer) {  // 16-bit floats
  return Float32Array.from(new Uint16Array(buffer), (half) => {
    const exponent = half >> 10 & 31, part = (half & 1023) / 1024;
    return (half >> 15 ? -1 : 1) * (exponent ? 2 ** (exponent - 15) * (1 + part) : 2 ** -14 * part);
  });
}

async function openModel() {
  const file = async (name) => (await fetch(`data:;base64,${FILES[name]}`)).arrayBuffer();
  ort.env.wasm.numThreads = 1;  // more of them need headers that only a server can send
  ort.env.wasm.wasmBinary = await file("wasm");
  const loader = new Blob([await file("loader")], { type: "text/javascript" });
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(loader) };
  model.session = await ort.InferenceSession.create(new Uint8Array(await file("graph")));
  model.rows = fromHalf(await file("rows"));
  model.scales = fromHalf(await file("scales"));
  model.vectors = new Int8Array(await file("vectors"));
  model.width = model.rows.length / ABOUT.labels.length;
  model.text = model.vectors.length / model.scales.length;
  for (const name of Object.keys(FILES)) delete FILES[name];
}

// Photos: ramctl/photos/decoding.py, ramctl/model/preprocess.py.

const bicubic = (x) => {
  const a = Math.abs(x);
  if (a < 1) return (1.5 * a - 2.5) * a * a + 1;
  return a < 2 ? ((-0.5 * a + 2.5) * a - 4) * a + 2 : 0;
};

function squeezed(pixels, width, height, channels, size) {
  // Pillow's filter along the lines; what comes back is turned: (size, height, 3).
  const out = new Uint8ClampedArray(size * height * 3), scale = width / size, wide = Math.max(scale, 1);
  for (let x = 0; x < size; x++) {
    const centre = (x + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - 2 * wide + 0.5));
    const end = Math.min(width, Math.trunc(centre + 2 * wide + 0.5));
    let weights = Array.from({ length: end - first }, (_, i) => bicubic((first + i + 0.5 - centre) / wide));
    const total = weights.reduce((a, b) => a + b, 0);
    weights = weights.map((weight) => weight / total);
    for (let y = 0; y < height; y++) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0, place = (y * width + first) * channels + channel;
        for (const weight of weights) { sum += weight * pixels[place]; place += channels; }
        out[(x * height + y) * 3 + channel] = sum;
      }
    }
  }
  return out;
}

async function readPhoto(file) {
  // Upright and over white. What is very large is first shrunk by the browser.
  const photo = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const scale = Math.min(1, 2048 / Math.max(photo.width, photo.height)), canvas = document.createElement("canvas");
  const width = canvas.width = Math.max(1, Math.round(photo.width * scale));
  const height = canvas.height = Math.max(1, Math.round(photo.height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(photo, 0, 0, width, height);
  const { size, mean, std } = ABOUT, { data } = context.getImageData(0, 0, width, height);
  const pixels = squeezed(squeezed(data, width, height, 4, size), height, size, 3, size);
  const values = new Float32Array(3 * size * size);
  for (let i = 0; i < values.length; i++) {
    const channel = i % 3;
    values[channel * size * size + (i - channel) / 3] = (pixels[i] / 255 - mean[channel]) / std[channel];
  }
  return new ort.Tensor("float32", values, [1, 3, size, size]);
}

// Scores: ramctl/engine/onnx_engine.py. All rows but `kept` get 0, by the model's first look.

async function scoresOf(photos, rows, offsets, kept) {
  const count = offsets.length;
  const { logits } = await model.session.run({
    photos, label_queries: new ort.Tensor("float32", rows, [count, model.width]),
    offsets: new ort.Tensor("float32", Float32Array.from(offsets), [count]),
    shortlist: new ort.Tensor("int64", BigInt64Array.of(BigInt(kept)), [1]),
  });
  return Array.from(logits.data, sigmoid);
}

// Tags: ramctl/decide/selection.py, ramctl/decide/salience.py.

function saliencesOf(odds) {  // of each label: would it name a main thing, would a caption name it first
  const { slope, weights, main } = ABOUT.salience, first = ABOUT.first;
  const logits = odds.map((value, i) => weights[i] === null ? -Infinity : slope * value + weights[i]);
  const top = logits.reduce((a, b) => Math.max(a, b), -ABOUT.furthest);
  const powers = logits.map((value) => Math.exp(value - top));
  const total = [...powers].sort((a, b) => b - a).slice(0, ABOUT.named).reduce((a, b) => a + b, 0);
  return powers.map((power, i) => {
    if (weights[i] === null) return [0, -Infinity];
    const intercept = ABOUT.intercepts[i], right = ABOUT.slopes[i] * odds[i] + intercept;
    const certain = intercept === null ? -ABOUT.furthest : clip(right, -ABOUT.furthest, ABOUT.furthest);
    const log = Math.log(power / Math.max(total, ABOUT.leastShare) + ABOUT.leastShare);
    return [sigmoid(main[0] * certain + main[1] * log + main[2]), first[0] * certain + first[1] * log + first[2]];
  });
}

function once(ids) {  // one label of a set, one part, and that beside its whole
  const present = new Set(ids.flatMap((i) => [ABOUT.labels[i][0], ...ABOUT.parents[i]])), used = new Set();
  return ids.filter((i) => {
    if (!ABOUT.bends[i]) return true;
    const wholes = ABOUT.wholes[i], sets = wholes.length ? [...ABOUT.sets[i], "a part"] : ABOUT.sets[i];
    if (sets.some((name) => used.has(name)) || (wholes.length && !wholes.some((tag) => present.has(tag)))) return false;
    sets.forEach((name) => used.add(name));
    return true;
  });
}

function choose(scores) {
  const odds = scores.map(logOdds), saliences = saliencesOf(odds), probabilities = saliences.map(([one]) => one);
  const canBend = scores.map((score, i) => ABOUT.bends[i] && score > ABOUT.floors[i]);
  const missing = odds.map((value, i) => ABOUT.slopes[i] * (logOdds(ABOUT.thresholds[i]) - value));
  const allowed = probabilities.map((one) => Math.log(Math.max(one, ABOUT.usualChance) / ABOUT.usualChance));
  const bends = scores.map((_, i) => canBend[i] && missing[i] < allowed[i]);
  const given = scores.map((score, i) => score > ABOUT.thresholds[i] || bends[i]);
  for (const [index, general, rival, margin] of ABOUT.salience.careful) {
    if (!ABOUT.bends[index] || odds[index] - odds[rival] >= margin) continue;
    if (given[index] && canBend[general]) {
      given[general] = true;
      probabilities[general] = Math.max(probabilities[general], probabilities[index]);
    }
    given[index] = canBend[index] = false;
  }
  const all = scores.map((_, i) => i), byMain = (a, b) => probabilities[b] - probabilities[a] || a - b;
  const right = (i) => ABOUT.intercepts[i] !== null && ABOUT.slopes[i] * odds[i] + ABOUT.intercepts[i] > 0;
  const likely = all.filter((i) => canBend[i] && !given[i] && probabilities[i] > 0 && right(i)).sort(byMain);
  const lacking = Math.max(0, ABOUT.minTags - all.filter((i) => given[i]).length);
  for (const i of likely.slice(0, lacking)) given[i] = true;
  const ids = all.filter((i) => given[i]);
  const rank = (i) => (probabilities[i] > 0 ? Number(ABOUT.wholes[i].length > 0) : 2);
  const first = (i) => (rank(i) === 0 ? saliences[i][1] : -Infinity), foremost = Math.max(...ids.map(first));
  const later = (i) => Number(first(i) < foremost);
  ids.sort((a, b) => later(a) - later(b) || rank(a) - rank(b) || probabilities[b] - probabilities[a]
    || scores[b] - scores[a] || a - b);
  return once(ids).map((i) => ({ tag: ABOUT.labels[i][0], score: scores[i] }));
}

async function tagsOf(photo) {
  return choose(await scoresOf(photo, model.rows, ABOUT.shortlistOffsets, ABOUT.shortlist));
}

// New words: ramctl/text/static_table.py (tokens as BERT's), ramctl/engine/label_rows.py.

const loose = (text) => text.normalize("NFC").toUpperCase().toLowerCase().split(/[-_\s]+/).filter(Boolean).join(" ");
const known = new Map(), tokens = new Map(ABOUT.words.map((word, i) => [word, i]));
for (const form of [loose, String]) {  // what is set last counts: exact, tags, the first label
  for (const part of [(names) => names.slice(1), (names) => names.slice(0, 1)]) {
    for (let i = ABOUT.labels.length - 1; i >= 0; i--) for (const name of part(ABOUT.labels[i])) known.set(form(name), i);
  }
}

function tokensOf(text) {
  const cleaned = text.replace(/[\t\n\r]/g, " ").replace(/[\p{C}\ufffd]/gu, "").replace(/\p{Script=Han}/gu, " $& ");
  const plain = cleaned.normalize("NFD").replace(/\p{Mn}/gu, "").toLowerCase();
  const parts = plain.match(/[\p{P}$+<=>^`|~]|[^\s\p{P}$+<=>^`|~]+/gu) ?? [];
  return parts.flatMap((part) => {
    const found = [], letters = [...part];
    for (let start = 0, end; start < letters.length && letters.length <= 100; start = end) {
      const piece = () => (start ? "##" : "") + letters.slice(start, end).join("");
      for (end = letters.length; end > start && !tokens.has(piece()); end--);
      if (end === start) return [];
      found.push(tokens.get(piece()));
    }
    return found;
  });
}

function embedded(text) {
  const row = new Array(model.text).fill(0);
  for (const id of tokensOf(text)) {
    if (ABOUT.words[id] === "[UNK]") continue;
    for (let i = 0; i < model.text; i++) row[i] += model.scales[id] * model.vectors[id * model.text + i];
  }
  return unit(row);
}

function borrowed(word) {  // what the labels nearest in meaning have learnt
  const { rows, width, text } = model, cosines = ABOUT.labels.map((_, label) => {
    let sum = 0;
    for (let i = 0; i < text; i++) sum += word[i] * rows[label * width + i];
    return sum;
  });
  const best = cosines.reduce((a, b) => Math.max(a, b), 0);
  const weights = cosines.map((cosine) => Math.exp(ABOUT.sharpness * (cosine - best)));
  const total = weights.reduce((a, b) => a + b, 0), out = new Array(width - text).fill(0);
  weights.forEach((weight, label) => {
    for (let i = text; i < width; i++) out[i - text] += best ** 2 * weight / total * rows[label * width + i];
  });
  return out;
}

function rowOf(text) {  // null where nothing of the word is known
  const id = known.get(text) ?? known.get(loose(text));
  if (id !== undefined) return { id, row: model.rows.slice(id * model.width, (id + 1) * model.width) };
  const word = embedded(text);
  return word.some((value) => value) ? { row: [...word, ...borrowed(word)] } : null;
}

async function wordsOf(photo, words) {
  const made = words.map(rowOf), usable = words.filter((_, i) => made[i]), found = made.filter(Boolean);
  const rows = Float32Array.from(found.flatMap(({ row }) => [...row]));
  const scores = usable.length ? await scoresOf(photo, rows, usable.map(() => 0), usable.length) : [];
  // ramctl/decide/calibration.py: about one of the words that somebody lists is right.
  const { slope, intercept, base } = ABOUT.usual, gained = logOdds(1 / Math.max(usable.length, 2)) - logOdds(base);
  const rated = scores.map((score, i) => {
    const { id } = found[i], isKnown = id !== undefined && ABOUT.validated[id];
    const [steep, offset] = isKnown ? [ABOUT.slopes[id], ABOUT.intercepts[id]] : [slope, intercept];
    const threshold = sigmoid((ABOUT.sure - Math.max(gained, 0) - offset) / steep);
    return { tag: usable[i], score, given: score > threshold, isNew: id === undefined };
  });
  rated.sort((a, b) => b.given - a.given || b.score - a.score);
  return { rated, unknown: words.filter((_, i) => !made[i]) };
}
