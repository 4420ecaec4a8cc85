#!/usr/bin/env python
"""Planted errors: how many wrong tags cleaning finds, how many lost ones generation returns.

    planted.py damage parsed.jsonl --labels labels.jsonl --kind hard --share 0.1 --out damaged/
    planted.py count WORK-0 WORK-1          the cleaning rules, apart and together
    planted.py returned damaged/ dense-0 dense-1     tags that come back
    planted.py probe damaged/ --model M     a linear probe on frozen features: the floor

Records go in two folds by photo. A fold is scored by the model of the other; the share to remove is
chosen on one fold and measured on the other. Right are tags that two captions or more name; those
named once count neither way.
"""

import argparse
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ramctl.data_engine.cluster import ClusterSettings, cluster_regions
from ramctl.data_engine.decide import RegionIndex
from ramctl.data_engine.work import WorkFolder
from ramctl.io.records import Record
from ramctl.labels import LabelSystem, normalise

CLEANED_KINDS = ("object", "scene")
MOST_LOST = 0.10  # of right tags
MIN_REGIONS = 20
PLANTED, RIGHT, ONCE = 1, 0, -1


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    damage = commands.add_parser("damage")
    damage.add_argument("records", type=Path)
    damage.add_argument("--labels", type=Path, required=True)
    damage.add_argument("--kind", choices=["random", "hard"], required=True)
    damage.add_argument("--share", type=float, required=True, help="planted, of a record's tags")
    damage.add_argument("--drop", type=float, default=0.3, help="of all tags")
    damage.add_argument("--min-count", type=int, default=5)
    damage.add_argument("--seed", type=int, default=0)
    damage.add_argument("--out", type=Path, required=True)
    count = commands.add_parser("count")
    count.add_argument("works", type=Path, nargs=2)
    returned = commands.add_parser("returned")
    returned.add_argument("damaged", type=Path)
    returned.add_argument("dense", type=Path, nargs=2)
    probe = commands.add_parser("probe")
    probe.add_argument("damaged", type=Path)
    probe.add_argument("--model", required=True)
    probe.add_argument("--cache", type=Path, required=True)
    probe.add_argument("--root", type=Path, required=True)
    options = parser.parse_args()
    result = {
        "damage": write_damaged, "count": count_removed, "returned": count_returned,
        "probe": probe_floor,
    }[options.command](options)  # fmt: skip
    print(json.dumps(result, indent=2))


# --- damage ---------------------------------------------------------------------------------


class Damage:
    """Plants wrong tags and drops right ones."""

    def __init__(
        self, rows: Sequence[dict], labels: LabelSystem, options: argparse.Namespace
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

    def _together(self, rows: Sequence[dict]) -> np.ndarray:
        """How often a tag is named beside another, as a share of the other's mentions."""
        named = np.zeros((len(rows), len(self.tags)), np.float32)
        for i, row in enumerate(rows):
            named[i, [self.place[tag] for tag in row["tags"] if tag in self.place]] = 1
        return (named.T @ named) / self.frequency[:, None]

    def record(self, row: dict) -> dict:
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
            },
        }

    def _plant(self, row: dict, cleaned: list[str], random: np.random.Generator) -> list[str]:
        number = random.binomial(len(cleaned), self.options.share)
        weights = self.frequency.copy()
        if self.options.kind == "hard":
            weights = self.together[[self.place[tag] for tag in cleaned]].sum(0)
        text = f" {normalise(' '.join(row['captions']))} "
        near = set(row["tags"]).union(*(self.parents.get(tag, set()) for tag in row["tags"]))
        for i, tag in enumerate(self.tags):
            named = tag in near or any(f" {word} " in text for word in self.words[tag])
            if named or self.parents[tag] & set(row["tags"]):
                weights[i] = 0
        if not number or weights.sum() == 0:
            return []
        number = min(number, int((weights > 0).sum()))
        chosen = random.choice(len(weights), number, replace=False, p=weights / weights.sum())
        return [self.tags[i] for i in chosen]


def write_damaged(options: argparse.Namespace) -> dict:
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


# --- cleaning -------------------------------------------------------------------------------


@dataclass
class Scored:
    """The tags of a fold that could be removed, and what the rules go by.

    Where there is no region, or too few of the tag, `distance_rank` and `score` say "keep".
    """

    truth: np.ndarray  # PLANTED, RIGHT, ONCE
    distance: np.ndarray
    distance_rank: np.ndarray  # 1 is the farthest of its tag
    score: np.ndarray
    score_rank: np.ndarray  # 0 is the lowest of its tag

    def removed(self, rule: "Rule") -> tuple[float, float]:
        """The shares of planted and of right tags that a rule removes."""
        gone = rule.marks(self)
        return float(gone[self.truth == PLANTED].mean()), float(gone[self.truth == RIGHT].mean())


