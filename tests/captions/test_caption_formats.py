"""What people have captions in: each format is recognised and read as records."""

import io
import json
import tarfile

import pytest

from ramctl.captions.caption_formats import read_captions_of, recognise
from ramctl.captions.source import Columns
from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.record import Record
from tests.photos.test_decoding import damaged
from tests.support import lines


def read_any(path, **options):
    """The records of a file."""
    return list(read_captions_of([str(path)], None, "parse", **options))


COCO = {
    "info": {"x": [1, "]"]},
    "images": [{"id": 7, "file_name": "7.jpg"}],
    "annotations": [
        {"image_id": 7, "id": 1, "caption": 'a "red" dog'},
        {"image_id": 8, "id": 2, "caption": "a cat"},
        {"image_id": 8, "id": 3},
    ],
}
VG = [
    {"id": 5, "regions": [{"region_id": 1, "image_id": 5, "phrase": "red car"}]},
    {"regions": [1]},
    3,
]
SBU = {"image_urls": ["http://a/1.jpg", "http://a/2.jpg"], "captions": ["one dog", "two"]}
RAM = [{"image_path": "a.jpg", "caption": ["x", "y"], "union_label_id": [0, 2],
        "parse_label_id": [[0], [2]]},
       1, {"image_path": "a", "caption": ["x"], "union_label_id": 4}]  # fmt: skip
LIST = [{"url": "http://a/1.jpg", "caption": "a dog", "extra": 1}, [2]]
URL = "http://a/1.jpg"
DOG = [("a.jpg", ["a dog"])]
ADDRESSED = [(URL, ["a dog"])]
QUOTES = ['a 5" pipe', '"Stop" on a sign', '"a ""red"" dog"', '"two\nlines"']
# The format of each file, its content, and its records; \udce9 is a byte that is not UTF-8.
FILES = {
    "coco.json": (
        "coco", json.dumps(COCO), [("7.jpg", ['a "red" dog']), ("8", ["a cat"]), "missing_field"],
    ),
    "odd coco.json": (
        "coco", '{"images":[1,{"id":3}],"annotations":[{"image_id":[3]},7]}',
        ["missing_field", "bad_field"],
    ),
    "regions.json": ("vg", json.dumps(VG), [("5.jpg", ["red car"]), "bad_field", "bad_field"]),
    "sbu.json": ("sbu", json.dumps(SBU), [(URL, ["one dog"]), ("http://a/2.jpg", ["two"])]),
    "list.json": ("json", "\ufeff" + json.dumps(LIST), [*ADDRESSED, "bad_field"]),
    "ram.json": ("ram", json.dumps(RAM), [("a.jpg", ["x", "y"]), "bad_field", "bad_field"]),
    "cc3m.tsv": ("cc", "a dog\thttp://a/1.jpg\nbroken\n", [*ADDRESSED, "bad_field"]),
    "cc12m.tsv": (
        "cc", "http://a/1.jpg\ta dog\nhttp://a/2.jpg\ta caf\udce9\n", [*ADDRESSED, "bad_utf8"],
    ),
    "clip.csv": (
        "csv", "filepath\ttitle\na.jpg\ta dog, and a cat\n", [("a.jpg", ["a dog, and a cat"])],
    ),
    "captions.txt": (
        "csv", 'image,caption\na.jpg,"a dog, a cat"\nb.jpg,a caf\udce9\n',
        [("a.jpg", ["a dog, a cat"]), "bad_utf8"],
    ),
    "cells.csv": (
        "csv", "image,caption,\na.jpg,a dog,\na.jpg,a dog\nc.jpg\nd.jpg,A dog, a cow\n",
        [*DOG, *DOG, "bad_field", "bad_field"],
    ),
    "quotes.csv": (
        "csv", "image\tcaption\n" + "".join(f"a.jpg\t{cell}\n" for cell in QUOTES),
        [("a.jpg", ['a 5" pipe']), "bad_field", ("a.jpg", ['a "red" dog']),
         ("a.jpg", ["two\nlines"])],
    ),
    "results.csv": ("csv", "image_name| comment_number| comment\na.jpg| 0| a dog\n", DOG),
    "tags.csv": ("csv", 'image,tags\na.jpg,"dog; cat"\n', [("a.jpg", ["dog", "cat"])]),
    "Flickr8k.token.txt": (
        "token", "a.jpg#0\ta dog\na.jpg#1\ta cat\nnonsense\na.jpg#2\ta caf\udce9\n",
        [*DOG, ("a.jpg", ["a cat"]), "bad_field", "bad_utf8"],
    ),
    "text.jsonl": ("jsonl", '{"image":"a.jpg","text":["a dog"]}\n', DOG),
    "null.jsonl": ("jsonl", '{"image":"a.jpg","caption":null,"text":"a dog"}\n', DOG),
    "laion.csv": ("csv", "URL,TEXT\nhttp://a/1.jpg,a dog\n", ADDRESSED),
    "laion.jsonl": (
        "jsonl", '{"URL":"http://a/1.jpg","TEXT":"a dog","similarity":0.3}\n', ADDRESSED,
    ),
    "alone.txt": (
        "lines", "a dog, a cat\n\na caf\udce9\na red car\n",
        [(None, ["a dog, a cat"]), "bad_utf8", (None, ["a red car"])],
    ),
}  # fmt: skip


