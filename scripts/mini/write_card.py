#!/usr/bin/env python3
"""Write title, measurements and the data's licences into a bundle's model card.

    scripts/mini/write_card.py --model build/mini/model --title mini \\
        --figures build/mini/figures --top-k predictions.jsonl truth.jsonl

A second run replaces what the first one wrote. `train` titles a card with the name of its output
folder, which is not what the bundle is called once it is installed.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import numpy as np

from ramctl.checkpoints.bundle import CARD, META, write_meta

START, END = "<!-- measured -->\n", "<!-- /measured -->\n"
ROWS = {
    "model": "this model",
    "fp32": "this model, `--dtype fp32`",
}
# Judged by eye, once, before anything was tuned to these photos.
UNSEEN = """\
## Unseen photos

60 photos of public repositories that no other set has, judged by eye with the same weights at
thresholds that gave a tag less: 6.1 tags a photo, 85.5 % of them right;
the subject is among the tags on 60 %, on 44 % if it is not a person. A caption was given to 16: 5
right, 8 partly right, 3 wrong. Of 948 photos of 54 other repositories (`web-dev`, which compared
ways of training), 36 % got the first thing that their caption names, where it is a label; 11 % are
none. The judged photos of the next section chose the thresholds; those of the public
sets resemble training photos.

"""
DATA = """\
## Training photos and licences

- Flickr8k, official training split (Hodosh et al. 2013), 6,090 photos, 30,450 captions: research
  and education, no commercial use; photos (c) their Flickr authors.
- COCO 2017, 251 photos, 1,255 captions: annotations CC BY 4.0; each photo has its own Flickr
  licence, all with conditions.
- FSA/OWI colour photographs 1939-1944, Library of Congress, 1,000 photos, their archive titles as
  captions (its written captions were learnt from 227 of these without their names): no known
  restrictions.
- Photos of many kinds, 8,945 with one dense caption each by a vision-language model that saw the
  photo: Caltech-101 and weather (CC BY 4.0); SUN, Pascal VOC, Food-101, CamVid, 15 scenes, houses
  and others for research; shop goods, receipts, logos and pages by their repositories' terms.
- Photos of 186 public repositories, 2,608 with such a caption: 434 from repositories with an MIT,
  CC or GPL licence, 2,174 from repositories that state none.
- Flowers, aerial views, paintings and museum pieces, cars and motorbikes, 1,177 with such a
  caption: 130 CC BY 4.0 (Getty), 300 of public-domain imagery (USGS), 747 from repositories that
  state none.
- 40 made pictures (blank, noise, text, charts): free.

Teachers, whose scores were learnt as soft targets: Google's Mobile ICA (447 everyday labels,
Apache-2.0; nothing of what it says of people) and three detectors together (NanoDet-Plus-m,
YOLOX-nano, DEIMv2-femto: 80 COCO classes, Apache-2.0; trained on COCO's photos). The photos of
repositories and of the four kinds have scores of the last detector alone. Every figure above rests
on them.

The backbone starts from Google's EfficientNet-Lite0 for ImageNet-1k (Apache-2.0; ImageNet's photos:
research, non-commercial); all but its two lowest stages are trained with the rest, held to the
classes that they knew. Label texts come from all-MiniLM-L6-v2 (Apache-2.0). No photo, box or label
of COCO's, Pascal VOC's or Flickr8k's evaluation sets was trained on. Thresholds, and what comes
first, were chosen on 487 judged photos.

