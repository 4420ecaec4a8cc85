"""The page on which a person decides whether to trust a cleaning: removed and kept regions."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.cluster import REASONS, Decision
from ramctl.data_engine.region_store import RegionIndex
from ramctl.errors import RecordProblem
from ramctl.labels import LabelSystem
from ramctl.photos.decoding import record_photo
from ramctl.records.record import Record, string_list

TAGS_SHOWN = 60
REGIONS_SHOWN = 12  # a side and tag
THUMBNAIL_PX = 132

STYLE = """
:root { color-scheme: light dark; --line: #8884; --removed: #c0392b; --kept: #1e8449; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1180px;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 0; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
section { border-top: 1px solid var(--line); padding: 1rem 0; }
.facts { opacity: .75; margin: .1rem 0 .6rem; }
.sizes { display: flex; height: 6px; gap: 2px; max-width: 420px; margin: .3rem 0; }
.sizes i { background: #7f8c8d; display: block; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1.2rem; }
.side > b { display: block; margin-bottom: .35rem; }
.removed > b { color: var(--removed); } .kept > b { color: var(--kept); }
.grid { display: flex; flex-wrap: wrap; gap: 6px; }
figure { margin: 0; width: 132px; font-size: 11px; line-height: 1.3; }
figure div { position: relative; display: inline-block; line-height: 0; }
figure span { position: absolute; box-sizing: border-box; border: 2px solid; }
.removed span { border-color: #ff5a45; } .kept span { border-color: #37d67a; }
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """A region with its photo's record."""

    record: Record
    region: NDArray[Any]
    reason: int
    distance: float


def cleaning_page(
    index: RegionIndex, decisions: Iterable[Decision], labels: LabelSystem, seed: int
) -> str:
    """A self-contained HTML page; the labels that lost most come first.

    Photos are read again; one that is gone by now is left out.
    """
    every = sorted(decisions, key=lambda d: (-np.count_nonzero(d.reason), d.label))
    body = [_summary(every), _table(every[:TAGS_SHOWN], labels)]
    random = np.random.default_rng(seed)
    for decision in every[:TAGS_SHOWN]:
        if decision.reason.any():
            body.append(_section(decision, index, labels, random))
    title = "Removed and kept regions"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>\n"
        + "\n".join(body)
        + "</body></html>\n"
    )


def _summary(decisions: Sequence[Decision]) -> str:
    n_regions = sum(len(decision.row) for decision in decisions)
    n_removed = sum(int(np.count_nonzero(decision.reason)) for decision in decisions)
    share = n_removed / max(n_regions, 1)
    return (
        f"<p>{len(decisions)} labels, {n_regions} regions; {n_removed} regions "
        f"({share:.1%}) lose their tag. The {min(len(decisions), TAGS_SHOWN)} labels that lost "
        "most follow. A frame shows where the tag was looked for; a region is removed because it "
        "is far from its cluster (<i>outlier</i>) or because the model does not see the tag on it "
        "(<i>not-predicted</i>). Below each photo: the tag's score on the region, and the "
        "distance.</p>"
    )


def _counts(decision: Decision) -> list[int]:
    return [int(np.count_nonzero(decision.reason == reason)) for reason in REASONS]


def _table(decisions: Sequence[Decision], labels: LabelSystem) -> str:
    head = "".join(f'<th class="n">{text}</th>' for text in ["regions", *REASONS.values()])
    rows = []
    for decision in decisions:
        tag = escape(labels[decision.label].tag)
        cells = "".join(f'<td class="n">{n}</td>' for n in [len(decision.row), *_counts(decision)])
        rows.append(f'<tr><td><a href="#l{decision.label}">{tag}</a></td>{cells}</tr>')
    return f"<table><tr><th>label</th>{head}</tr>{''.join(rows)}</table>"


def _section(
    decision: Decision, index: RegionIndex, labels: LabelSystem, random: np.random.Generator
) -> str:
    gone, kept = np.flatnonzero(decision.reason), np.flatnonzero(decision.reason == 0)
    gone = gone[np.argsort(-decision.distance[gone], kind="stable")]
    # The farthest and the nearest of those removed: the border is where trust is decided.
    half = REGIONS_SHOWN // 2
    gone = gone if len(gone) <= REGIONS_SHOWN else np.concatenate([gone[:half], gone[-half:]])
    kept = np.sort(random.permutation(kept)[:REGIONS_SHOWN])
    sizes = np.bincount(decision.cluster)
    bar = "".join(f'<i style="flex:{n}" title="{n} regions"></i>' for n in sizes)
    label = labels[decision.label]
    n_removed = int(np.count_nonzero(decision.reason))
    return (
        f'<section id="l{decision.label}"><h2>{escape(label.tag)}</h2>'
        f'<p class="facts">{label.kind}; {len(decision.row)} regions, {n_removed} removed; '
        f"clusters of {', '.join(map(str, sizes))}</p>"
        f'<div class="sizes">{bar}</div><div class="sides">'
        + _side("removed", n_removed, decision, gone, index)
        + _side("kept", len(decision.row) - n_removed, decision, kept, index)
        + "</div></section>"
    )


def _side(
    name: str, number: int, decision: Decision, places: NDArray[np.int64], index: RegionIndex
) -> str:
    shown = _shown(decision, places, index)
    figures = "".join(filter(None, map(_figure, shown)))
    return (
        f'<div class="side {name}"><b>{name}: {number}</b><div class="grid">{figures}</div></div>'
    )


def _shown(decision: Decision, places: NDArray[np.int64], index: RegionIndex) -> list[Shown]:
    rows = decision.row[places]
    regions = index.regions(rows)
    records: dict[tuple[int, int], Record] = {}
    located = [index.locate(int(row))[0] for row in rows]
    for number in set(located):
        wanted = {int(r["input"]) for r, at in zip(regions, located, strict=True) if at == number}
        for position, item in enumerate(index.shards[number].inputs()):
            if position in wanted and isinstance(item, Record):
                records[number, position] = item
    return [
        Shown(
            records[number, int(region["input"])],
            region,
            int(decision.reason[place]),
            float(decision.distance[place]),
        )
        for number, region, place in zip(located, regions, places, strict=True)
    ]


def _figure(shown: Shown) -> str:
    try:
        photo = record_photo(shown.record, target=THUMBNAIL_PX)
    except RecordProblem:
        return ""
    photo.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    content = io.BytesIO()
    photo.save(content, "JPEG", quality=70)
    data = base64.b64encode(content.getvalue()).decode("ascii")
    x0, y0, x1, y1 = (100 * float(side) for side in shown.region["box"])
    frame = f"left:{x0:.1f}%;top:{y0:.1f}%;width:{x1 - x0:.1f}%;height:{y1 - y0:.1f}%"
    tags = escape(", ".join(string_list(shown.record.fields, "tags")), quote=True)
    reason = REASONS.get(shown.reason, "")
    facts = f"{float(shown.region['score']):.2f} · {shown.distance:.2f}"
    return (
        f'<figure title="{tags}"><div><img src="data:image/jpeg;base64,{data}" alt="" '
        f'width="{photo.width}" height="{photo.height}"><span style="{frame}"></span></div>'
        f"<figcaption>{facts}<br>{reason}</figcaption></figure>"
    )
