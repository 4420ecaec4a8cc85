"""What people have captions in: each format is recognised and read as records."""

import io
import json
import tarfile

import pytest

from ramctl.captions.caption_formats import group_by_image, read_captions_of, recognise
from ramctl.captions.source import Columns
from ramctl.errors import RunProblem
from ramctl.records.record import Record, Reject


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
VG = [{"id": 5, "regions": [{"region_id": 1, "image_id": 5, "phrase": "red car"}]}]
SBU = {"image_urls": ["http://a/1.jpg", "http://a/2.jpg"], "captions": ["one dog", "two"]}
RAM = [{"image_path": "a.jpg", "caption": ["x", "y"], "union_label_id": [0, 2],
        "parse_label_id": [[0], [2]]}]  # fmt: skip
LIST = [{"url": "http://a/1.jpg", "caption": "a dog", "extra": 1}]
FILES = {
    "coco.json": ("coco", json.dumps(COCO)),
    "regions.json": ("vg", json.dumps(VG)),
    "sbu.json": ("sbu", json.dumps(SBU)),
    "list.json": ("json", "\ufeff" + json.dumps(LIST)),
    "ram.json": ("ram", json.dumps(RAM)),
    "cc3m.tsv": ("cc", "a dog\thttp://a/1.jpg\nbroken\n"),
    "cc12m.tsv": ("cc", "http://a/1.jpg\ta dog\n"),
    "clip.csv": ("csv", "filepath\ttitle\na.jpg\ta dog, and a cat\n"),
    "captions.txt": ("csv", 'image,caption\na.jpg,"a dog, a cat"\n'),
    "results.csv": ("csv", "image_name| comment_number| comment\na.jpg| 0| a dog\n"),
    "tags.csv": ("csv", 'image,tags\na.jpg,"dog; cat"\n'),
    "Flickr8k.token.txt": ("token", "a.jpg#0\ta dog\na.jpg#1\ta cat\nnonsense\n"),
    "plain.jsonl": ("jsonl", '{"image":"a.jpg","captions":["a dog"]}\n'),
    "laion.csv": ("csv", "URL,TEXT\nhttp://a/1.jpg,a dog\n"),
    "laion.jsonl": ("jsonl", '{"URL":"http://a/1.jpg","TEXT":"a dog","similarity":0.3}\n'),
    "alone.txt": ("lines", "a dog, a cat\n\na red car\n"),
}
EXPECTED = {
    "coco.json": [("7.jpg", ['a "red" dog']), ("8", ["a cat"]), "missing_field"],
    "regions.json": [("5.jpg", ["red car"])],
    "sbu.json": [("http://a/1.jpg", ["one dog"]), ("http://a/2.jpg", ["two"])],
    "list.json": [("http://a/1.jpg", ["a dog"])],
    "ram.json": [("a.jpg", ["x", "y"])],
    "cc3m.tsv": [("http://a/1.jpg", ["a dog"]), "bad_field"],
    "cc12m.tsv": [("http://a/1.jpg", ["a dog"])],
    "clip.csv": [("a.jpg", ["a dog, and a cat"])],
    "captions.txt": [("a.jpg", ["a dog, a cat"])],
    "results.csv": [("a.jpg", ["a dog"])],
    "tags.csv": [("a.jpg", ["dog", "cat"])],
    "Flickr8k.token.txt": [("a.jpg", ["a dog"]), ("a.jpg", ["a cat"]), "bad_field"],
    "plain.jsonl": [("a.jpg", ["a dog"])],
    "laion.csv": [("http://a/1.jpg", ["a dog"])],
    "laion.jsonl": [("http://a/1.jpg", ["a dog"])],
    "alone.txt": [(None, ["a dog, a cat"]), (None, ["a red car"])],
}


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
    form, content = FILES[name]
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert recognise(str(path)) == form
    labels = ["dog", "cat", "red"] if form == "ram" else []
    items = list(read_any(path, labels=labels))
    assert shown(items) == EXPECTED[name]