@dataclass(frozen=True)
class Rule:
    """The farthest share, and scores below a number or the lowest share of each tag."""

    outliers: float = 0.0
    below: float | None = None
    lowest: float = 0.0

    def marks(self, scored: Scored) -> np.ndarray:
        """True where the tag goes."""
        gone = scored.distance_rank > 1 - self.outliers
        if self.below is not None:
            gone = gone | (scored.score <= self.below)
        return gone | (scored.score_rank < self.lowest)

    def __str__(self) -> str:
        threshold = f"{self.below:.4f}" if self.below is not None else f"lowest:{self.lowest:.3f}"
        return f"--outliers {self.outliers:.3f} --threshold {threshold}"


def read_scored(path: Path) -> Scored:
    """The regions of a finished `detect`, with the distances of `cluster`."""
    index = RegionIndex(WorkFolder(path).shards())
    truth, places = _truths(index)
    n = len(truth)
    scored = Scored(truth, np.full(n, np.nan), np.zeros(n), np.ones(n), np.ones(n))
    for label, count in index.counts().items():
        if count < MIN_REGIONS:
            continue
        rows = index.rows(label)
        at = places[rows]
        clusters = cluster_regions(
            count, lambda some, r=rows: index.features(r[some]), ClusterSettings()
        )
        scored.distance[at] = clusters.distance
        scored.distance_rank[at] = _ranks(clusters.distance, 1)
        scored.score[at] = index.regions(rows)["score"]
        scored.score_rank[at] = _ranks(scored.score[at], 0)
    return scored


def _truths(index: RegionIndex) -> tuple[np.ndarray, np.ndarray]:
    """The truth of every tag of the cleaned kinds, and each region's place in it."""
    truth: list[int] = []
    places = np.zeros(int(index.offsets[-1]), np.int64)
    for shard, offset in zip(index.shards, index.offsets[:-1], strict=True):
        regions = {(int(r["input"]), int(r["place"])): i for i, r in enumerate(shard.regions)}
        for position, item in enumerate(shard.inputs()):
            assert isinstance(item, Record)
            for place, tag in enumerate(item.fields["tags"]):
                if item.fields["kinds"][tag] not in CLEANED_KINDS:
                    continue
                row = regions.get((position, place))
                if row is not None:
                    places[offset + row] = len(truth)
                truth.append(_truth_of(tag, item.fields["truth"]))
    return np.array(truth), places


def _truth_of(tag: str, truth: dict) -> int:
    if tag in truth["planted"]:
        return PLANTED
    return RIGHT if tag in truth["right"] else ONCE


def _ranks(values: np.ndarray, top: int) -> np.ndarray:
    """Places in (0, 1] of each value (`top` 1), or in [0, 1) (`top` 0)."""
    return (np.argsort(np.argsort(values, kind="stable"), kind="stable") + top) / len(values)


def rules(kind: str, scores: np.ndarray) -> Iterator[Rule]:
    """The rules that are tried: outliers alone, the prediction alone, or both."""
    shares = [0.0, *np.arange(0.025, 0.61, 0.025)]
    numbers = np.unique(np.quantile(scores, np.linspace(0, 0.6, 61)))
    outliers = [0.0] if kind == "not-predicted" else shares
    if kind == "outlier":
        yield from (Rule(share) for share in shares)
        return
    for share in outliers:
        yield from (Rule(share, below=float(number)) for number in numbers)
        yield from (Rule(share, lowest=float(low)) for low in shares)


def count_removed(options: argparse.Namespace) -> dict:
    """The three rules chosen on one fold and measured on the other, both ways."""
    folds = [read_scored(path) for path in options.works]
    out: dict = {"auc": _auc(folds)}
    for kind in ("outlier", "not-predicted", "both"):
        out[kind] = [_chosen(kind, a, b) for a, b in (folds, folds[::-1])]
        out[kind].append({"planted": np.mean([x["planted"] for x in out[kind]]).round(4)})
    return out


def _chosen(kind: str, chosen_on: Scored, measured_on: Scored) -> dict:
    best, best_gone = Rule(), 0.0
    for rule in rules(kind, chosen_on.score):
        gone, lost = chosen_on.removed(rule)
        if lost <= MOST_LOST and gone > best_gone:
            best, best_gone = rule, gone
    gone, lost = measured_on.removed(best)
    return {"rule": str(best), "planted": round(gone, 4), "right": round(lost, 4)}


def _auc(folds: Sequence[Scored]) -> dict:
    """How well planted tags are ranked before right ones."""
    from sklearn.metrics import roc_auc_score

    out = {}
    for name, sign in (("distance", 1), ("distance_rank", 1), ("score", -1), ("score_rank", -1)):
        values = []
        for fold in folds:
            seen = (fold.truth != ONCE) & ~np.isnan(fold.distance)
            wrong = fold.truth[seen] == PLANTED
            values.append(roc_auc_score(wrong, sign * getattr(fold, name)[seen]))
        out[name] = round(float(np.mean(values)), 4)
    return out


# --- generation -----------------------------------------------------------------------------


