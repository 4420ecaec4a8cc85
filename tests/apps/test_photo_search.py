"""`tag --embedding` and `search`: vectors that give scores back, and what is found by them."""

import json
import shutil
from base64 import b64encode
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from safetensors.numpy import load_file

from ramctl import PhotoSearch, Tagger
from ramctl.apps.question import read_question
from ramctl.checkpoints.bundle import AXES, TEXT_FOLDER, Bundle, embedded_bundle
from ramctl.checkpoints.static_table import read_text_encoder
from ramctl.inference.embedding import PhotoAxes, write_axes
from ramctl.records.labels import Label, Labels
from tests.apps.conftest import mini_without
from tests.metadata.conftest import rewritten
from tests.support import DATA, read_rows, write_records

PICTURES = sorted((DATA / "pictures").glob("*.jpg"))
NAMES = [path.name for path in PICTURES]  # cat, coffee, flower, temple
MINI = Bundle.open(embedded_bundle())
KNOWN = PhotoAxes.from_bundle(MINI)
FILE = Path("tags.jsonl")


def names(done) -> list[str]:
    return [row["image"] for row in done.rows]


def ids_of(*tags: str) -> list[int]:
    return [MINI.labels.ids(tag)[0] for tag in tags]


def vector_of(row: dict) -> np.ndarray:
    return np.frombuffer(KNOWN.decode(row["embedding"]), "<f2").astype(float)


def row_of(image: str, **log_odds: float) -> dict:
    """The record of a photo with these log-odds of labels."""
    vector = np.linalg.lstsq(KNOWN.axes[ids_of(*log_odds)], [*log_odds.values()])[0]
    packed = b64encode(vector.astype("<f2").tobytes()).decode()
    return {"image": image, "tags": [], "embedding": f"{KNOWN.stamp}:{packed}"}


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """The records of the pictures."""
    tagger = Tagger.from_pretrained("mini", embedding=True, dense=True)
    results = tagger.tag([str(path) for path in PICTURES])
    return [result.record | {"image": Path(result.image).name} for result in results]


@pytest.fixture
def search(command, rows):
    """Runs `ramctl search` on the pictures and their records, without what it notes."""
    for path in PICTURES:
        shutil.copy(path, path.name)
    write_records(FILE, [{k: v for k, v in row.items() if k != "dense"} for row in rows])
    return partial(command, "search", FILE)


def test_an_embedding_is_the_log_odds_of_all_labels_along_the_axes(rows):
    for row in rows:
        scores = np.clip(np.asarray(row["dense"], float), 1e-6, 1 - 1e-6)
        expected = np.log(scores / (1 - scores)) @ KNOWN.axes
        assert vector_of(row) == pytest.approx(expected, rel=1e-3, abs=0.1)


def test_axes_are_the_principal_ones_and_a_model_may_lack_them(tmp_path, command):
    rng = np.random.default_rng(0)
    odds = rng.normal(size=(90, 3)) @ rng.normal(size=(3, 7)) + rng.normal(size=7)
    write_axes(tmp_path / AXES, 1 / (1 + np.exp(-odds)))
    axes = load_file(tmp_path / AXES)["axes"].astype(float)
    assert axes.shape == (7, 3)
    _, _, expected = np.linalg.svd(odds - odds.mean(0), full_matrices=False)
    for axis, own in zip(axes.T, expected, strict=False):
        assert abs(axis @ own) == pytest.approx(1, abs=1e-3)
    model = mini_without(tmp_path / "model", AXES)
    done = command("tag", "--model", model, PICTURES[0], "--embedding", code=1)
    assert "embeddings need axes.safetensors" in done.messages


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("a cup of coffee", "coffee.jpg"), ("Katzen", "cat.jpg"), ("狗和猫", "cat.jpg"),
        ("flower -n 1", "flower.jpg"), ("Blumen --lang DE", "flower.jpg"),
    ],
)  # fmt: skip
def test_words_find_the_photos_that_show_them(search, words, first):
    found = search(*words.split()).rows
    assert found[0]["image"] == first
    assert list(found[0]) == ["image", "tags", "scores", "score"]
    scores = [row["score"] for row in found]
    assert scores == sorted(scores, reverse=True) and len(scores) <= (1 if "-n" in words else 4)