@pytest.mark.parametrize(
    ("row", "tags"),
    [
        ({"caption": ["x"], "union_label_id": [1, 0]}, ["cat", "dog"]),  # RAM++
        ({"caption": ["x", "y"], "parse_label_id": [[0], [1, 0]]}, ["dog", "cat"]),  # Tag2Text
        ({"caption": "x", "union_label_id": [0]}, ["dog"]),
        ({"caption": ["x"], "union_label_id": [2]}, "bad_field"),
        ({"caption": ["x"], "union_label_id": ["a"]}, "bad_field"),
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


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("coco", {"images": [1, {"id": 3}], "annotations": [{"image_id": [3]}, 7]}),
        ("vg", [{"regions": [1]}, {"regions": 2}, 3]),
        ("json", [1, [2]]),
        ("ram", [1, {"image_path": "a", "caption": ["x"], "union_label_id": 4}]),
    ],
)
def test_odd_json_is_rejected_row_by_row(tmp_path, form, content):
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(content))
    assert all(isinstance(item, Reject) for item in read_any(path, form=form, labels=["dog"]))


def test_a_webdataset_tar_gives_its_texts(tmp_path):
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in [
            ("a/1.jpg", b"photo"), ("a/1.txt", b"a dog"), ("a/2.json", b'{"caption": "a cat"}'),
            ("a/2.jpg", b"photo"), ("a/3.json", b"{oops"), ("a/3.jpg", b"photo"),
        ]:  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert shown(read_any(path)) == [
        ("00000.tar#a/1.jpg", ["a dog"]), ("00000.tar#a/2.jpg", ["a cat"]), "bad_json",
    ]  # fmt: skip


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
        ("coco", '[{"caption": "b"}]', "no list 'images'"),
        ("coco", '{"images": [], "annotations": {"1": "b"}}', "no list 'annotations'"),
        ("sbu", '{"image_urls": ["a"], "caption": ["b"]}', "no list 'captions'"),
        ("sbu", '{"image_urls": ["a"], "captions": []}', "1 image_urls, but 0 captions"),
    ],
)
def test_a_list_that_is_none_is_one_line(tmp_path, form, text, reason):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(RunProblem, match=f"x.json: .*{reason}") as caught:
        read_any(path, form=form)
    assert "\n" not in caught.value.message


def test_a_damaged_tar_ends_with_a_reject(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"{number}.txt")
            member.size = 5
            archive.addfile(member, io.BytesIO(b"a dog"))
    content = bytearray(path.read_bytes())
    content[2048:2100] = b"\xff" * 52  # in the header of the last
    path.write_bytes(content)
    *good, last = shown(read_any(path))
    assert (good, last) == ([(None, ["a dog"])] * 2, "unreadable_image")


def test_captions_of_a_photo_are_joined_where_its_first_stood():
    rows = [("a", 1), ("b", 2), ("a", 3), (None, 4), ("b", 5), (None, 6)]
    items = [
        Record({**({"image": image} if image else {}), "captions": [str(n)], "n": n})
        for image, n in rows
    ]
    joined = [
        (item.fields["n"], item.fields["captions"]) for item in group_by_image(iter(items), "parse")
    ]
    assert joined == [(1, ["1", "3"]), (2, ["2", "5"]), (4, ["4"]), (6, ["6"])]
    rows = [{"image": "a", "tags": ["x", "y"]}, {"image": "a", "tags": ["y", "z"]},
            {"image": "a", "captions": 5}]  # fmt: skip
    bad, good = group_by_image(map(Record, rows), "parse")
    assert (bad.code, good.fields["tags"]) == ("bad_field", ["x", "y", "z"])


def test_columns_that_the_user_names_are_taken_and_missing_ones_are_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = Columns(image="foto", caption="beschreibung")
    rows = {"Foto": ["a.jpg"], "Beschreibung": ["a dog"], "caption": ["another"]}
    rows["url"] = ["http://a/1.jpg"]
    lines = (",".join(words) for words in (rows, *zip(*rows.values(), strict=True)))
    (tmp_path / "a.csv").write_text("\n".join(lines))
    (tmp_path / "a.jsonl").write_text(json.dumps({name: row[0] for name, row in rows.items()}))
    parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        (record,) = read_any(tmp_path / name, columns=columns)
        assert (record.fields["image"], record.fields["captions"]) == ("a.jpg", ["a dog"]), name
    for name in ("a.csv", "a.parquet"):
        own = shown(read_any(tmp_path / name))
        assert own == [("http://a/1.jpg", ["another"])], name
        with pytest.raises(RunProblem, match=f"{name}: no column 'text'; it has Foto, Beschr"):
            list(read_any(tmp_path / name, columns=Columns(caption="text")))


