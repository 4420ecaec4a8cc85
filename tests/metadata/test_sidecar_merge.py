"""Sidecars: merged, so that no program loses sight of a keyword; what was deleted stays deleted."""

import random
import re

import pytest

from ramctl.metadata.sidecar_merge import KEYWORDS, Embedded, merge_tags
from ramctl.metadata.xmp_document import XmpDocument
from tests.metadata.conftest import BY_NAME, DARKTABLE, refused, rewritten, tags_of, without
from tests.support import remove_tags

DC, LR, DIGIKAM = "dc:subject", "lr:hierarchicalSubject", "digiKam:TagsList"
WORDS = ["people|Anna", "people/Bob", "people", "Carla"]


def sidecar(**fields) -> bytes:
    """A sidecar of another program, with these items in these fields, and no other keywords."""
    return rewritten(rewritten(DARKTABLE, **dict.fromkeys(BY_NAME, ())), **fields)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (
            {"dc_subject": ["Anna", "family"]},
            {
                DC: ["Anna", "family", "dirt"], LR: ["Anna", "family", "auto|dirt"],
                DIGIKAM: ["Anna", "family", "auto/dirt"],
            },
        ),
        (
            {"lr_hierarchicalSubject": ["people|Anna", "a/b|c"]},
            {DC: ["Anna", "c", "dirt"], DIGIKAM: ["people/Anna", "a|b/c", "auto/dirt"]},
        ),
        # What repeats a path, in whole or in part, is no keyword of its own.
        (
            {"lr_hierarchicalSubject": ["people|Anna", "people|Bob"], "dc_subject": WORDS},
            {DIGIKAM: ["people/Anna", "people/Bob", "Carla", "auto/dirt"]},
        ),
        (
            {"digiKam_TagsList": ["people/Anna", "people/Bob"], "dc_subject": WORDS},
            {LR: ["people|Anna", "people|Bob", "Carla", "auto|dirt"]},
        ),
        (
            {"MicrosoftPhoto_LastKeywordXMP": ["people/Anna"]},
            {DIGIKAM: ["people/Anna", "auto/dirt"]},
        ),
    ],
)  # fmt: skip
def test_a_new_field_first_holds_what_the_others_hold(before, expected):
    content = merge_tags(sidecar(**before), ["dirt"], "auto")
    assert tags_of(content) == tags_of(content) | expected


def test_what_another_program_adds_or_removes_afterwards_counts():
    ours = merge_tags(sidecar(dc_subject=["Anna"]), ["sofa"], "auto")
    # darktable knows two fields only, and repeats the words of paths as plain ones
    darktable = rewritten(
        ours, dc_subject=["Bob", "auto", "sofa"], lr_hierarchicalSubject=["Bob", "auto|sofa"]
    )
    again = merge_tags(darktable, ["sofa"], "auto")
    assert tags_of(again)[DIGIKAM] == ["auto/sofa", "Bob"]
    assert tags_of(again)[LR] == ["auto|sofa", "Bob"]
    assert merge_tags(again, ["sofa"], "auto") is None
    # digiKam also writes fields that we do not
    items = ["Anna", "Bob", "auto/sofa"]
    digikam = rewritten(ours, digiKam_TagsList=items, MicrosoftPhoto_LastKeywordXMP=items)
    removed = XmpDocument(remove_tags(digikam))
    for name in ("digiKam_TagsList", "MicrosoftPhoto_LastKeywordXMP"):
        assert removed.items(BY_NAME[name].property) == ["Anna", "Bob"]


def first_of(*names):
    """What a program reads that takes the first field which holds anything."""
    return lambda found: next((set(found[name]) for name in names if found.get(name)), set())


def all_of(*names):
    return lambda found: {item for name in names for item in found.get(name, ())}


# The reading rules that the README of the room states, with their sources.
PROGRAMS = {
    "digiKam": first_of(
        "digiKam_TagsList", "MicrosoftPhoto_LastKeywordXMP", "lr_hierarchicalSubject",
        "mediapro_CatalogSets", "dc_subject", "IPTC",
    ),
    "Immich": first_of("digiKam_TagsList", "lr_hierarchicalSubject", "IPTC"),
    "darktable": first_of("lr_hierarchicalSubject", "dc_subject"),
    "Lightroom": all_of("lr_hierarchicalSubject", "dc_subject"),
    "PhotoPrism": all_of("dc_subject"),
}  # fmt: skip