def test_scores_of_words_are_weighted_sums_of_log_odds(search, rows):
    vectors = np.array([*map(vector_of, rows)])
    texts = MINI.tensors(["labels.text"])["labels.text"].astype(float)
    (sentence,) = read_text_encoder(MINI.path / TEXT_FOLDER).embed_sentences(["temple"])
    centred, sentence = texts - texts.mean(0), sentence - texts.mean(0)
    weights = centred @ np.linalg.inv(centred.T @ centred + np.eye(texts.shape[1])) @ sentence
    (index,) = ids_of("temple")
    weights[index] += 1 / max((vectors @ KNOWN.axes[index]).std(), 1)
    expected = (vectors - vectors.mean(0)) @ (weights @ KNOWN.axes)
    found = search("temple").rows
    for row in found:
        assert row["score"] == pytest.approx(expected[NAMES.index(row["image"])], abs=0.02)
    likely = [name for name, vector in zip(NAMES, vectors, strict=True)
              if vector @ KNOWN.axes[index] >= -4]  # fmt: skip
    assert {row["image"] for row in found} == {*likely}


def test_a_photo_finds_those_like_it(search):
    copy = Image.open("temple.jpg").rotate(2)
    copy.save("other.jpg")
    assert names(search("--like", "other.jpg", "-n", "1")) == ["temple.jpg"]
    own = search("--like", "./other.jpg", "-f", "text").stdout.split(b"\n")
    assert len(own) == 5 and own[0].endswith(b"\ttemple.jpg")
    assert len(search("--like", "temple.jpg").rows) == 3  # without itself


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name what to search for"), (["red", "--duplicates"], "name what to search for"),
        (["xqzzv"], "knows no word"), (["--like", "nowhere.png"], "nowhere.png: no such file"),
        (["cat", "--lang", "xx"], "language 'xx': the labels have names in de, "),
    ],
)  # fmt: skip
def test_questions_without_an_answer_are_one_line(search, arguments, message):
    done = search(*arguments, code=2)
    assert done.stdout == b"" and message in done.messages
    assert done.messages.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "a.jpg", "tags": []}', "no embedding field (ramctl tag --embedding"),
        ('{"image": "a.jpg", "embedding": "xx"}', "not an embedding of tag"),
        ('{"image": "a.jpg", "embedding": "01234567:AAAA"}', "the embedding is another"),
        (json.dumps(row_of("a.jpg", cat=1)).replace("image", "name"), "no image"),
        ("{oops", "bad JSON"),
    ],
)  # fmt: skip
def test_records_of_others_are_named(search, line, message):
    FILE.write_text(f"{json.dumps(row_of('a.jpg', cat=1))}\n{line}\n")
    done = search("cat", code=1)
    assert done.stdout == b"" and f"{FILE}:2: {message}" in done.messages


def test_photos_that_hardly_show_what_is_searched_are_not_found(search):
    odds = {"sure": 3, "likely": -1, "unlikely": -5, "never": -9}
    write_records(FILE, [row_of(name, cat=value, dog=-6) for name, value in odds.items()])
    assert names(search("cat")) == ["sure", "likely"]
    assert names(search("dog")) == []
    assert "0 of 4 photos" in search("dog").messages
    done = search("cat", "xqzzv")
    assert names(done) == ["sure", "likely"]
    assert "no label for: xqzzv; left out\n" in done.messages
    FILE.write_text("")
    assert "no records" in search("cat", code=1).messages


def test_keywords_of_the_owner_are_found_and_labels_that_she_refused_are_not(search):
    rows = read_rows(FILE)
    cat, coffee, flower, _temple = rows
    cat["sources"] = {"Oma Erna": ["human"], "cat": ["model"]}
    coffee |= {"sources": {"Zäune": ["human"]}, "captions": ["Karl"]}
    flower["refused"] = ["flower"]
    write_records(FILE, rows)
    for question, name in (("Erna", "cat.jpg"), ("Zaun", "coffee.jpg")):
        done = search(question)
        assert (names(done)[0], "no label" in done.messages) == (name, False), question
    assert {*names(search("Erna", "temple"))[:2]} == {"cat.jpg", "temple.jpg"}
    assert names(search("Karl")) == []
    assert (
        "`ramctl search FOLDER` reads those of the photos" in search("Sommerfest", code=2).messages
    )
    assert "flower.jpg" not in names(search("flower"))
    (row,) = [row for row in search("leaf").rows if row["image"] == "flower.jpg"]
    assert "flower" not in row["tags"] and "leaf" in row["tags"]


