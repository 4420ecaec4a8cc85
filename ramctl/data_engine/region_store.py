"""The work folder of `clean`: regions in shards, decisions by tag, files whole or absent.

detect.json          the settings of the regions; another model or detector is an error
complete.json        {"shards", "inputs"}, once the input has ended
shards/00000/        inputs.jsonl   the records (and rejects) of the shard, in input order
                     regions.npy    one `REGION` per region, in input order
                     features.npy   float16, one row per region
                     photos.npy     float16, one row per input: the whole photo as a region; zeros
                                    for a reject, or a photo without regions
                     shard.json     hash of the inputs, counts
unfinished/          shards that are being written
cluster.json         the rules of the decisions; changed rules decide again
clusters/*/00017.npy the decisions on the regions of the label with this id
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import orjson
from numpy.lib.recfunctions import repack_fields
from numpy.typing import NDArray

from ramctl.errors import RunProblem
from ramctl.records.files import naming, remove_all, sync_folder, sync_tree, write_atomic
from ramctl.records.jsonl import spool_line, stamp_of, unspool
from ramctl.records.ownership import FolderMark, require_ours
from ramctl.records.parallel import chunks
from ramctl.records.record import BY_CAPTION, BY_TAG, HUMAN, PARSED, Item, JsonObject, Record
from ramctl.records.shards import Shard as Part
from ramctl.records.state import parsed

FORMAT = 6
SHARD_INPUTS = 128
# Mapped files that stay open, each with a descriptor, of which a process often may have 1,024.
MAX_MAPS = 128

REGION = np.dtype(
    [
        ("input", "<u2"),  # place in the shard
        ("place", "<u2"),  # of the tag in the record's tags
        ("label", "<u4"),
        ("sources", "u1"),  # bits of _SOURCE_BITS
        ("box", "<f4", 4),
        ("score", "<f4"),
        ("photo_score", "<f4"),
    ]
)
TWICE = "parsed twice"  # besides `parsed`: two captions or more name the tag
# Part of the file format: never renumber.
_SOURCE_BITS = {PARSED: 1, HUMAN: 2, BY_CAPTION: 4, BY_TAG: 8, TWICE: 16}

Array = NDArray[Any]
Rows = NDArray[np.int64]


def source_bits(sources: Collection[object], *, twice: bool = False) -> int:
    """The known ones of these sources as bits; `twice` adds the bit of TWICE."""
    names = [*sources, TWICE] if twice else sources
    return sum(bit for name, bit in _SOURCE_BITS.items() if name in names)


@dataclass(slots=True)
class ShardWriter:
    """Collects one shard's inputs and regions."""

    inputs: list[Item] = field(default_factory=list)
    regions: list[tuple[Any, ...]] = field(default_factory=list)
    features: list[NDArray[np.float16]] = field(default_factory=list)
    photos: list[NDArray[np.float16] | None] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def save(self, folder: Path, stamp: str) -> None:
        """Write the shard under another name and rename it."""
        with naming(folder):
            begun = folder.parent.with_name("unfinished")
            begun.mkdir(parents=True, exist_ok=True)
            folder.parent.mkdir(exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=begun))
            try:
                self._write(part, stamp)
                for other in begun.glob(f".{folder.name}.*"):  # by runs that were killed
                    if other.name != part.name:  # mkdtemp makes paths absolute from Python 3.12 on
                        remove_all(other)
                part.rename(folder)
            except OSError:
                remove_all(part)
                if not folder.exists():  # else another process finished the same shard first
                    raise
            sync_folder(folder.parent)

    def _write(self, part: Path, stamp: str) -> None:
        (part / "inputs.jsonl").write_bytes(b"".join(map(spool_line, self.inputs)))
        np.save(part / "regions.npy", np.array(self.regions, REGION))
        rows = np.stack(self.features) if self.features else np.zeros((0, 0), np.float16)
        np.save(part / "features.npy", rows)
        width = next((len(photo) for photo in self.photos if photo is not None), 0)
        photos = np.zeros((len(self.photos), width), np.float16)
        for place, photo in enumerate(self.photos):
            photos[place] = 0 if photo is None else photo
        np.save(part / "photos.npy", photos)
        facts = {
            "stamp": stamp,
            "inputs": len(self.inputs),
            "counts": {**self.counts, "regions": len(self.regions)},
            "rejects": Counter(item.code for item in self.inputs if not isinstance(item, Record)),
        }
        (part / "shard.json").write_bytes(orjson.dumps(facts) + b"\n")
        sync_tree(part)