def shown(items):
    """Photos with their captions, or else tags; the code of a reject."""
    return [
        (item.fields.get("image"), item.fields.get("captions", item.fields.get("tags")))
        if isinstance(item, Record)
        else item.code
        for item in items
    ]


@pytest.mark.parametrize("name", FILES)
def test_a_format_is_recognised_and_read(name, tmp_path):
    form, content, expected = FILES[name]
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    assert recognise(str(path)) == form
    labels = ["dog", "cat", "red"] if form == "ram" else []
    assert shown(read_any(path, labels=labels)) == expected


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_refused_in_one_line(name, tmp_path):
    for content in damaged(FILES[name][1].encode(errors="surrogateescape"), name):
        (tmp_path / name).write_bytes(content)
        try:
            read_any(tmp_path / name)
        except (RunProblem, UsageProblem) as problem:
            assert "\n" not in problem.message


@pytest.mark.parametrize(
    ("row", "tags"),
    [
        ({"caption": ["x"], "union_label_id": [1, 0]}, ["cat", "dog"]),  # RAM++
        ({"caption": ["x", "y"], "parse_label_id": [[0], [1, 0]]}, ["dog", "cat"]),  # Tag2Text
        ({"caption": "x", "union_label_id": [0]}, ["dog"]),
        ({"caption": ["x"], "union_label_id": [2]}, "bad_field"),
    ],
)
def test_each_of_the_authors_forms_is_recognised(tmp_path, row, tags):
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{"image_path": "a.jpg"} | row]))
    assert recognise(str(path)) == "ram"
    (item,) = read_any(path, labels=["dog", "cat"])
    assert (item.fields["tags"] if isinstance(item, Record) else item.code) == tags
    with pytest.raises(RunProblem, match="--labels"):
        list(read_any(path))


def test_a_webdataset_tar_gives_its_texts(tmp_path):
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in [
            ("a/1.jpg", b"photo"), ("a/1.txt", b"a dog"), ("a/2.json", b'{"caption": "a cat"}'),
            ("a/2.jpg", b"photo"), ("3.json", b"{oops"), ("3.jpg", b"photo"), ("4.txt", b"a cow"),
        ]:  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    first, second = ("00000.tar#a/1.jpg", ["a dog"]), ("00000.tar#a/2.jpg", ["a cat"])
    assert shown(read_any(path)) == [first, second, "bad_json", (None, ["a cow"])]


def test_sidecars_are_captions_or_tags(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"photo")
    (tmp_path / "b.jpg").write_bytes(b"photo without text")
    (tmp_path / "a.txt").write_text("dog, red ball\n")
    name = str(tmp_path / "a.jpg")
    assert shown(read_any(tmp_path)) == [(name, ["dog, red ball"])]
    (record,) = read_any(tmp_path, form="tags")
    assert record.fields == {"image": name, "tags": ["dog", "red ball"]}


