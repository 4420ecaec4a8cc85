#!/usr/bin/env python3
"""The paper's tables 1 to 3 and what class lists cover, as far as files and weights are there.

    tables.py table1 --shared S --data D --work W         classes and photos found
    tables.py table2 table3 --shared S --data D ...       mAP; precision/recall
    tables.py coverage --shared S --data D --work W       what label systems hold of class lists

Each writes W/NAME.md, .csv and .json. paper.toml says what a cell needs. A system's predictions and
figures are kept in W: a second run makes what is missing.
"""

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

from benchmark import open_benchmark
from cells import (
    MEASURED,
    NEEDS,
    NONE,
    PRIVATE,
    Cell,
    legend,
    markdown,
    setting_in_words,
    write,
)
from sets import HERE, Truth, average_precisions, decide, from_score, kept, precision_recall

from ramctl.checkpoints.bundle import Bundle, embedded_bundle
from ramctl.errors import EXIT_REJECTS, RunProblem
from ramctl.evaluation.comparison import Comparison
from ramctl.records.jsonl import dumps
from ramctl.records.labels import Labels

Opened = TypeVar("Opened")
PAPER = tomllib.loads((HERE / "paper.toml").read_text("utf-8"))
MINI = "mini"
TITLES = {MINI: "mini, the embedded model"}


class Missing(Exception):
    """The files and weights that a cell needs."""


