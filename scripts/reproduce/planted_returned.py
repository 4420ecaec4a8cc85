"""Tags that were dropped, and which of them a model restores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from planted_damage import CLEANED_KINDS

from ramctl.photos.decoding import load_photo

RECALL = 0.20
SHARES = (0.1, 0.2, 0.3)
SHOWN, ACROSS, SIDE_PX, LINE_PX = 100, 5, 224, 26
Folds = Sequence[Sequence[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The tags that photos do not have, most confident first; arrays are parallel.

    Wanted are dropped tags that two or more captions name. Tags that one caption names do not
    count, nor those that planting never takes for wrong: what a caption mentions or a tag of the
    photo implies. `n_wanted` also counts those that have no column in the scores.
    """

    n_wanted: int

    fold: np.ndarray
    photo: np.ndarray  # in its fold
    tag: np.ndarray  # label id
    score: np.ndarray
    wanted: np.ndarray

    @classmethod
    def of(
        cls,
        folds: Folds,
        scores: Sequence[np.ndarray],
        names: Sequence[str],
        kinds: Sequence[str] | None = None,
    ) -> "Candidates":
        """Those of the folds' photos, with the scores (photos, labels) of the labels `names`.

        With `kinds` only tags of these kinds.
        """
        place = {name: i for i, name in enumerate(names)}
        kind = {tag: own for rows in folds for row in rows for tag, own in row["kinds"].items()}
        others = {tag for tag in kind if kinds is not None and kind[tag] not in kinds}
        parts, n_wanted = [], 0
        for number, (rows, own) in enumerate(zip(folds, scores, strict=True)):
            out, back = np.zeros((2, *own.shape), bool)
            for i, row in enumerate(rows):
                truth = row["truth"]
                wanted = set(truth["dropped"]) & set(truth["right"]) - others
                neither = {*row["tags"], *truth["once"], *truth["implied"], *others} - wanted
                out[i, [place[tag] for tag in neither & place.keys()]] = True
                n_wanted += len(wanted)
                back[i, [place[tag] for tag in wanted & place.keys()]] = True
            photo, tag = np.nonzero(~out)
            fold = np.full(len(photo), number)
            parts.append((fold, photo, tag, own[photo, tag], back[photo, tag]))
        arrays = [np.concatenate(part) for part in zip(*parts, strict=True)]
        order = np.argsort(-arrays[3], kind="stable")
        return cls(n_wanted, *(array[order] for array in arrays))

    def cut(self, recall: float) -> int:
        """How many have to be taken to get a share of the wanted ones."""
        return int(np.searchsorted(np.cumsum(self.wanted), recall * self.n_wanted)) + 1


def count_returned(
    folds: Folds, scores: Sequence[np.ndarray], names: Sequence[str]
) -> dict[str, Any]:
    """Precision at some recalls of dropped right tags among the tags that photos do not have.

    Over all kinds, and over those that are planted and cleaned.
    """
    return {
        "all": _precision(Candidates.of(folds, scores, names)),
        "cleaned kinds": _precision(Candidates.of(folds, scores, names, CLEANED_KINDS)),
    }


def _precision(found: Candidates) -> dict[str, Any]:
    precision = np.cumsum(found.wanted) / np.arange(1, len(found.wanted) + 1)
    return {
        "candidates": len(found.wanted),
        "dropped": found.n_wanted,
        "precision_at_recall": {
            share: round(float(precision[found.cut(share) - 1 :].max()), 4) for share in SHARES
        },
        "threshold_at_recall": {
            share: round(float(found.score[found.cut(share) - 1]), 4) for share in SHARES
        },
    }


def write_sheets(
    folds: Folds, scores: Sequence[np.ndarray], names: Sequence[str], root: Path, out: Path
) -> dict[str, Any]:
    """Contact sheets of 100 returned tags that no caption names, drawn from those above the cut.

    The cut is where a fifth of the dropped tags is back. A person looks at them and counts.
    """
    from PIL import Image, ImageDraw

    found = Candidates.of(folds, scores, names)
    cut = found.cut(RECALL)
    unnamed = np.flatnonzero(~found.wanted[:cut])
    random = np.random.default_rng(0)
    chosen = np.sort(random.choice(unnamed, min(SHOWN, len(unnamed)), replace=False))
    out.mkdir(parents=True, exist_ok=True)
    listed = []
    for sheet, start in enumerate(range(0, len(chosen), ACROSS * ACROSS)):
        places = chosen[start : start + ACROSS * ACROSS]
        height = SIDE_PX + LINE_PX
        page = Image.new("RGB", (ACROSS * SIDE_PX, ACROSS * height), "white")
        draw = ImageDraw.Draw(page)
        for cell, place in enumerate(places):
            image = folds[found.fold[place]][found.photo[place]]["image"]
            tag, score = names[found.tag[place]], found.score[place]
            photo = load_photo(image, root).resize((SIDE_PX - 4, SIDE_PX - 4))
            x, y = cell % ACROSS * SIDE_PX, cell // ACROSS * height
            page.paste(photo, (x, y + LINE_PX))
            number = sheet * ACROSS * ACROSS + cell + 1
            draw.text((x + 4, y + 5), f"{number}. {tag}  {score:.2f}", "black", font_size=17)
            listed.append(f"{number}\t{tag}\t{score:.3f}\t{image}\n")
        page.save(out / f"returned-{sheet + 1}.jpg", quality=80)
    (out / "returned.tsv").write_text("".join(listed), encoding="utf-8")
    return {"returned": cut, "no caption names": len(unnamed), "shown": len(chosen)}
