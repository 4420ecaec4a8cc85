#!/usr/bin/env python3
"""A month of a collector who writes German: ramctl beside darktable, exiftool and a review page.

scripts/month.py RECORDS FOLDER    of captioned photos in tars; everything is made in FOLDER

It tags, exports, edits as she does, tags the photos of the next month, exports again and searches.
Then it prints what it checked: nothing of hers is lost, nothing that she refused returns, and
everything is found. It needs exiftool and Chromium. Edits are made in darktable itself where it and
`xvfb-run` are installed, else by exiftool. The exit code is 1 if something is wrong.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from venv_python import ROOT, use_venv

use_venv()

from tests.pages.browser import PATIENCE_S, Browser

QUESTION = "Hunde am Strand"
MONTHS = ("Mai", "Juni")
IN_PHOTOS = ("Oma Erna", "Wäsche")  # keywords that some photos have before
OTHERS = 7  # photos beside each one of a dog on a beach
N_EDITED = 6  # photos that get a title, a rating and a keyword in darktable, each month
N_REMOVED, N_REVIEWED = 20, 10  # tags that are refused: in sidecars, on the page
# The fields of a sidecar, and the parent of machine tags in them.
PARENTS = {"Subject": "", "HierarchicalSubject": "automatisch|", "TagsList": "automatisch/"}
GROUPS = {"Subject": "XMP-dc", "HierarchicalSubject": "XMP-lr", "TagsList": "XMP-digiKam"}
DARKTABLE = """local dt = require "darktable"
local function find(path) -- without reading the sidecar of a known photo again
  for _, photo in ipairs(dt.database) do
    if photo.path .. "/" .. photo.filename == path then return photo end
  end
  return dt.database.import(path)
end
dt.control.sleep(500)
{edits}
dt.control.sleep(4000) -- it writes sidecars in the background
"""
EDIT = """do
  local photo = find({photo})
  photo.title, photo.rating = {title}, {rating}
  photo:attach_tag(dt.tags.create({keyword}))
  local refused = {refused} and dt.tags.find({refused})
  if refused then photo:detach_tag(refused) end