_map_array = partial(np.load, mmap_mode="r")


def _read_facts(path: Path) -> JsonObject:
    with naming(path):
        facts = parsed(path.read_bytes())
    if facts is None:
        raise RunProblem(f"{path}: damaged; remove the work folder")
    return facts


@dataclass(frozen=True)
class Shard:
    """One finished shard, read by memory map; copy the arrays to keep them."""

    folder: Path
    read: Callable[[Path], Array] = _map_array

    @cached_property
    def facts(self) -> JsonObject:
        """`stamp`, `inputs`, `counts`."""
        return _read_facts(self.folder / "shard.json")

    @property
    def regions(self) -> Array:
        """The regions, `REGION`."""
        return self._load("regions.npy")

    @property
    def features(self) -> NDArray[np.float16]:
        """The regions' features, (regions, D)."""
        return self._load("features.npy")

    @property
    def photos(self) -> NDArray[np.float16]:
        """The features of the inputs' photos, (inputs, D)."""
        return self._load("photos.npy")

    def _load(self, name: str) -> Array:
        # One without elements cannot be mapped.
        read = self.read if self.facts["counts"].get("regions", 0) else np.load
        try:
            return cast(Array, read(self.folder / name))
        except (OSError, EOFError, ValueError) as error:
            raise RunProblem(f"{self.folder / name}: damaged; remove the work folder") from error

    def inputs(self) -> Iterator[Item]:
        """The shard's records and rejects in input order."""
        with (self.folder / "inputs.jsonl").open("rb") as lines:
            yield from unspool(lines)