@pytest.mark.parametrize(
    ("form", "text", "reason"),
    [
        ("json", '[{"url": "a", "caption": "b"}', "unexpected end"),
        ("json", '{"url": "a", "caption": "b"}', "not a list"),
        ("coco", '{"images": [], "annotations": {"1": "b"}}', "no list 'annotations'"),
        ("sbu", '{"image_urls": ["a"], "captions": []}', "1 image_urls, but 0 captions"),
    ],
)
def test_a_list_that_is_none_is_one_line(tmp_path, form, text, reason):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(RunProblem, match=f"x.json: .*{reason}"):
        read_any(path, form=form)


def test_columns_that_the_user_names_are_taken_and_missing_ones_are_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    row = {"Foto": "a.jpg", "Beschreibung": "a dog", "caption": "another", "url": URL}
    (tmp_path / "a.csv").write_text("\n".join(map(",".join, (row, row.values()))))
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    columns = Columns(image="foto", caption="beschreibung")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert shown(read_any(tmp_path / name, columns=columns)) == DOG, name
    for name in ("a.csv", "a.parquet"):
        assert shown(read_any(tmp_path / name)) == [(URL, ["another"])], name
        with pytest.raises(UsageProblem, match=f"{name}: no column 'text'; it has Foto, Beschr"):
            list(read_any(tmp_path / name, columns=Columns(caption="text")))


def test_a_table_of_unknown_columns_is_wrong_usage(tmp_path, ramctl):
    (tmp_path / "a.csv").write_text("foto;beschreibung\na.jpg;a dog\n")
    done = ramctl("parse", tmp_path / "a.csv")
    assert done.returncode == 2 and not done.stdout
    lacks = "a.csv: no column of captions or tags; it has foto, beschreibung (--caption-column, "
    assert lacks in done.messages


def test_a_quote_that_is_not_closed_hides_no_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('image,caption\n0.jpg,A cow\na.jpg,"A dog\nb.jpg,A cat\nc.jpg,A bird\n')
    with pytest.raises(RunProblem, match=r"a\.csv:3: .*; is a quote not closed\?"):
        read_any(path)


def test_standard_input_is_jsonl_unless_a_format_is_named(ramctl):
    line = b'{"image":"a.jpg","captions":["a dog"]}\n'
    assert ramctl("parse", stdin=line).rows[0]["tags"] == ["dog"]
    table = b"image;caption\na.jpg;a dog\n"
    assert ramctl("parse", "--from", "csv", "-", stdin=table).rows[0]["tags"] == ["dog"]
    done = ramctl("parse", stdin=table)
    assert done.returncode == 3 and "another format on stdin needs --from" in done.messages
    assert "--from" not in ramctl("parse", stdin=b'{"captions": 3,}\n').messages


def test_captions_and_tags_of_a_photo_are_joined_where_its_first_stood(ramctl):
    rows = [
        {"image": "a.jpg", "captions": ["a dog"], "tags": ["barn"], "n": 1},
        {"image": "b.jpg", "caption": "a cat"}, {"caption": "a red car"},
        {"image": "a.jpg", "caption": "a dog and a ball", "tags": ["barn", "hill"], "n": 2},
        {"image": "b.jpg", "captions": 5}, {"caption": "a cow"},
    ]  # fmt: skip
    done = ramctl("parse", "--group", "--keep-tags", stdin=lines(rows))
    assert [(row.get("image"), row["tags"]) for row in done.rows] == [
        ("a.jpg", ["dog", "ball", "barn", "hill"]), ("b.jpg", ["cat"]), (None, ["red", "car"]),
        (None, ["cow"]),
    ]  # fmt: skip
    assert (done.rows[0]["captions"], done.rows[0]["n"]) == (["a dog", "a dog and a ball"], 1)
    assert (done.returncode, "5: captions is not" in done.messages) == (3, True)


def test_fields_of_a_wrong_form_are_rejects_with_the_record_as_it_was(ramctl, tmp_path):
    rows = [{"text": "a dog", "caption": ["not ours"]}, {"text": ["a cat", 5]}, {"text": "a cow"}]
    (tmp_path / "in.jsonl").write_bytes(lines(rows))
    done = ramctl("parse", "in.jsonl", "--caption-column", "text")
    assert [row["tags"] for row in done.rows] == [["dog"], ["cow"]]
    assert "in.jsonl:2: captions is not a list of strings" in done.messages
    assert done.returncode == 3
