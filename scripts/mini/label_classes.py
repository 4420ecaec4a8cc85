#!/usr/bin/env python3
"""Print labels with the ImageNet classes that each covers, as numbers from 0 to 999.

    scripts/mini/label_classes.py labels.jsonl > new.jsonl

A label covers the classes that it names, those below its first sense in WordNet, and those of the
labels whose parent it is, but for OTHERS.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("torch")

from timm.data.imagenet_info import ImageNetInfo

from ramctl.inference.calibration import THINGS
from ramctl.parsing.english.wordnet import NOUN, Synset, WordNet, spelled
from ramctl.records.labels import Labels

N_ANIMALS = 398  # the first classes
# Read through by hand: labels, and classes that share their name or a sense, but are other things.
OTHERS = {
    "block": (398,), "boa": (552,), "board": (532,), "bow": (456,), "boxer": (242,),
    "cane": (313,), "card": (922,), "cardigan": (264,), "cartridge": (466,), "cat": (286, 287),
    "chest": (492,), "claw": (600,), "coach": (705,), "computer": (398, 798, 916), "crane": (134,),
    "cutlery": (726,), "ear": (998,), "food": (958, 984, 988, 989, 990, 998),
    "fruit": (984, 988, 989, 990, 998), "gerbil": (333,), "gong": (494,), "harp": (593,),
    "head": (976,), "hip": (989,), "home": (923,), "hopper": (311,), "jack": (955,), "kite": (21,),
    "lens": (836,), "light": (626,), "microscope": (633,), "mouse": (673,), "napkin": (529,),
    "notebook": (681,), "nursery": (580,), "painter": (286,), "pier": (460,), "pirate": (724,),
    "pitcher": (725,), "plane": (726,), "plant": (634, 723), "racer": (751,), "room": (831,),
    "shield": (461, 715), "slab": (398,), "slot machine": (886,), "spike": (998,),
    "sweet potato": (684,), "symbol": (910,), "tablet": (398,), "thorax": (492,),
    "truck": (656, 734), "vent": (980,), "wagon": (436, 734), "wallet": (748,), "wing": (908,),
}  # fmt: skip
# Rarely said of what they cover.
GENERAL = {
    "barrier", "container", "covering", "electronic device", "equipment", "event", "machine",
    "platform", "seat", "structure", "surface", "tool",
}  # fmt: skip


def class_senses(wordnet: WordNet) -> list[Synset]:
    """The synset of each class: that with its names alone, of an animal for the first classes."""
    senses = []
    for number, description in enumerate(ImageNetInfo("imagenet-1k").label_descriptions()):
        names = {spelled(name.strip()) for name in description.split(",")}
        found = [
            synset
            for name in sorted(names)
            for synset in wordnet.synsets(name, NOUN)
            if names <= {spelled(lemma) for lemma in synset.lemmas}
        ]
        file = "noun.animal" if number < N_ANIMALS else "noun.artifact"
        senses.append(min(found, key=lambda s: (s.file != file, len(s.lemmas))))
    return senses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", type=Path)
    labels, wordnet = Labels.read(parser.parse_args().labels), WordNet.shared()
    senses = class_senses(wordnet)
    above = [{s.number, *wordnet.hypernym_path(s.number)} for s in senses]
    names = [{spelled(lemma) for lemma in s.lemmas} for s in senses]
    covered: list[set[int]] = []
    for label in labels:
        own: set[int] = set()
        if label.kind in THINGS and label.tag not in GENERAL:
            words = {spelled(word) for word in (label.tag, *label.synonyms)}
            own = {k for k, lemmas in enumerate(names) if words & lemmas}
            first = wordnet.synsets(label.tag, NOUN)[:1]
            own |= {k for k, path in enumerate(above) if first and first[0].number in path}
            own -= {*OTHERS.get(label.tag, ())}
        covered.append(own)
    parents = {label.tag: set(own) for label, own in zip(labels, covered, strict=True)}
    for label, own in zip(labels, covered, strict=True):
        for parent in label.parents:
            if own and parent in parents and parent not in GENERAL:
                parents[parent] |= own - {*OTHERS.get(parent, ())}
    rows = (label.changed(classes=tuple(sorted(parents[label.tag]))) for label in labels)
    sys.stdout.buffer.write(Labels(rows).to_bytes())


if __name__ == "__main__":
    main()
