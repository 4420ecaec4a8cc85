"""Plants wrong tags in parsed records and drops right ones."""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ramctl.labels import LabelSystem, normalise

CLEANED_KINDS = ("object", "scene")


class Damage:
    """What is planted and dropped, photo by photo, independent of their order."""

    def __init__(
        self, rows: Sequence[dict[str, Any]], labels: LabelSystem, options: argparse.Namespace
    ) -> None:
        self.options = options
        counts = Counter(tag for row in rows for tag in row["tags"])
        self.tags = [
            label.tag for label in labels
            if counts[label.tag] >= options.min_count and label.kind in CLEANED_KINDS
        ]  # fmt: skip
        self.place = {tag: i for i, tag in enumerate(self.tags)}
        self.frequency = np.array([counts[tag] for tag in self.tags], float)
        self.parents = {label.tag: set(label.parents) for label in labels}
        self.words = {
            label.tag: {normalise(text) for text in (label.tag, *label.synonyms)}
            for label in labels
        }
        self.together = self._together(rows)

    def _together(self, rows: Sequence[dict[str, Any]]) -> np.ndarray:
        """How often a tag is named beside another, as a share of the other's mentions."""
        named = np.zeros((len(rows), len(self.tags)), np.float32)
        for i, row in enumerate(rows):
            named[i, [self.place[tag] for tag in row["tags"] if tag in self.place]] = 1
        together: np.ndarray = (named.T @ named) / self.frequency[:, None]
        return together

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """The damaged record; what was done is in `truth`, which the commands pass through."""
        image = row["image"]
        random = np.random.default_rng(_hash(f"{self.options.seed}:{image}"))
        times = Counter(tag for own in row["caption_tags"] for tag in set(own))
        cleaned = [tag for tag in row["tags"] if tag in self.place]
        planted = self._plant(row, cleaned, random)
        dropped = [tag for tag in row["tags"] if random.random() < self.options.drop]
        tags = sorted({*row["tags"], *planted} - set(dropped))
        kinds = {tag: row["kinds"].get(tag, "object") for tag in tags}
        return {
            "image": image,
            "tags": tags,
            "kinds": kinds,
            "sources": {tag: ["parsed"] for tag in tags},
            "truth": {
                "right": [tag for tag in row["tags"] if times[tag] >= 2],
                "once": [tag for tag in row["tags"] if times[tag] < 2],
                "planted": planted,
                "dropped": dropped,
                "implied": sorted(self._implied(row) - set(row["tags"])),
            },
        }

    def _plant(
        self, row: dict[str, Any], cleaned: list[str], random: np.random.Generator
    ) -> list[str]:
        number = random.binomial(len(cleaned), self.options.share)
        weights = self.frequency.copy()
        if self.options.kind == "hard":
            weights = self.together[[self.place[tag] for tag in cleaned]].sum(0)
        own = set(row["tags"])
        near = own | self._implied(row)
        for i, tag in enumerate(self.tags):
            if tag in near or self.parents[tag] & own:
                weights[i] = 0
        if not number or weights.sum() == 0:
            return []
        number = min(number, int((weights > 0).sum()))
        chosen = random.choice(len(weights), number, replace=False, p=weights / weights.sum())
        return [self.tags[i] for i in chosen]

    def _implied(self, row: dict[str, Any]) -> set[str]:
        """Labels that a caption names, also by a synonym, and hypernyms of the photo's tags."""
        text = f" {normalise(' '.join(row['captions']))} "
        named = {tag for tag, own in self.words.items() if any(f" {w} " in text for w in own)}
        return named.union(*(self.parents.get(tag, set()) for tag in row["tags"]))


def write_damaged(options: argparse.Namespace) -> dict[str, Any]:
    """Write fold-0.jsonl and fold-1.jsonl."""
    rows = [json.loads(line) for line in options.records.open(encoding="utf-8")]
    damage = Damage(rows, LabelSystem.read(options.labels), options)
    options.out.mkdir(parents=True, exist_ok=True)
    totals: Counter[str] = Counter()
    with (
        (options.out / "fold-0.jsonl").open("w", encoding="utf-8") as first,
        (options.out / "fold-1.jsonl").open("w", encoding="utf-8") as second,
    ):
        for row in rows:
            out = damage.record(row)
            (first, second)[_hash(row["image"]) % 2].write(json.dumps(out) + "\n")
            totals.update({name: len(tags) for name, tags in out["truth"].items()})
    return {"photos": len(rows), **totals}


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