WORK = FolderMark(
    "a work folder of clean",
    ".ramctl-clean",
    (
        ".ramctl-clean", "detect.json*", "complete.json*", "cluster.json*", "part-*.part.lock",
        "shards/*", "unfinished/*", "clusters/*",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class WorkFolder:
    """The folder of a run; several processes may fill it together."""

    path: Path

    def start(self, settings: JsonObject, model_at: str) -> None:
        """Start, or continue what was started with the same settings; RunProblem with others.

        `model_at` tells later stages where to find the model.
        """
        require_ours(self.path, WORK)
        WORK.put_on(self.path)
        head = {"format": FORMAT, "shard_inputs": SHARD_INPUTS, **settings}
        path = self.path / "detect.json"
        if not path.exists():
            whole = head | {"model_at": model_at}
            write_atomic(path, orjson.dumps(whole, option=orjson.OPT_INDENT_2) + b"\n")
        earlier = _read_facts(path)
        if changed := [key for key in head if earlier.get(key) != head[key]]:
            raise RunProblem(
                f"{path}: started with different {', '.join(changed)}; use another folder, "
                "or remove this one"
            )

    def facts(self, name: str, otherwise: str) -> JsonObject:
        """The contents of a file; RunProblem with the message `otherwise` without it."""
        path = self.path / name
        if not path.exists():
            raise RunProblem(f"{self.path}: {otherwise}")
        return _read_facts(path)

    def settings(self) -> JsonObject:
        """The settings that the regions were found with; RunProblem without regions."""
        return self.facts("detect.json", "no regions in it; run --stage detect first")

    def shard(self, index: int) -> Shard:
        """The shard with this number, which need not be there yet."""
        return Shard(self.path / "shards" / f"{index:05d}")

    def complete(self, n_shards: int, n_inputs: int) -> None:
        """Record that the input has ended, and how long it was."""
        facts = {"shards": n_shards, "inputs": n_inputs}
        write_atomic(self.path / "complete.json", orjson.dumps(facts) + b"\n")

    def shards(self) -> list[Shard]:
        """All shards; RunProblem when the input was not read to its end or shards are missing."""
        unfinished = "detection is not complete; run --stage detect again"
        n_shards = self.facts("complete.json", unfinished)["shards"]
        if missing := [i for i in range(n_shards) if not self.shard(i).folder.is_dir()]:
            raise RunProblem(
                f"{self.path}: {len(missing)} of {n_shards} shards are missing (the first is "
                f"{missing[0]}); run --stage detect for them"
            )
        read = lru_cache(MAX_MAPS)(_map_array)
        return [Shard(self.shard(i).folder, read) for i in range(n_shards)]

    def rejects(self, part: Part) -> Counter[str]:
        """The rejects in the finished shards of one process's part, by code."""
        numbers = [int(path.name) for path in (self.path / "shards").glob("[0-9]*")]
        shards = (self.shard(n) for n in numbers if n % part.number == part.index - 1)
        return sum((Counter(shard.facts["rejects"]) for shard in shards), Counter())

    def inputs(self, shards: Sequence[Shard]) -> Iterator[Item]:
        """All records and rejects in input order; a record's `key` is its position."""
        for position, item in enumerate(chain.from_iterable(shard.inputs() for shard in shards)):
            if isinstance(item, Record):
                item.key = str(position)
            yield item


@dataclass(frozen=True)
class RegionIndex:
    """All regions of a work folder by label; a row counts over the shards in order."""

    shards: Sequence[Shard]

    @cached_property
    def offsets(self) -> Rows:
        """The first row of each shard, and the number of rows."""
        sizes = [shard.facts["counts"].get("regions", 0) for shard in self.shards]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def columns(self) -> Array:
        """Label, sources and score of all regions, in order of rows."""
        kept = ["label", "sources", "score", "photo_score"]
        parts = [np.zeros(0, REGION), *(shard.regions for shard in self.shards)]
        return np.concatenate([repack_fields(part[kept]) for part in parts])

    @cached_property
    def _by_label(self) -> tuple[NDArray[np.uint32], Rows]:
        joined = self.columns()["label"]
        order = np.argsort(joined, kind="stable")
        return joined[order], order

    def counts(self) -> dict[int, int]:
        """The number of regions of each label that has any."""
        ids, counts = np.unique(self._by_label[0], return_counts=True)
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))

    def rows(self, label: int) -> Rows:
        """The rows of a label, ascending."""
        ordered, order = self._by_label
        start, end = np.searchsorted(ordered, [label, label + 1])
        return order[start:end]

    def regions(self, rows: Rows) -> Array:
        """The regions at some rows, `REGION`."""
        out = np.zeros(len(rows), REGION)
        for shard, place, local in self._located(rows):
            out[place] = shard.regions[local]
        return out

    def features(self, rows: Rows) -> NDArray[np.float32]:
        """The features at some rows, (rows, F)."""
        located = list(self._located(rows))
        width = located[0][0].features.shape[1] if located else 0
        out = np.empty((len(rows), width), np.float32)
        for shard, place, local in located:
            out[place] = shard.features[local]
        return out

    def at_input(self, position: int) -> tuple[int, Array]:
        """The regions of one input, and the row of the first."""
        number, place = divmod(position, SHARD_INPUTS)
        regions = self.shards[number].regions
        first, last = np.searchsorted(regions["input"], [place, place + 1])
        return int(self.offsets[number] + first), regions[first:last]

    def _located(self, rows: Rows) -> Iterator[tuple[Shard, Rows, Rows]]:
        """By shard: the places in `rows` and the rows in the shard."""
        numbers = np.searchsorted(self.offsets, rows, side="right") - 1
        for index in np.unique(numbers).tolist():
            place = np.flatnonzero(numbers == index)
            yield self.shards[index], place, rows[place] - self.offsets[index]


def cut_into_shards(source: Iterable[Item]) -> Iterator[tuple[list[Item], str]]:
    """The inputs of one shard after the other, each with their hash."""
    for items in chunks(source, SHARD_INPUTS):
        yield items, input_hash([stamp_of(item) for item in items])


def input_hash(stamps: Sequence[str]) -> str:
    """One hash of a shard's inputs."""
    return hashlib.blake2b("\n".join(stamps).encode(), digest_size=16).hexdigest()


def spool(source: Iterable[Item], file: BinaryIO) -> str:
    """Write the inputs to a file for `unspool`, and rewind it; returns their hash."""
    hashes = []
    for items, stamp in cut_into_shards(source):
        file.writelines(map(spool_line, items))
        hashes.append(stamp)
    file.seek(0)
    return input_hash(hashes)