end
"""


class Month:
    """The collector's folder, what she did in it, and whether it has stayed so."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.photos = folder, folder / "Fotos"
        self.n_wrong = 0
        self.contents: dict[Path, bytes] = {}
        self.titles: dict[Path, str] = {}
        self.ratings: dict[Path, int] = {}
        self.keywords, self.refused = (
            defaultdict[Path, set[str]](set),
            defaultdict[Path, set[str]](set),
        )

    def ramctl(self, *words: object) -> str:
        """The output of a command; its messages are shown."""
        print("$ ramctl", *words, flush=True)
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }
        line = [sys.executable, "-m", "ramctl", *map(str, words)]
        done = subprocess.run(
            line, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        print("".join(f"  {message}\n" for message in done.stderr.splitlines()), end="")
        if done.returncode:
            sys.exit(f"exit code {done.returncode}")
        return done.stdout

    def tag_and_export(self) -> None:
        """Tag new photos, and write the tags into sidecars."""
        self.ramctl("tag", "-q", "--lang", "de", "-R", "Fotos", "-o", "tags.jsonl", "--resume")
        self.ramctl("export", "tags.jsonl", "--xmp")

    def search(self, *words: str) -> set[Path]:
        """All photos that a search in the folder finds."""
        rows = self.ramctl("search", "-q", "Fotos", *words, "-n", 1000).splitlines()
        found = [json.loads(row) for row in rows]
        names = [name for row in found for name in (row["image"], *row.get("copies", ()))]
        return {*map(Path, names)}

    def remember(self, photos: Iterable[Path]) -> None:
        """Note the content of photos."""
        self.contents |= {photo: photo.read_bytes() for photo in photos}

    def check(self, what: str, things: Iterable[Any], holds: Callable[[Any], bool]) -> None:
        """Print for how many things something holds, and some for which it does not."""
        things = [*things]
        wrong = [thing for thing in things if not holds(thing)]
        self.n_wrong += bool(wrong)
        print(
            "WRONG" if wrong else "ok",
            f"{len(things) - len(wrong)} of {len(things)}",
            what,
            sep="\t",
        )
        print("".join(f"\t{thing}\n" for thing in wrong[:5]), end="", flush=True)

    def given(self) -> dict[Path, list[str]]:
        """The tags of the photos, without refused ones."""
        rows = map(
            json.loads, self.ramctl("export", "-q", "tags.jsonl", "-f", "jsonl").splitlines()
        )
        return {self.folder / row["image"]: row["tags"] for row in rows}

    def sidecars(self) -> dict[Path, dict[str, Any]]:
        """Title, rating and keywords of all sidecars, by their photo."""
        names = [f"-{name}" for name in ("Title", "Rating", *PARENTS)]
        rows = json.loads(exiftool("-j", *names, "-r", "-ext", "xmp", self.photos))
        return {Path(row["SourceFile"]).with_suffix(""): row for row in rows}

    def edit_sidecar(self, photo: Path, change: str, word: str, *fields: str) -> None:
        """Add a keyword (`+`) to fields of a sidecar, or remove a tag (`-`) from them."""
        parents = PARENTS if change == "-" else dict.fromkeys(PARENTS, "")
        edits = [f"-{GROUPS[name]}:{name}{change}={parents[name]}{word}" for name in fields]
        exiftool("-overwrite_original", *edits, f"{photo}.xmp")
        (self.refused if change == "-" else self.keywords)[photo].add(word)


def exiftool(*words: object) -> str:
    """The output of exiftool."""
    line = ["exiftool", "-q", *map(str, words)]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout


def words_of(sidecar: Mapping[str, Any]) -> dict[str, set[str]]:
    """The keywords of a sidecar by field, of paths the last word."""
    values = {name: sidecar.get(name, []) for name in PARENTS}
    items = {name: x if isinstance(x, list) else [x] for name, x in values.items()}
    return {
        name: {str(item).replace("|", "/").rpartition("/")[2] for item in some}
        for name, some in items.items()
    }


def unpack(records: Path, folder: Path) -> tuple[list[Path], set[Path]]:
    """Photos in a folder for each month; those of dogs on beaches, by two of their captions."""
    rows = [json.loads(line) for line in records.open()]

    def names(row: Mapping[str, Any], *words: str) -> bool:
        return sum(any(word in one.lower() for word in words) for one in row["captions"]) >= 2

    dogs = [row for row in rows if names(row, "dog") and names(row, "beach", "shore", "sand")]
    others = [row for row in rows if row not in dogs]
    chosen = [*dogs, *others[:: max(1, len(others) // (OTHERS * len(dogs)))]]
    photos = []
    for place, row in enumerate(chosen):
        archive, _, name = row["image"].partition("#")
        photos.append(folder / MONTHS[place % 2] / name)
        photos[-1].parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(records.parent / archive) as tar, photos[-1].open("wb") as stream:
            content = tar.extractfile(name)
            assert content is not None
            shutil.copyfileobj(content, stream)
    return photos, {*photos[: len(dogs)]}


def edit_in_darktable(
    month: Month, photos: Sequence[Path], keyword: str, refused: Mapping[Path, str]
) -> None:
    """Give photos a title, a rating and a keyword, and remove a tag from some."""
    has_darktable = shutil.which("darktable") and shutil.which("xvfb-run")
    edits = ""
    for number, photo in enumerate(photos):
        title, rating = f"{keyword} {number + 1}", 2 + number % 4
        month.titles[photo], month.ratings[photo] = title, rating
        month.keywords[photo].add(keyword)
        if photo in refused:
            month.refused[photo].add(refused[photo])
        tag = f"automatisch|{refused[photo]}" if photo in refused else None
        values = {
            "photo": photo, "title": title, "rating": rating,
            "keyword": f"Urlaub|{keyword}", "refused": tag,
        }  # fmt: skip
        lua = {
            name: "nil" if x is None else json.dumps(x, ensure_ascii=False, default=str)
            for name, x in values.items()
        }
        edits += EDIT.format(**lua)
        if not has_darktable:
            fields = ("Subject", "HierarchicalSubject")
            facts = (f"-XMP-dc:Title={title}", f"-XMP-xmp:Rating={rating}")
            exiftool("-overwrite_original", *facts, f"{photo}.xmp")
            month.edit_sidecar(photo, "+", keyword, *fields)
            if photo in refused:
                month.edit_sidecar(photo, "-", refused[photo], *fields)
    print(f"(edits of {len(photos)} photos by {'darktable' if has_darktable else 'exiftool'})")
    if has_darktable:
        place = month.folder / "darktable"
        place.mkdir(exist_ok=True)
        script = place / "edit.lua"
        script.write_text(DARKTABLE.format(edits=edits))
        line = ["xvfb-run", "-a", "darktable", "--configdir", place, "--cachedir", place / "cache"]
        # It does not look for updated sidecars, as by default: what it knows of them is old.
        line += ["--library", place / "library.db", "--conf", "write_sidecar_files=after edit"]
        end = "print(problem) os.exit(done)"
        line += [
            "--luacmd",
            f"local done, problem = pcall(dofile, {json.dumps(str(script))}) {end}",
        ]
        subprocess.run([*map(str, line)], check=True, capture_output=True, timeout=300)


def review(month: Month, page: Path) -> None:
    """Refuse tags on the page in Chromium, add two words, and download the decisions."""
    browser = Browser(month.folder / "chromium")
    try:
        browser.renew(month.folder)
        browser.look(1200)
        browser.open(page)
        shown = browser.value(
            "entries.map((one) => [records[one.record].image, tags[one.tag].tag])"
        )
        words = {(month.folder / image, tag) for image, tag in shown}
        month.check(
            "refused tags not on the review page", pairs_of(month.refused), lambda x: x not in words
        )
        given = month.given()
        month.check("tags of the page are in German", words, lambda x: x[1] in given[x[0]])
        for number in range(N_REVIEWED):
            card = f"document.querySelectorAll('figure')[{number}]"
            chip = f"{card}.querySelector('[data-chip]')"
            image, tag = browser.value(
                f"[records[entries[{chip}.dataset.chip].record].image, {chip}.textContent]"
            )
            browser.value(f"{chip}.click()")
            month.refused[month.folder / image].add(tag)
            if number < 2:
                browser.value(f"{card}.querySelector('.missing input').focus()")
                browser.do("Input.insertText", text=f"Strandkorb {number}")
                browser.press("Enter")
                month.keywords[month.folder / image].add(f"Strandkorb {number}")
            browser.value(f"{card}.querySelector('[data-choice=accept]').click()")
        browser.value("byId('save').click()")
        end = time.monotonic() + PATIENCE_S
        while not (month.folder / "decisions.jsonl").exists() and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        browser.close()


def first_month(month: Month, photos: Sequence[Path]) -> None:
    """Tag, export, edit in darktable, remove tags in sidecars and on the page, add keywords."""
    for number, photo in enumerate(photos[-N_EDITED:]):  # what is in the photos before
        exiftool(
            "-overwrite_original", "-IPTC:CodedCharacterSet=UTF8", "-XMP-xmp:Rating=5", photo,
            f"-XMP-dc:Title=Zu Hause {number}", *(f"-IPTC:Keywords={word}" for word in IN_PHOTOS),
        )  # fmt: skip
        month.titles[photo], month.ratings[photo] = f"Zu Hause {number}", 5
        month.keywords[photo] |= {*IN_PHOTOS}
    month.remember(photos)
    month.tag_and_export()
    given = {photo: tags for photo, tags in month.given().items() if len(tags) > 3}
    some = [photo for photo in photos if photo in given]
    # A few of the dogs on beaches, which come first, are edited, and the others not.
    edited, removed = some[:N_EDITED], some[:N_REMOVED]
    in_darktable = {photo: given[photo][-1] for photo in edited[N_EDITED // 2 :]}
    edit_in_darktable(month, edited, "Ostsee", in_darktable)
    programs = (tuple(PARENTS), ("Subject", "HierarchicalSubject"), ("TagsList",))
    for number, photo in enumerate(photo for photo in removed if photo not in in_darktable):
        word = "Hund" if number < 5 and "Hund" in given[photo] else given[photo][number % 3]
        month.edit_sidecar(photo, "-", word, *programs[number % 3])
    month.ramctl("export", "tags.jsonl", "--xmp")
    month.ramctl("export", "-q", "tags.jsonl", "--review", "Prüfung/Seite.html")
    review(month, month.folder / "Prüfung" / "Seite.html")
    month.ramctl("export", "tags.jsonl", "--xmp", "--decisions", "decisions.jsonl")
    for photo in some[-N_REMOVED:]:
        month.edit_sidecar(photo, "+", "Nachbars Rex", *PARENTS)


def second_month(month: Month, photos: Sequence[Path]) -> None:
    """Tag and export again with the photos of the next month, and edit both in darktable."""
    month.remember(photos)
    month.tag_and_export()
    edited = [*photos[:N_EDITED], *list(month.titles)[-N_EDITED:]]
    edit_in_darktable(month, edited, "Sommer", {})
    month.ramctl("export", "tags.jsonl", "--xmp")
    month.ramctl("export", "tags.jsonl", "--xmp")


def check_sidecars(month: Month) -> None:
    """Check that the sidecars hold all that is hers, all tags, and nothing that she refused."""
    month.check("photos unchanged", month.contents, lambda x: x.read_bytes() == month.contents[x])
    sidecars, given = month.sidecars(), month.given()
    month.check("titles kept", month.titles, lambda x: sidecars[x]["Title"] == month.titles[x])
    month.check("ratings kept", month.ratings, lambda x: sidecars[x]["Rating"] == month.ratings[x])
    words = {photo: words_of(sidecar).values() for photo, sidecar in sidecars.items()}
    for what, pairs in (("her keywords", month.keywords), ("tags", given)):
        month.check(
            f"{what} in all fields of the sidecar", pairs_of(pairs),
            lambda x: all(x[1] in field for field in words[x[0]]),
        )  # fmt: skip
    month.check(
        "refused tags in no field", pairs_of(month.refused),
        lambda x: not any(x[1] in field for field in words[x[0]]),
    )  # fmt: skip


def check_outputs(month: Month) -> None:
    """Check the gallery, records, and what import reads."""
    given = month.given()
    month.ramctl("export", "-q", "tags.jsonl", "--gallery", "Seite/Galerie.html")
    page = (month.folder / "Seite" / "Galerie.html").read_text("utf-8")
    lines = [json.loads(line) for line in page.splitlines() if line.startswith('{"image":')]
    shown = {month.folder / line["image"]: line["tags"] for line in lines}
    gone = pairs_of(month.refused)
    month.check("refused tags not in records", gone, lambda x: x[1] not in given[x[0]])
    month.check("refused tags not in the gallery", gone, lambda x: x[1] not in shown[x[0]])
    hers = pairs_of(month.keywords)
    month.check("her keywords in the gallery", hers, lambda x: x[1] in shown[x[0]])
    rows = map(json.loads, month.ramctl("import", "-q", "-R", "Fotos").splitlines())
    sources = {month.folder / row["image"]: row.get("sources", {}) for row in rows}
    month.check(
        "her keywords are hers for import", hers, lambda x: sources[x[0]].get(x[1]) == ["human"]
    )


def check_search(month: Month, dogs: set[Path]) -> None:
    """Check what a search in the folder finds."""
    found, given = month.search(*QUESTION.split()), month.given()
    both = {photo for photo in given if {"Hund", "Strand"} <= {*given[photo]}}
    month.check("photos tagged Hund and Strand found", both, lambda x: x in found)
    print(f"({len(found & dogs)} of {len(dogs)} photos of a dog on a beach, by their captions)")
    for word in ("Ostsee", "Sommer", "Rex", "Erna"):
        photos = {photo for photo, keyword in pairs_of(month.keywords) if word in keyword}
        month.check(f"photos with her {word} found", photos, month.search(word).__contains__)
    refused = {photo for photo, word in pairs_of(month.refused) if word == "Hund"}
    left = refused - month.search("Hund")
    month.check("photos that refuse Hund not found by it", refused, lambda x: x in left)


def check_removal(month: Month) -> None:
    """Check that removing the tags leaves her keywords."""
    given = month.given()
    month.ramctl("export", "-q", "--xmp-remove", "-R", "Fotos")
    left = {photo: words_of(sidecar)["Subject"] for photo, sidecar in month.sidecars().items()}
    hers = pairs_of(month.keywords)
    month.check(
        "her keywords after --xmp-remove", (x for x in hers if x[1] not in IN_PHOTOS),
        lambda x: x[1] in left[x[0]],
    )  # fmt: skip
    tags = (pair for pair in pairs_of(given) if pair not in hers)
    month.check("no tags after --xmp-remove", tags, lambda x: x[1] not in left.get(x[0], ()))


def pairs_of(words: Mapping[Path, Iterable[str]]) -> list[tuple[Path, str]]:
    """Each photo with each of its words."""
    return [(photo, word) for photo in words for word in words[photo]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    month = Month(args.folder.resolve())
    card = month.folder / "Speicherkarte"
    photos, dogs = unpack(args.records, card)
    for name, work in zip(MONTHS, (first_month, second_month), strict=True):
        shutil.copytree(card / name, month.photos / name)
        work(
            month,
            [month.photos / one.relative_to(card) for one in photos if one.parent.name == name],
        )
    check_sidecars(month)
    check_outputs(month)
    check_search(month, {month.photos / one.relative_to(card) for one in dogs})
    check_removal(month)
    print(f"{month.n_wrong} checks failed" if month.n_wrong else "all checks passed")
    return 1 if month.n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