def test_a_list_of_captions_is_taken_under_each_usual_name(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for name in ("captions", "caption", "text"):
        row = {"image": "a.jpg", name: ["a dog", "a cat"]}
        (tmp_path / "a.jsonl").write_text(json.dumps(row))
        (tmp_path / "a.json").write_text(json.dumps([row]))
        parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
        for path in tmp_path.iterdir():
            found = shown(read_any(path))
            assert found == [("a.jpg", ["a dog", "a cat"])], (name, path)


@pytest.mark.parametrize("end", ["", ","])
def test_a_row_has_as_many_cells_as_the_header(end, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"image,caption{end}\na.jpg,a dog,\nb.jpg,a cat\nc.jpg\nd.jpg,A dog, a cow\n")
    rows = shown(read_any(path))
    assert rows == [("a.jpg", ["a dog"]), ("b.jpg", ["a cat"]), "bad_field", "bad_field"]


@pytest.mark.parametrize("later", ["b.jpg,A cat", 'b.jpg,"A cat"'])
def test_a_quote_that_is_not_closed_hides_no_rows(later, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f'image,caption\n0.jpg,A cow\na.jpg,"A dog\n{later}\nc.jpg,A bird\n')
    with pytest.raises(RunProblem, match=r"a\.csv:3: .*; is a quote not closed\?"):
        read_any(path)


def test_other_quotes_are_those_of_csv(tmp_path):
    path = tmp_path / "a.tsv"
    cells = ['a 5" pipe', '"Stop" on a sign', '"a ""red"" dog"', '"two\nlines"']
    path.write_text("image\tcaption\n" + "".join(f"a.jpg\t{cell}\n" for cell in cells))
    captions = [item if isinstance(item, str) else item[1][0] for item in shown(read_any(path))]
    assert captions == ['a 5" pipe', "bad_field", 'a "red" dog', "two\nlines"]


@pytest.mark.parametrize(
    ("form", "row"),
    [("csv", "a.jpg,{}"), ("cc", "{}\thttp://a"), ("token", "a.jpg#0\t{}"), ("lines", "{}")],
)
def test_rows_in_another_encoding_are_rejected(form, row, tmp_path):
    path = tmp_path / "a.txt"
    rows = [row.format(caption) + "\n" for caption in ("a café", "a dog")]
    header = b"image,caption\n" if form == "csv" else b""
    path.write_bytes(header + "".join(rows).encode("latin-1"))
    bad, good = read_any(path, form=form)
    assert (bad.code, good.fields["captions"]) == ("bad_utf8", ["a dog"])
    assert "a caf\\udce9" in bad.raw


def test_standard_input_is_jsonl_unless_a_format_is_named(ramctl):
    line = b'{"image":"a.jpg","captions":["a dog"]}\n'
    assert ramctl("parse", stdin=line).rows[0]["tags"] == ["dog"]
    table = b"image;caption\na.jpg;a dog\n"
    assert ramctl("parse", "--from", "csv", "-", stdin=table).rows[0]["tags"] == ["dog"]
    done = ramctl("parse", stdin=table)
    assert done.returncode == 3 and "another format on stdin needs --from" in done.messages


def test_fields_of_a_wrong_form_are_rejects_with_the_record_as_it_was(ramctl, tmp_path):
    rows = [{"text": "a dog", "caption": ["not ours"]}, {"text": ["a cat", 5]}, {"text": "a cow"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = ramctl("parse", "in.jsonl", "--caption-column", "text")
    assert [row["tags"] for row in done.rows] == [["dog"], ["cow"]]
    assert "in.jsonl:2: captions is not a list of strings" in done.messages
    assert done.returncode == 3


def test_a_caption_of_null_is_as_good_as_none(ramctl):
    line = b'{"image": "a.jpg", "caption": null, "text": "A kite"}\n'
    assert ramctl("parse", stdin=line).rows[0]["tags"] == ["kite"]