class Tables:
    """The available data, weights and predictions; results go into `work`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.shared: Path = options.shared
        self.data: Path = options.data
        self.weights: Path | None = options.weights
        self.predictions: Path | None = options.predictions
        self.work: Path = options.work
        chosen = [own for own in PAPER["sets"] if own["name"] in options.sets]
        self.sets = {own["name"]: own for own in chosen}
        self.benchmarks = {own["name"]: own for own in PAPER["benchmarks"]}
        self.systems = {own["name"]: own for own in PAPER["systems"]}

    def truth(self, name: str) -> Truth:
        """The truth of a shared set or a benchmark; Missing its files."""
        if name in self.sets:
            mapping = HERE / "maps" / f"{self.sets[name]['map']}.tsv"
            return Truth.of_set(name, self.shared / "data" / "eval", mapping)
        return self._published(lambda data: Truth.of_benchmark(name, data))

    def _published(self, read: Callable[[Path], Opened]) -> Opened:
        """Read the owners' files: the user's, else those of the shared folder; Missing a file."""
        try:
            return read(self.data)
        except RunProblem as problem:
            with suppress(RunProblem):
                return read(self.shared / "labels" / "ram")
            raise Missing(missing_file(problem)) from problem

    def predicted(self, system: str, name: str, truth: Truth) -> Path:
        """A system's predictions for a set or benchmark, made where that can be; else Missing."""
        given = [] if self.predictions is None else [*(self.predictions / system).glob("*")]
        for path in sorted(given):
            if path.name.partition(".")[0] == name:
                return path
        path = self.work / "predictions" / system / f"{name}.jsonl"
        if path.exists():
            return path
        self._tag(self._model(system), name, truth, path)
        return path

    def _model(self, system: str) -> str:
        if system == MINI:
            return MINI
        own = self.systems[system]
        file = own.get("weights")
        weights = (self.weights or Path("WEIGHTS")) / file if file else None
        if weights is None or not weights.exists():
            raise Missing(f"`{file}` in WEIGHTS" if file else f"`{system}/` in PREDICTIONS")
        if "convert" not in own:
            return str(own["model"].format(weights))
        bundle = self.work / "bundles" / system
        if not bundle.exists():
            # A CLIP at its place in WEIGHTS embeds the classes that are no labels.
            clip = weights.parent / self.systems["CLIP-400M"]["weights"]
            options = [*own["convert"], *(["--text-encoder", str(clip)] if clip.exists() else [])]
            if ramctl("convert", str(weights), *options, "--out", str(bundle)):
                raise Missing(f"`{file}` in WEIGHTS, as the authors publish it")
        return f"{bundle}/"

    def _photos(self, name: str) -> Path:
        if name in self.sets:
            return self.shared / "data" / "eval"
        folder: Path = self.data / self.benchmarks[name]["photos"]
        if not folder.is_dir():
            raise Missing(f"`{self.benchmarks[name]['photos']}/` in DATA, the photos")
        return folder

    def _tag(self, model: str, name: str, truth: Truth, path: Path) -> None:
        root = self._photos(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        words, asked = path.with_suffix(".words"), path.with_suffix(".photos.jsonl")
        words.write_text("".join(f"{word}\n" for word in truth.words), "utf-8")
        asked.write_bytes(b"".join(photo_lines(truth)))
        partial = path.with_suffix(".partial.jsonl")
        status = ramctl(
            "tag", str(asked), "--root", str(root), "--model", model, "--labels", str(words),
            "--dense", "--resume", "-o", str(partial),
        )  # fmt: skip
        if status not in (0, EXIT_REJECTS):  # some photos may be missing
            raise Missing(
                f"what ramctl tag names above; classes that are no labels need a CLIP: "
                f"`{self.systems['CLIP-400M']['weights']}/` in WEIGHTS"
            )
        partial.rename(path)
        for state in path.parent.glob(f".{partial.name}.*"):
            state.unlink()

    def figures(self, system: str, name: str) -> dict[str, Any]:
        """mAP, precision and recall of a system on a set or benchmark, kept; else Missing."""
        if name == "oppo-common":
            raise Missing(PRIVATE)
        truth = self.truth(name)
        predictions = self.predicted(system, name, truth)
        path = self.work / "figures" / system / f"{name}.json"
        return kept(path, predictions, lambda: self._measure(system, name, truth, predictions))

    def _measure(self, system: str, name: str, truth: Truth, predictions: Path) -> dict[str, Any]:
        tags = Bundle.open(embedded_bundle()).labels if system == MINI else None
        comparison = truth.compared(predictions, tags)
        figures = average_precisions(comparison)
        threshold = self.systems.get(system, {}).get("threshold")
        if threshold is not None and name in self.benchmarks:
            note, decided = f"from {threshold} on", from_score(comparison, threshold)
            return figures | precision_recall(decided) | {"note": note}
        wanted = self._precision(system, name, comparison)
        try:
            decided, note = decide(comparison, wanted), f"at precision {wanted:.3f}"
        except RunProblem as problem:  # tags without scores, or none is so precise
            decided, note = comparison, f"as given: {problem}"
        return figures | precision_recall(decided) | {"note": note}

    def _precision(self, system: str, name: str, comparison: Comparison) -> float:
        """The precision of all systems: RAM's in the paper, on shared sets mini's."""
        if name in self.benchmarks:
            place = list(self.benchmarks).index(name)
            return float(self.systems["RAM-14M"]["pr"][place].split("/")[0]) / 100
        if system == MINI:
            return precision_recall(decide(comparison))["CP"]
        return float(self.figures(MINI, name)["CP"])

    def cell(self, system: str, name: str, column: str, kind: str) -> Cell:
        """A cell of table 2 (`map`) or 3 (`pr`)."""
        paper, marks = "", self.sets.get(name, {}).get("seen", {}).get(system, "")
        if name in self.benchmarks:
            values = self.systems[system].get(kind)
            paper = marks = values[list(self.benchmarks).index(name)] if values else ""
        about = (system, column, setting_in_words(marks), paper)
        if paper in ("x", "*"):
            return Cell(*about, NONE)
        try:
            found = self.figures(system, name)
        except Missing as missing:
            status = PRIVATE if str(missing) == PRIVATE else NEEDS
            return Cell(*about, status, needs="" if status == PRIVATE else str(missing))
        plus = "+" if found["left_out"] else ""
        end = "" if paper or not marks else f" {marks}"
        if kind == "map":
            return Cell(*about, MEASURED, f"{100 * found['mAP']:.1f}{plus}{end}")
        return Cell(*about, MEASURED, f"{100 * found['CP']:.1f}/{100 * found['CR']:.1f}{plus}{end}")

    def rows(
        self, kind: str, names: Sequence[str], systems: Sequence[str], columns: dict[str, Any]
    ) -> list[Any]:
        """The rows of a table: words in front, and cells."""
        found = []
        for system in systems:
            own = self.systems.get(system, {})
            lead = [
                TITLES.get(system, system),
                own.get("tags" if kind == "map" else "backbone", ""),
            ]
            found.append((lead, [self.cell(system, name, columns[name], kind) for name in names]))
        return found

    def table(self, kind: str) -> None:
        """Table 2 (`map`) or 3 (`pr`): the paper's sets, and ours."""
        number, what = ("table2", "mAP") if kind == "map" else ("table3", "precision/recall")
        lead = ("method", "tags" if kind == "map" else "backbone")
        benchmarks = {name: own["title"] for name, own in self.benchmarks.items()}
        sets = {name: own["title"] for name, own in self.sets.items()}
        listed = [name for name, own in self.systems.items() if kind in own]
        given = [name for name in self.systems if name != MINI and self._is_there(name)]
        big = self.rows(kind, list(benchmarks), [*listed, MINI], benchmarks)
        small = self.rows(kind, list(sets), [MINI, *given], sets)
        cells = [cell for _, row in big + small for cell in row]
        title = f"{number.capitalize()[:5]} {number[5:]}: {what}, the paper's sets"
        tables = [
            markdown(title, list(benchmarks.values()), big, lead=lead),
            markdown(f"{what}, the shared sets", list(sets.values()), small, lead=lead),
            legend(cells),
        ]
        write(self.work / number, "\n".join(tables), cells)

    def _is_there(self, system: str) -> bool:
        try:
            self._model(system)
        except Missing:
            return bool(self.predictions and (self.predictions / system).is_dir())
        return True

    def table1(self) -> None:
        """Classes and photos of each set, the paper's and those that are found."""
        rows = []
        for name, own in self.benchmarks.items():
            paper = (str(own["classes"]), own["images"])
            rows.append(([own["title"]], self._sizes(name, own["title"], paper)))
        for name in ("hico-600", "imagenet-multi-1000"):
            rows.append(([f"{name} (RAM++'s)"], self._sizes(name, name, ("", ""))))
        for name, own in self.sets.items():
            rows.append(([own["title"]], self._sizes(name, own["title"], ("", ""))))
        cells = [cell for _, row in rows for cell in row]
        text = markdown("Table 1: test sets", ["classes", "photos"], rows, lead=("set",))
        write(self.work / "table1", text + "\nIn brackets: the paper's number.\n", cells)

    def _sizes(self, name: str, title: str, paper: tuple[str, str]) -> list[Cell]:
        columns = list(zip(("classes", "photos"), paper, strict=True))
        if name == "oppo-common":
            return [Cell(title, column, "", number, PRIVATE) for column, number in columns]
        try:
            truth = self.truth(name)
        except Missing as missing:
            return [Cell(title, c, "", number, NEEDS, needs=str(missing)) for c, number in columns]
        found = f"{len(truth.system):,}", f"{len(truth.statements):,}"
        return [
            Cell(title, c, "", number, MEASURED, own)
            for (c, number), own in zip(columns, found, strict=True)
        ]

    def coverage(self) -> None:
        """How much of each class list the label systems hold, by name or synonym."""
        lists = self.shared / "labels" / "ram"
        systems = {
            MINI: Bundle.open(embedded_bundle()).labels,
            "RAM": Labels.read(lists / "ram_tag_list.txt"),
            "Tag2Text": Labels.read(lists / "tag2text_ori_tag_list.txt"),
        }
        rows = []
        for name, title in self._class_lists():
            try:
                classes = self._classes(name, lists)
            except Missing as missing:
                cells = [Cell(title, s, "", "", NEEDS, needs=str(missing)) for s in systems]
                rows.append(([title, ""], cells))
                continue
            cells = []
            for system, labels in systems.items():
                held = sum(bool(labels.ids(tag)) for tag in classes)
                ours = f"{held} ({held / len(classes):.0%})"
                cells.append(Cell(title, system, "", "", MEASURED, ours))
            rows.append(([title, str(len(classes))], cells))
        columns = [f"{name}, {len(labels):,} labels" for name, labels in systems.items()]
        text = markdown("Coverage of class lists", columns, rows, lead=("class list", "classes"))
        text += (
            "\nClasses that a label system names, ours by synonyms too: theirs are not published.\n"
        )
        write(self.work / "coverage", text, [cell for _, row in rows for cell in row])

    def _class_lists(self) -> list[tuple[str, str]]:
        own = [(name, own["title"]) for name, own in (self.benchmarks | self.sets).items()]
        return [*own, ("imagenet1k_sample", "ImageNet-1k"), ("hico-600", "HICO")]

    def _classes(self, name: str, lists: Path) -> list[str]:
        if name == "oppo-common":
            raise Missing("its owners, who publish nothing")
        if name == "ade20k-clean":
            listed = Labels.read(lists / "ade20k_clean_labels_issue84.txt").tags
        elif (path := self.shared / "data" / "eval" / f"{name}_classes.txt").exists():
            listed = Labels.read(path).tags
        elif name == "coco-80":
            listed = Labels.read(path.with_name("coco80_val_classes.txt")).tags
        else:
            listed = self._published(lambda data: open_benchmark(name, data).classes.tags)
        return list(dict.fromkeys(listed))


def missing_file(problem: RunProblem) -> str:
    """The missing files of a benchmark's folder, for a cell."""
    return f"{str(problem).partition(': no ')[2].removesuffix(' in it') or problem} in DATA"


def photo_lines(truth: Truth) -> list[bytes]:
    """Records that name the truth's photos and nothing else."""
    names = truth.statements
    # OpenImages' lists have `test/ID`.
    return [dumps({"image": n if Path(n).suffix else f"{n}.jpg"}) for n in names]


def ramctl(*arguments: str) -> int:
    """The exit status of the command; its messages are shown."""
    return subprocess.run([sys.executable, "-m", "ramctl", *arguments], check=False).returncode


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", nargs="+")
    for name in ("shared", "data", "weights", "predictions", "work"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--sets", nargs="+", default=["flickr8k_test", "coco80_val", "voc5_val"])
    options = parser.parse_args()
    tables = Tables(options)
    works = {
        "table1": tables.table1,
        "table2": lambda: tables.table("map"),
        "table3": lambda: tables.table("pr"),
        "coverage": tables.coverage,
    }
    for name in options.what:
        works[name]()
        print((options.work / f"{name}.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
