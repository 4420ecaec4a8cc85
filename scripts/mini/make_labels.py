#!/usr/bin/env python3
r"""Print the label system: what captions of training photos name, and what the teachers know.

    scripts/mini/make_labels.py --built built.jsonl --added added_labels.tsv \
        --unsure unsure_labels.txt --languages languages --fewest 8 -- tagged.jsonl...

`built` is a label system of the captions (ramctl parse --build-labels), whose labels are kept where
enough photos of the tagged files name them. Labels of `added` follow, unless a kept label or one of
its synonyms has their name. Labels of `unsure` are learnt, but only given when asked for.
`languages` has a file of lines `label<TAB>name` for each language, as `de.tsv`.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

from ramctl.labels import Label, LabelSystem


def read_added(path: Path) -> list[Label]:
    labels = []
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            tag, kind, parents, synonyms = line.split("\t")
            above, names = (tuple(filter(None, s.split("|"))) for s in (parents, synonyms))
            labels.append(Label(tag, kind, parents=above, synonyms=names))
    return labels


def read_parents(path: Path) -> dict[str, dict[str, set[str]]]:
    """The children that a parent loses (-) and gets (+), by sign and parent."""
    changes: dict[str, dict[str, set[str]]] = {"-": {}, "+": {}}
    for line in path.read_text("utf-8").splitlines():
        if line[:1] in changes:
            parent, children = line[2:].split("\t")
            changes[line[0]].setdefault(parent, set()).update(children.split("|"))
    return changes


def read_names(folder: Path) -> dict[str, dict[str, str]]:
    """The names of labels by language."""
    return {
        path.stem: dict(line.split("\t") for line in path.read_text("utf-8").splitlines())
        for path in sorted(folder.glob("*.tsv"))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--built", type=Path, required=True)
    parser.add_argument("--added", type=Path, required=True)
    parser.add_argument("--parents", type=Path, required=True)
    parser.add_argument("--unsure", type=Path, required=True)
    parser.add_argument("--languages", type=Path, required=True)
    parser.add_argument("--fewest", type=int, required=True)
    parser.add_argument("tagged", nargs="+", type=Path)
    args = parser.parse_args()
    photos: Counter[str] = Counter()
    for path in args.tagged:
        for line in path.open(encoding="utf-8"):
            photos.update(set(json.loads(line)["tags"]))
    kept = [label for label in LabelSystem.read(args.built) if photos[label.tag] >= args.fewest]
    names = LabelSystem(kept)
    added = [label for label in read_added(args.added) if not names.ids(label.tag)]
    unsure = set(args.unsure.read_text("utf-8").splitlines())
    parents, labels, called = read_parents(args.parents), [], read_names(args.languages)
    for label in [*kept, *added]:
        row = label.to_json() | {"count": photos[label.tag]}
        given = [parent for parent, children in parents["+"].items() if label.tag in children]
        kept_parents = [
            p for p in label.parents if not {label.tag, "*"} & parents["-"].get(p, set())
        ]
        row["parents"] = list(dict.fromkeys([*given, *kept_parents]))
        row["synonyms"] = [s for s in label.synonyms if label in kept or not names.ids(s)]
        row["names"] = {code: of[label.tag] for code, of in called.items() if label.tag in of}
        if label.tag in unsure:
            row["validated"] = False
        labels.append(Label.from_json(row))
    sys.stdout.buffer.write(LabelSystem(labels).to_bytes())


if __name__ == "__main__":
    main()