def test_results_in_memory_are_searched_too(rows):
    assert PhotoSearch(rows).words("cat")[0].image == "cat.jpg"
    assert PhotoSearch(rows).like("cat.jpg", n=1)[0].image != "cat.jpg"


def test_a_folder_is_indexed_and_searched_in_one_command(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photos = tmp_path / "photos"
    shutil.copytree(PICTURES[0].parent, photos)
    run, before = partial(command, "search", "photos"), sorted(photos.iterdir())
    first = run("flower")
    assert names(first)[0] == str(photos / "flower.jpg")
    assert "index is" in first.messages and sorted(photos.iterdir()) == before
    again = run("flower")
    assert "index is" not in again.messages and again.rows == first.rows
    (photos / "cat.jpg.xmp").write_bytes(rewritten(dc_subject=["Oma Erna"]))
    assert names(run("Erna")) == [str(photos / "cat.jpg")]
    (photos / "flower.jpg").rename(photos / "moved.jpg")
    assert names(run("flower"))[0] == str(photos / "moved.jpg")
    assert str(photos / "moved.jpg") not in names(run("--like", "photos/moved.jpg"))


def test_a_model_without_a_table_of_texts_is_asked_by_its_labels(search, tmp_path):
    files = [name for name in MINI.meta["files"] if name.startswith(TEXT_FOLDER)]
    model = mini_without(tmp_path / "model", *files)
    assert names(search("cat", "--model", model))[0] == "cat.jpg"
    assert "knows no word" in search("xqzzv", "--model", model, code=2).messages


def test_changed_copies_of_photos_are_told_from_other_photos(command):
    for source in PICTURES:
        photo = Image.open(source).convert("RGB")
        w, h = photo.size
        photo.save(source.name, quality=95)
        photo.resize((w * 9 // 10, h * 9 // 10)).save(f"copy-{source.name}", quality=50)
        photo.rotate(180).filter(ImageFilter.FIND_EDGES).save(f"other-{source.name}")
    command("tag", *sorted(map(str, Path().glob("*.jpg"))), "--embedding", "-o", FILE)
    FILE.write_text(FILE.read_text() * 2)  # what stands twice is no copy of itself
    groups = [row["images"] for row in command("search", FILE, "--duplicates").rows]
    assert sorted(groups) == [[name, f"copy-{name}"] for name in NAMES]  # the largest file first


@pytest.mark.parametrize(
    ("text", "language", "tags"),
    [
        ("Two tabby-cats walked along the shores", "en", "tabby cat walk shore"),
        ("a couch", "en", "sofa"),
        ("Hunde am Strand", "de", "dog beach"),
        ("les chevaux rouges sur la plage", "fr", "horse red beach"),
        ("perros y casas rojas", "es", "dog house red"),
        ("i cani rossi", "it", "dog red"),
        ("海滩上的狗", "zh", "beach dog"),
        ("山の家", "ja", "mountain house"),
        ("xqzzv", "", ""),
        ("the of", "", ""),
    ],
)
def test_texts_name_labels_in_any_language_and_inflection(text, language, tags):
    question = read_question(text, MINI.labels)
    assert question.language == language
    assert " ".join(MINI.labels[ids[0]].tag for ids in question.labels) == tags


def test_words_are_of_one_language():
    labels = Labels(
        [Label("gift", names={"de": "Geschenk"}), Label("poison", names={"de": "Gift"})]
    )
    for language, index in (("", 0), ("en", 0), ("de", 1)):
        assert read_question("Gift", labels, language).labels == [[index]]
    for label in MINI.labels:
        assert set(label.names) == {"de", "fr", "es", "it", "ja", "zh"}, label.tag
        assert all(name.strip() == name != "" for name in label.names.values()), label.tag