def count_returned(options: argparse.Namespace) -> dict:
    """Precision and recall of dropped tags among those that a fold does not have any more.

    `dense` are the scores of the folds' photos (`ramctl tag --dense`), in order.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    scores, wanted = [], []
    for fold, path in enumerate(options.dense):
        tags: list[str] = []
        damaged = read_jsonl(options.damaged / f"fold-{fold}.jsonl")
        for row, given in zip(read_jsonl(path), damaged, strict=True):
            tags = row.get("label_names", tags)
            truth = given["truth"]
            out = set(given["tags"]) | set(truth["once"])
            back = set(truth["dropped"]) & set(truth["right"])
            for tag, score in zip(tags, row["dense"], strict=True):
                if tag not in out:
                    scores.append(score)
                    wanted.append(tag in back)
    precision, recall, _ = precision_recall_curve(wanted, scores)
    at = {share: round(float(precision[recall >= share].max()), 4) for share in (0.1, 0.2, 0.3)}
    return {
        "candidates": len(scores),
        "dropped": int(np.sum(wanted)),
        "precision_at_recall": at,
        "average_precision": round(float(average_precision_score(wanted, scores)), 4),
    }


# --- the floor ------------------------------------------------------------------------------


def probe_floor(options: argparse.Namespace) -> dict:
    """A linear layer on pooled frozen features, trained on the damaged tags of the other fold.

    The lowest scores of each tag go, or those under a number, as with `not-predicted`.
    """
    rows = [read_jsonl(options.damaged / f"fold-{i}.jsonl") for i in (0, 1)]
    tags = sorted({tag for fold in rows for row in fold for tag in row["tags"]})
    place = {tag: i for i, tag in enumerate(tags)}
    folds = []
    for i in (0, 1):
        features = pooled_features(options, i, rows[i])
        targets = np.zeros((len(rows[i]), len(tags)), np.float32)
        for n, row in enumerate(rows[i]):
            targets[n, [place[tag] for tag in row["tags"]]] = 1
        folds.append((features, targets))
    scored = []
    for i in (0, 1):
        features, targets = folds[1 - i]
        probe = LinearProbe(features, targets)
        scored.append(_probed(rows[i], probe.scores(folds[i][0]), place))
    ways = [_chosen("not-predicted", a, b) for a, b in (scored, scored[::-1])]
    return {"auc": _auc(scored), "probe": ways}


def read_jsonl(path: Path) -> list[dict]:
    """The records of a file."""
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def pooled_features(options: argparse.Namespace, fold: int, rows: Sequence[dict]) -> np.ndarray:
    """The mean over the encoder's tokens of each photo, kept in a file."""
    from ramctl.data_engine.baseline import Baseline, BaselineOptions
    from ramctl.io.images import load_photo

    path = options.cache / f"pooled-{fold}.npy"
    if not path.exists():
        baseline = Baseline.load(options.model, BaselineOptions())
        photos = (load_photo(row["image"], options.root) for row in rows)
        batches = iter(lambda: list(itertools.islice(photos, baseline.batch)), [])
        pooled = [baseline.features(batch).mean(1).numpy() for batch in batches]
        options.cache.mkdir(parents=True, exist_ok=True)
        np.save(path, np.concatenate(pooled))
    return np.load(path)


class LinearProbe:
    """One linear layer with the asymmetric loss of the model's own training."""

    def __init__(self, features: np.ndarray, targets: np.ndarray, *, epochs: int = 20) -> None:
        import torch

        from ramctl.model.losses import asymmetric_loss

        torch.manual_seed(0)
        self.mean, self.scale = features.mean(0), features.std(0).mean()
        x, y = self._input(features), torch.from_numpy(targets)
        self.layer = torch.nn.Linear(x.shape[1], y.shape[1])
        torch.nn.init.zeros_(self.layer.weight)
        torch.nn.init.constant_(self.layer.bias, -3.0)
        optimiser = torch.optim.AdamW(self.layer.parameters(), lr=1e-3, weight_decay=0.01)
        for _ in range(epochs):
            for some in torch.randperm(len(x)).split(128):
                term = asymmetric_loss(
                    self.layer(x[some]), y[some], gamma_neg=2.0, gamma_pos=0.0, clip=0.05
                )
                loss = term.total / len(some)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Probabilities (photos, tags)."""
        return self.layer(self._input(features)).sigmoid().detach().numpy()

    def _input(self, features: np.ndarray):
        import torch

        return torch.from_numpy(((features - self.mean) / self.scale).astype(np.float32))


def _probed(rows: Sequence[dict], scores: np.ndarray, place: dict[str, int]) -> Scored:
    """The cleaned kinds' tags of a fold with the probe's scores."""
    truth, score, column = [], [], []
    for row, own in zip(rows, scores, strict=True):
        for tag in row["tags"]:
            if row["kinds"][tag] in CLEANED_KINDS:
                truth.append(_truth_of(tag, row["truth"]))
                score.append(own[place[tag]])
                column.append(place[tag])
    scored = Scored(
        np.array(truth), np.zeros(len(truth)), np.zeros(len(truth)), np.array(score),
        np.ones(len(truth)),
    )  # fmt: skip
    for tag in set(column):
        at = np.flatnonzero(np.array(column) == tag)
        scored.score_rank[at] = _ranks(scored.score[at], 0)
    return scored


if __name__ == "__main__":
    main()
