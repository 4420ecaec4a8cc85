"""Where a cleaning run keeps its work, and which of its stages are still to do."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import orjson

from ramctl.data_engine.clean import Cleaning, TimeIsUp
from ramctl.data_engine.detect import chunks, stamp_of
from ramctl.data_engine.region_store import (
    SHARD_INPUTS,
    WorkFolder,
    input_hash,
    spool_line,
    unspool,
)
from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.files import part_path, state_path, work_path
from ramctl.records.record import Item, Record
from ramctl.records.report import Report
from ramctl.records.stream import StreamOptions, each, run_stream


def run(
    cleaning: Cleaning,
    stage: str | None,
    work: Path | None,
    source: Iterable[Item],
    page: Path | None,
) -> Report:
    """One stage on a work folder, or all of them; then the page, where asked for and applied.

    Only detection reads the source, only `apply` writes records. Without `work` the folder stands
    beside the output until that is complete.
    """
    if stage is None:
        return _run_all(cleaning, work, source, page)
    assert work is not None
    folder, report = WorkFolder(work), cleaning.report
    if stage == "apply":
        return _apply(cleaning, folder, page)
    try:
        if stage == "detect":
            cleaning.detect(folder, source)
            rejects = cleaning.rejects(folder)
            report.rejects.update(rejects)
            report.say(f"{rejects.total()} inputs will be rejected by --stage apply")
        else:
            cleaning.cluster(folder)
    except TimeIsUp:
        report.say(f"--max-time is over; the same command goes on in {work}")
        return report
    report.say(f"{stage} done in {work}")
    return report


def _run_all(
    cleaning: Cleaning, work: Path | None, source: Iterable[Item], page: Path | None
) -> Report:
    with _work_folder(cleaning.stream, work) as folder, tempfile.TemporaryFile() as spool:
        if _is_finished(cleaning.stream, folder):
            hashes = _spool(source, spool)
            spool.seek(0)
            if _made_of(cleaning, hashes):
                return _nothing_to_do(cleaning, hashes, spool)
            source = unspool(iter(spool))
        try:
            cleaning.detect(folder, source)
            cleaning.cluster(folder)
        except TimeIsUp:
            cleaning.report.say("--max-time is over; the same command with --resume goes on")
            return cleaning.report
        report = _apply(cleaning, folder, page)
        if work is None and report.n_left == 0:
            folder.remove()
    return report


def _apply(cleaning: Cleaning, folder: WorkFolder, page: Path | None) -> Report:
    if page is not None:
        cleaning.page(folder, page)
    return cleaning.apply(folder)


@contextmanager
def _work_folder(stream: StreamOptions, work: Path | None) -> Iterator[WorkFolder]:
    if work is None and stream.output is None:
        if stream.max_time is not None:
            raise UsageProblem("--max-time needs -o FILE or --work DIR: clean goes on from there")
        with tempfile.TemporaryDirectory(prefix="ramctl-clean-") as folder:
            yield WorkFolder(Path(folder))
        return
    if work is None:
        assert stream.output is not None
        work = work_path(stream.output)
        if not stream.resume:
            shutil.rmtree(work, ignore_errors=True)
    yield WorkFolder(work)


def _is_finished(stream: StreamOptions, folder: WorkFolder) -> bool:
    """Whether an earlier run has completed the output that is to be continued."""
    out = stream.output
    if out is None or not stream.resume or folder.path.exists():
        return False
    return out.exists() and not part_path(out).exists()


def _spool(source: Iterable[Item], spool: BinaryIO) -> str:
    """Put the inputs into a file and return their hash."""
    hashes = []
    for items in chunks(source, SHARD_INPUTS):
        spool.writelines(map(spool_line, items))
        hashes.append(input_hash([stamp_of(item) for item in items]))
    return input_hash(hashes)


def _made_of(cleaning: Cleaning, hashes: str) -> bool:
    """Whether the finished output comes from these inputs."""
    out = cleaning.stream.output
    assert out is not None
    state = state_path(out)
    if not state.exists():
        return False
    with state.open("rb") as lines:
        head = orjson.loads(next(lines, b"{}"))
    made_of: bool = head.get("fingerprint", {}).get("input") == hashes
    return made_of


def _nothing_to_do(cleaning: Cleaning, hashes: str, spool: BinaryIO) -> Report:
    """The run over an output that is complete: counts what was done before."""

    def unexpected(record: Record) -> dict[str, object]:
        raise RunProblem(f"{record.place}: was to be done before; run without --resume")

    fingerprint = cleaning.fingerprint(hashes, cleaning.settings, cleaning.rules.key)
    source = unspool(iter(spool))
    stage = each(unexpected)
    return run_stream(cleaning.report, source, stage, cleaning.stream, fingerprint=fingerprint)
