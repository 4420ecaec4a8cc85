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
from ramctl.records.fields import scored_boxes
from ramctl.records.files import output_lock, replacing
from ramctl.records.jsonl import dumps
from ramctl.records.parallel import usable_cores
from ramctl.records.record import JsonObject, Record, listed, object_in
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
        tags = list(dict.fromkeys([*listed(fields, "tags"), *written]))
        kinds, scores = object_in(fields, "kinds"), object_in(fields, "scores")
        boxes = scored_boxes(fields)
        pictured, decided = Pictured.of(record), verdicts.of(fields)
        stamp.update(dumps([{"image": fields["image"], "tags": tags}]))
        for tag in tags:
            doubt = 1 - scores.get(tag, UNKNOWN)
            judged = Judged(
                tag, kinds.get(tag, ""), GIVEN, doubt, pictured, score=scores.get(tag),
                box=boxes.get(tag, [None])[0], verdict=decided.get(tag),
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