"""
LICENCES = (
    "photos of Flickr8k, COCO, SUN, VOC, Caltech-101, the Library of Congress and 192 "
    "repositories: research use, CC BY, public domain, MIT; 2,921 of 20,111 state no licence "
    "(see the card)"
)


def judged_section(path: Path, model: Path) -> list[str]:
    """Figures of printed tags on photos whose origins chose no threshold."""
    figures = json.loads(path.read_bytes())
    aucs = figures["auc"]
    curve = json.loads((model / META).read_bytes())["precisions"]
    lines = [
        "## Printed tags, judged",
        "",
        "Photos with all tags that a careful judge accepts and the main things in order, none",
        "of them trained on; of `judged_other` nothing from the same repositories either. The",
        "thresholds of a photo come from photos of other origins. Strict: right among the printed;",
        "lenient: doubtful ones count as right; things: objects and scenes alone. Subject: what",
        "the photo is of is among the tags; first two: one of the first two names a main thing.",
        "",
        "| photos | number | tags | strict | lenient | things | subject | first two | main |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in figures["sets"].items():
        for kind, c in {name: one["counts"], **one["kinds"]}.items():
            fractions = [
                c["right"] / max(c["printed"], 1),
                (c["right"] + c["doubtful"]) / max(c["printed"], 1),
                c["right_things"] / max(c["things"], 1),
                c["subjects"] / c["photos"],
                c["telling_first"] / c["photos"],
                c["main_found"] / c["main"],
            ]
            cells = [kind, str(c["photos"]), f"{c['printed'] / c['photos']:.1f}"]
            lines.append(
                f"| {' | '.join([*cells, *(f'{fraction:.2f}' for fraction in fractions)])} |"
            )
    lines.append("")
    for name, one in figures["sets"].items():
        c, said = one["counts"], one["intervals"]
        lines += [
            f"{name}: 95 % intervals (bootstrap over photos): strict {said['strict'][0]} to "
            f"{said['strict'][1]}, subject {said['subject'][0]} to {said['subject'][1]}.",
            f"People are named on {c['false_people']} of {c['peopleless']} photos without people, "
            f"and on {c['found_people']} of {c['peopled']} with.",
        ]
    lines += [
        "Most often printed: {}, on {:.0%} of the photos.".format(*figures["most_printed"]),
        "",
        "Asked for words, it ranks the photos with a mean AUC of",
        f"{aucs['labels']['mean']:.3f} ({aucs['labels']['words']} labels that are right on four"
        f" photos or more) and {aucs['others']['mean']:.3f}",
        f"({aucs['others']['words']} words that are no labels).",
        "",
        "`--precision P` moves along this curve:",
        "",
        "| precision | tags per photo |",
        "|---|---|",
    ]
    for precision in (0.95, 0.9, 0.85, 0.8, 0.7, 0.6):
        tags = [tags for _, reached, tags in curve if reached >= precision]
        lines += [f"| {precision} | {max(tags):.1f} |"] if tags else []
    return [*lines, ""]


def top_k(predictions: Path, truth: Path) -> dict[int, float]:
    """The fraction of photos whose class is among the best k of all classes, for k = 1 and 5."""
    lines = predictions.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    names = records[0]["label_names"]
    classes = truth.with_name(truth.stem + "_classes.txt").read_text(encoding="utf-8").split("\n")
    place = {name.casefold().replace("-", " "): i for i, name in enumerate(names)}
    found = {c: place.get(c.casefold().replace("-", " ")) for c in classes if c}
    columns = {name: i for name, i in found.items() if i is not None}
    scores = np.array([record["dense"] for record in records])[:, list(columns.values())]
    ranked = np.argsort(-scores, axis=1)
    known = list(columns)
    right = [json.loads(line)["tags"] for line in truth.read_text(encoding="utf-8").splitlines()]
    return {
        k: float(
            np.mean(
                [
                    any(known[i] in tags for i in row[:k])
                    for row, tags in zip(ranked, right, strict=True)
                ]
            )
        )
        for k in (1, 5)
    }


def figures_table(folder: Path) -> list[str]:
    lines = ["| set | | mAP | classes |", "|---|---|---|---|"]
    for path in sorted(folder.glob("model.*.json")):
        name = path.name.removeprefix("model.").removesuffix(".json")
        for row, meaning in ROWS.items():
            figures = json.loads((folder / f"{row}.{name}.json").read_bytes())
            mean, number = figures["mAP"], figures["averaged_classes"]
            lines.append(f"| {name} | {meaning} | {mean:.3f} | {number} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--title", required=True)
    parser.add_argument("--figures", required=True, type=Path)
    parser.add_argument("--top-k", nargs=2, required=True, type=Path)
    args = parser.parse_args()

    fractions = top_k(*args.top_k)
    unseen = json.loads((args.figures / "val2017.json").read_bytes())
    captions = json.loads((args.figures / "captions.json").read_bytes())
    section = [
        UNSEEN,
        *judged_section(args.figures / "judged.json", args.model),
        "## Measured on photos that were never trained on",
        "",
        "Mean average precision. Classes that are no labels were asked for as new words.",
        "",
        *figures_table(args.figures),
        "",
        f"Sample of ImageNet-1k: the class is the best of 998 names in {fractions[1]:.1%} of the",
        f"photos, among the best five in {fractions[5]:.1%}: kept of the backbone, not learnt.",
        "",
        f"COCO's {unseen['photos']['compared']} photos of val2017 alone: mAP {unseen['mAP']:.3f}.",
        "The detectors among the teachers were trained on the others. Few photos give a higher mAP",
        "than many.",
        "",
        f"Captions (`tag --caption`) of Flickr8k's test photos: CIDEr {captions['CIDEr']};",
        f"{captions['none'] / (captions['none'] + captions['photos']):.0%} of the photos get none.",
        "They read like captions, and name the main thing more often than not; colours, numbers",
        "and actions are guesses.",
        "",
        "Old, small and blurred photos get few tags, and odd ones.",
        "",
        DATA,
    ]
    card = args.model / CARD
    _, _, text = card.read_text(encoding="utf-8").partition("\n")  # without the title
    before, _, rest = text.partition(START)
    description, heading, after = (before + rest.partition(END)[2]).partition("## Labels\n")
    measured = START + "\n".join(section) + END
    text = f"# {args.title}\n{description.rstrip()}\n\n{measured}\n{heading}{after}"
    card.write_text(text, encoding="utf-8")
    meta = json.loads((args.model / META).read_bytes())
    meta["provenance"]["licences"] = LICENCES
    write_meta(args.model, {k: v for k, v in meta.items() if k not in ("format", "files")})


if __name__ == "__main__":
    main()
