"""Tags of records to be judged on the review's page, whoever gave them."""

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

from ramctl.pages.gallery import Adder
from ramctl.pages.review import GIVEN, MOST_JUDGED, Judged, Pictured, review_page
from ramctl.records.files import output_lock, replacing
from ramctl.records.jsonl import dumps
from ramctl.records.parallel import usable_cores
from ramctl.records.record import JsonObject, Record, object_in, string_list
from ramctl.records.verdicts import ADD, Verdicts

UNKNOWN = 0.5  # the chance of being right of a tag without a score


@contextmanager
def open_review(path: Path, verdicts: Verdicts) -> Iterator[Adder]:
    """A function that adds a record's tags to the page, which replaces `path` at the block's end.

    Of more than MOST_JUDGED tags those with the lowest scores are there. Earlier `verdicts` are
    shown. After an error `path` is as it was.
    """
    least_sure: list[tuple[float, int, Judged]] = []  # a heap
    totals: defaultdict[str, Counter[str]] = defaultdict(Counter)
    expected_wrong: defaultdict[str, float] = defaultdict(float)
    numbers = count()
    stamp = hashlib.blake2b(digest_size=8)

    def add(record: Record, fields: JsonObject) -> None:
        written = (tag for tag, verdict in verdicts.of(fields).items() if verdict == ADD)
        tags = list(dict.fromkeys([*string_list(fields, "tags"), *written]))
        kinds, scores, boxes = (object_in(fields, name) for name in ("kinds", "scores", "boxes"))
        pictured, decided = Pictured.of(record), verdicts.of(fields)
        stamp.update(dumps([{"image": fields["image"], "tags": tags}]))
        for tag in tags:
            score = scores.get(tag)
            known = float(score) if isinstance(score, int | float) else None
            doubt = 1 - (UNKNOWN if known is None else known)
            box = boxes.get(tag)
            judged = Judged(
                tag, str(kinds.get(tag, "")), GIVEN, doubt, pictured, score=known,
                box=box[0] if isinstance(box, list) else None, verdict=decided.get(tag),
            )  # fmt: skip
            totals[tag][GIVEN] += 1
            expected_wrong[tag] += doubt
            keep = heapq.heappush if len(least_sure) < MOST_JUDGED else heapq.heappushpop
            keep(least_sure, (doubt, next(numbers), judged))

    with output_lock(path):
        yield add
        shown = [
            replace(one, doubt=expected_wrong[one.tag] + 1e-6 * one.doubt)  # by tag first
            for _, _, one in least_sure
        ]
        with replacing(path) as stream:
            for piece in review_page(shown, totals, stamp.hexdigest(), jobs=usable_cores()):
                stream.write(piece.encode("utf-8"))