def seen_by(program, content, embedded) -> set[str]:
    """The last words of the keywords that the program shows; darktable takes a sidecar whole."""
    document = XmpDocument(content)
    beside = {name: found for name, f in BY_NAME.items() if (found := document.items(f.property))}
    inside = {} if program == "darktable" and content else embedded
    return {re.split(r"[|/]", item)[-1] for item in PROGRAMS[program]({**inside, **beside})}


def test_no_program_loses_sight_of_a_keyword():
    dice = random.Random(1)
    items = {"/": ["Anna", "people/Bob"], "|": ["Anna", "people|Carla"], "": ["Dora", "Bob"]}
    in_photos = BY_NAME | {"IPTC": KEYWORDS}

    def fields(of):
        chosen = {name: field.separator for name, field in of.items() if dice.random() < 0.4}
        return {n: dice.sample(items[kind], dice.randint(1, 2)) for n, kind in chosen.items()}

    for _ in range(60):
        before = sidecar(**fields(BY_NAME)) if dice.random() < 0.7 else None
        embedded = fields(in_photos)
        own = Embedded(None, {in_photos[name]: items for name, items in embedded.items()})
        after = merge_tags(before, ["sofa"], "auto", embedded=lambda own=own: own)
        removed = remove_tags(after) or None
        assert merge_tags(after, ["sofa"], "auto", embedded=lambda own=own: own) is None
        for program in PROGRAMS:
            known, shown = (seen_by(program, content, embedded) for content in (before, after))
            assert "sofa" in shown and known <= shown, (program, before, embedded)
            assert seen_by(program, removed, embedded) == known, (program, before, embedded)


TAGS = ["red", "hot-dog"]


@pytest.mark.parametrize(
    ("changes", "paths", "gone"),
    [
        # Programs that know some of the fields: darktable, and Immich.
        ({"dc_subject": ["red"], "lr_hierarchicalSubject": ["auto|red"]}, ["auto|red"], TAGS[1:]),
        ({"digiKam_TagsList": ["auto/red"]}, ["auto|red"], TAGS[1:]),
        # Moved below another word, or written differently.
        (
            {
                "dc_subject": ["RED", "hot dog"],
                "lr_hierarchicalSubject": ["colours|Red", "auto|hot dog"],
                "digiKam_TagsList": ["colours/Red", "auto/hot dog"],
            },
            ["colours|Red", "auto|hot dog"], [],
        ),
        # A word of her own does not bring the deleted path back.
        (
            {
                "dc_subject": ["red", "hot-dog"],
                "lr_hierarchicalSubject": ["auto|red", "food|hot-dog"],
                "digiKam_TagsList": ["auto/red"],
            },
            ["auto|red", "food|hot-dog"], [],
        ),
    ],
    ids=["darktable", "Immich", "moved", "her own"],
)  # fmt: skip
def test_a_tag_is_refused_that_a_person_took_out_of_a_field_of_paths(changes, paths, gone):
    content = rewritten(merge_tags(None, TAGS, "auto"), **changes)
    for _ in range(2):
        content = merge_tags(content, TAGS, "auto") or content
        assert tags_of(content)[LR] == paths
    assert refused(content) == gone


def test_a_refusal_lasts_until_the_owner_adds_the_tag_again_or_it_is_forgotten():
    fewer = merge_tags(merge_tags(None, TAGS, "auto"), ["red"], "auto")  # the model's own choice
    content = merge_tags(fewer, TAGS, "auto")
    assert (tags_of(content)[DC], refused(content)) == (TAGS, [])
    content = merge_tags(without(content, "hot-dog"), TAGS, "auto")
    removed = remove_tags(content)
    assert (tags_of(removed), refused(removed)) == ({}, ["hot-dog"])
    assert remove_tags(removed) is None
    assert tags_of(merge_tags(removed, TAGS, "auto"))[DC] == ["red"]
    again = merge_tags(removed, TAGS, "auto", forget=True)
    assert (tags_of(again)[DC], refused(again)) == (TAGS, [])
    assert merge_tags(removed, (), "", forget=True) == b""
    assert refused(merge_tags(rewritten(content, dc_subject=TAGS), TAGS, "auto")) == []
