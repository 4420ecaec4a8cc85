"""Tags that were dropped, and what a model gives back."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ramctl.io.images import load_photo

RECALL = 0.20
SHOWN, ACROSS, SIDE_PX, LINE_PX = 100, 5, 224, 26


def count_returned(damaged: Sequence[Sequence[dict]], dense: Sequence[Sequence[dict]]) -> dict:
    """Precision and recall of dropped right tags among the tags that photos do not have.

    `dense` are the scores of the folds' photos, in order. Tags that one caption names do not count.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    rows = list(candidates(damaged, dense))
    scores = np.array([score for *_, score, _ in rows])
    wanted = np.array([is_dropped for *_, is_dropped in rows])
    precision, recall, _ = precision_recall_curve(wanted, scores)
    at = {share: round(float(precision[recall >= share].max()), 4) for share in (0.1, 0.2, 0.3)}
    return {
        "candidates": len(scores),
        "dropped": int(wanted.sum()),
        "precision_at_recall": at,
        "average_precision": round(float(average_precision_score(wanted, scores)), 4),
    }


def candidates(damaged: Sequence[Sequence[dict]], dense: Sequence[Sequence[dict]]):
    """(photo's record, tag, score, whether it was dropped) of each tag that could come back."""
    for rows, scored in zip(damaged, dense, strict=True):
        tags = scored[0]["label_names"]
        for row, scores in zip(rows, scored, strict=True):
            truth = row["truth"]
            out = set(row["tags"]) | set(truth["once"])
            back = set(truth["dropped"]) & set(truth["right"])
            for tag, score in zip(tags, scores["dense"], strict=True):
                if tag not in out:
                    yield row, tag, score, tag in back


def write_sheets(
    damaged: Sequence[Sequence[dict]], dense: Sequence[Sequence[dict]], root: Path, out: Path
) -> dict:
    """Contact sheets of 100 returned tags that no caption names, drawn from those above the cut.

    The cut is where a fifth of the dropped tags is back. Someone looks, and counts.
    """
    from PIL import Image, ImageDraw

    facts = [(score, is_dropped) for _, _, score, is_dropped in candidates(damaged, dense)]
    scores, wanted = np.array(facts).T
    order = np.argsort(-scores, kind="stable")
    cut = int(np.searchsorted(np.cumsum(wanted[order]), RECALL * wanted.sum())) + 1
    lowest = scores[order[cut - 1]]
    unnamed = [row for row in candidates(damaged, dense) if row[2] >= lowest and not row[3]]
    random = np.random.default_rng(0)
    chosen = random.choice(len(unnamed), min(SHOWN, len(unnamed)), replace=False)
    out.mkdir(parents=True, exist_ok=True)
    listed = []
    for sheet, start in enumerate(range(0, len(chosen), ACROSS * ACROSS)):
        places = np.sort(chosen)[start : start + ACROSS * ACROSS]
        height = SIDE_PX + LINE_PX
        page = Image.new("RGB", (ACROSS * SIDE_PX, ACROSS * height), "white")
        draw = ImageDraw.Draw(page)
        for cell, place in enumerate(places):
            row, tag, score, _ = unnamed[place]
            photo = load_photo(row["image"], root).resize((SIDE_PX - 4, SIDE_PX - 4))
            x, y = cell % ACROSS * SIDE_PX, cell // ACROSS * height
            page.paste(photo, (x, y + LINE_PX))
            number = sheet * ACROSS * ACROSS + cell + 1
            draw.text((x + 4, y + 5), f"{number}. {tag}  {score:.2f}", "black", font_size=17)
            listed.append(f"{number}\t{tag}\t{score:.3f}\t{row['image']}\n")
        page.save(out / f"returned-{sheet + 1}.jpg", quality=80)
    (out / "returned.tsv").write_text("".join(listed), encoding="utf-8")
    return {"returned": cut, "no caption names": len(unnamed), "shown": len(chosen)}
