#!/usr/bin/env python3
"""Write a page of 20 typical mistakes: wrong tags of judged photos, with thumbnails.

    scripts/mini/mistakes.py judged_dev.jsonl judge.py --root PHOTOS --tags tags.jsonl \\
        --dense dense.jsonl > mistakes.html

Of the labels that are most often wrong, the photo on which the model is surest. The photos are
not free: do not publish the page.
"""

import argparse
import html
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

from judging import open_judge

from ramctl.pages import thumbnail
from ramctl.records.record import Record

MISTAKES = 20
THUMBNAIL_PX = 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("judged", type=Path)
    parser.add_argument("judge", type=Path)
    for name in ("--root", "--tags", "--dense"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    judge = open_judge(args.judge)

    def records(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    truth = {judge.name(record["image"]): record for record in records(args.judged)}
    dense = records(args.dense)
    column = {name: index for index, name in enumerate(dense[0]["label_names"])}
    scores = {record["image"]: record["dense"] for record in dense}
    wrong: dict[str, list[tuple[float, str, list[str]]]] = defaultdict(list)
    for record in records(args.tags):
        judged = truth[judge.name(record["image"])]
        accepted = {judge.fold(tag) for tag in [*judged["right"], *judged["doubtful"]]}
        for tag in record["tags"]:
            if judge.fold(tag) not in accepted:
                score = scores[record["image"]][column[tag]]
                wrong[tag].append((score, record["image"], record["tags"]))
    figures = []
    for tag, cases in sorted(wrong.items(), key=lambda item: -len(item[1]))[:MISTAKES]:
        score, image, tags = max(cases)
        shown = Record({"image": image}, str(args.tags), 1, args.root)
        photo = thumbnail(shown, THUMBNAIL_PX, 80)
        words = " ".join(f"<b>{t}</b>" if t == tag else html.escape(t) for t in tags)
        figures.append(
            f'<figure><img src="{photo.source}" alt=""><figcaption><b>{html.escape(tag)}</b> '
            f"{score:.2f}, wrong on {len(cases)} photos<br>{words}</figcaption></figure>"
        )
    style = (
        "body{font:15px sans-serif;display:flex;flex-wrap:wrap;gap:1em}figure{width:240px;margin:0}"
    )
    print(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Typical mistakes</title>'
        f"<style>{style}</style>{''.join(figures)}</html>"
    )


if __name__ == "__main__":
    main()
