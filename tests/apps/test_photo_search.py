"""`tag --embedding` and `search`: vectors that give scores back, and what is found by them."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from safetensors.numpy import load_file, save_file

from ramctl import PhotoSearch, Tagger
from ramctl.apps.question import read_question
from ramctl.checkpoints.bundle import AXES, Bundle, write_meta
from ramctl.errors import UsageProblem
from ramctl.inference.embedding import N_AXES, PhotoAxes, write_axes
from ramctl.records.labels import Label, Labels
from tests.command import Ramctl
from tests.conftest import REPOSITORY
from tests.support import write_records
from tests.tagging.conftest import LABELS, names, save_photo

FILE = "tags.jsonl"
MINI = REPOSITORY / "ramctl/checkpoints/bundles/mini"
PHOTOS = ("red.png", "green.png", "blue.png", "sub/white.png")


def log_odds(scores) -> np.ndarray:
    scores = np.clip(np.asarray(scores, float), 1e-6, 1 - 1e-6)
    return np.log(scores / (1 - scores))


def with_axes(bundle: Path, path: Path, axes: np.ndarray) -> Path:
    """A copy of a bundle that has axes (L, D)."""
    shutil.copytree(bundle, path)
    save_file({"axes": axes.astype(np.float16)}, path / AXES)
    meta = json.loads((path / "bundle.json").read_text())
    meta.pop("files")
    write_meta(path, meta)
    return path


@pytest.fixture
def model(colours, tmp_path_factory) -> Path:
    """The colour model with axes that lose nothing."""
    return with_axes(colours, tmp_path_factory.mktemp("model") / "colours", np.eye(len(LABELS)))


@pytest.fixture
def search(model, photos):
    """Runs `ramctl search` on records of the photos with their embeddings."""
    run = Ramctl(photos)
    assert run("tag", "--model", model, *PHOTOS, "--embedding", "-o", FILE).returncode == 0
    return partial(run, "search", "--model", model, FILE)


def test_an_embedding_gives_the_log_odds_of_all_labels_back(model, photos):
    run = partial(Ramctl(photos), "tag", "--model", model, "--dense", *PHOTOS)
    plain, rows = run().rows, run("--embedding").rows
    axes = PhotoAxes.from_bundle(Bundle.open(model))
    for before, row in zip(plain, rows, strict=True):
        embedding = row.pop("embedding")
        assert row == before
        vector = np.frombuffer(axes.decode(embedding), "<f2").astype(float)
        assert vector == pytest.approx(log_odds(row["dense"]), abs=0.01)


def test_axes_are_the_principal_ones(tmp_path):
    rng = np.random.default_rng(0)
    odds = rng.normal(size=(90, 3)) @ rng.normal(size=(3, 7)) + rng.normal(size=7)
    write_axes(tmp_path / AXES, 1 / (1 + np.exp(-odds)))
    axes = load_file(tmp_path / AXES)["axes"].astype(float)
    assert axes.shape == (7, 3)
    _, _, expected = np.linalg.svd(odds - odds.mean(0), full_matrices=False)
    for axis, own in zip(axes.T, expected, strict=False):
        assert abs(axis @ own) == pytest.approx(1, abs=1e-3)
    assert load_file(MINI / AXES)["axes"].shape == (len(Bundle.open(MINI).labels), N_AXES)


def test_a_model_without_axes_gives_no_embeddings(colours, photos):
    done = Ramctl(photos)("tag", "--model", colours, "red.png", "--embedding")
    assert (done.returncode in (1, 2), done.stdout) == (True, b"")
    assert "embeddings need axes.safetensors" in done.messages


def test_words_find_the_photos_that_show_them(search):
    assert names(search("red"))[0] == "red.png"
    assert names(search("something", "green", "-n", "1")) == ["green.png"]
    rows = search("scarlet").rows
    assert list(rows[0]) == ["image", "tags", "scores", "score"]
    scores = [row["score"] for row in search("colour").rows]
    assert scores == sorted(scores, reverse=True)


def test_scores_of_words_are_weighted_sums_of_log_odds(search, photos, model):
    dense = Ramctl(photos)("tag", "--model", model, "--dense", *PHOTOS).rows
    matrix = log_odds([row["dense"] for row in dense])
    texts = Bundle.open(model).tensors(["labels.text"])["labels.text"]
    centred, sentence = texts - texts.mean(0), texts[0] - texts.mean(0)  # of "red"
    by_text = centred @ np.linalg.inv(centred.T @ centred + np.eye(texts.shape[1])) @ sentence
    by_text[0] += 1 / max(matrix[:, 0].std(), 1)
    expected = (matrix - matrix.mean(0)) @ by_text
    for one in PhotoSearch(photos / FILE, str(model)).words("red"):
        assert one.score == pytest.approx(expected[PHOTOS.index(one.image)], abs=0.02)


def test_a_photo_finds_those_like_it(search, photos):
    save_photo(photos / "pink.png", (255, 60, 80))
    for photo in ("pink.png", "./red.png"):
        assert names(search("--like", photo, "-n", "1")) == ["red.png"]
    own = search("--like", "red.png")
    assert "red.png" not in names(own)
    assert len(own.rows) == 3


def test_answers_are_text_too_and_make_a_gallery(search, photos):
    assert search("red", "-n", "1", "-f", "text").stdout.endswith(b"\tred.png\n")
    page = Ramctl(photos)("export", "--gallery", "page.html", stdin=search("red").stdout)
    assert (page.returncode, "red.png" in (photos / "page.html").read_text()) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name what to search for"),
        (["red", "--duplicates"], "name what to search for"),
        (["zebra"], "knows no word"),
        (["--like", "nowhere.png"], "nowhere.png: no such file"),
    ],
)
def test_questions_without_an_answer_are_one_line(search, arguments, message):
    done = search(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert message in done.messages
    assert done.messages.count("\n") == 1


def test_other_records_are_named(search, photos):
    first = (photos / FILE).read_text().splitlines()[0]
    for line, message in (
        ('{"image": "a.jpg", "tags": []}', "no embedding field (ramctl tag --embedding"),
        ('{"image": "a.jpg", "embedding": "xx"}', "not an embedding of tag"),
        ('{"image": "a.jpg", "embedding": "01234567:AAAA"}', "the embedding is another"),
        (first.replace("image", "name"), "no image"), ("{oops", "bad JSON"),
    ):  # fmt: skip
        (photos / FILE).write_text(f"{first}\n{line}\n")
        done = search("red")
        assert (done.returncode, done.stdout) == (1, b"")
        assert f"{FILE}:2: {message}" in done.messages
    (photos / FILE).write_text("")
    assert "no records" in search("red").messages


PICTURES = sorted((REPOSITORY / "tests/data/pictures").glob("*.jpg"))


def test_changed_copies_of_photos_are_told_from_other_photos(tmp_path, ramctl):
    for source in PICTURES:
        photo = Image.open(source).convert("RGB")
        w, h = photo.size
        photo.save(tmp_path / source.name, quality=95)
        photo.resize((w * 9 // 10, h * 9 // 10)).save(tmp_path / f"copy-{source.name}", quality=50)
        photo.rotate(180).filter(ImageFilter.FIND_EDGES).save(tmp_path / f"other-{source.name}")
    photos = sorted(path.name for path in tmp_path.iterdir())
    ramctl("tag", *photos, "--embedding", "-o", FILE, cwd=tmp_path)
    lines = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(lines + lines)  # what stands twice is no copy of itself
    search = partial(ramctl, "search", FILE, "--duplicates", cwd=tmp_path)
    groups = [row["images"] for row in search().rows]  # the largest file first
    assert sorted(groups) == sorted([x.name, f"copy-{x.name}"] for x in PICTURES)


LABELS_OF_HERS = Labels([
    Label("dog", names={"de": "Hund", "fr": "chien", "es": "perro", "it": "cane", "zh": "狗"}),
    Label("house", names={"de": "Haus", "fr": "maison", "es": "casa", "it": "casa", "ja": "家"}),
    Label("red", names={"de": "rot", "fr": "rouge", "es": "rojo", "it": "rosso", "zh": "红色"}),
    Label("horse", names={"de": "Pferd", "fr": "cheval", "es": "caballo", "it": "cavallo"}),
    Label("beach", synonyms=("sea shore",), names={"de": "Strand", "fr": "plage", "zh": "海滩"}),
    Label("walk", "action", names={"de": "spazieren gehen"}),
    Label("mountain", names={"de": "Berg", "es": "montaña", "ja": "山"}),
])  # fmt: skip


@pytest.mark.parametrize(
    ("text", "language", "tags"),
    [
        ("Two dogs walked along the sea-shores", "en", "dog walk beach"),
        ("Hunde am Strand", "de", "dog beach"),
        ("rote Häuser", "de", "red house"),
        ("spazieren gehen", "de", "walk"),
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
    question = read_question(text, LABELS_OF_HERS)
    assert question.language == language
    assert [LABELS_OF_HERS[ids[0]].tag for ids in question.labels] == tags.split()


def test_words_are_of_one_language(search):
    labels = Labels(
        [Label("gift", names={"de": "Geschenk"}), Label("poison", names={"de": "Gift"})]
    )
    for language, index in (("", 0), ("en", 0), ("de", 1)):
        assert read_question("Gift", labels, language).labels == [[index]]
    assert "language 'xx': the labels have names in zh" in search("blue", "--lang", "xx").messages
    assert names(search("蓝色", "--lang", "ZH"))[0] == "blue.png"


def test_words_without_a_label_are_written_and_poor_answers_are_not_found(search):
    done = search("something", "blue", "zebra")
    assert names(done)[0] == "blue.png"
    assert "no label for: something, zebra; left out\n" in done.messages
    assert "no label for" not in search("-q", "blue", "zebra").messages
    done = search("purple")
    assert (done.returncode, done.rows) == (0, [])
    assert "no label for: purple; by its text alone\n" in done.messages


def test_results_in_memory_are_searched_without_a_file(model, photos):
    tagger = Tagger.from_pretrained(model, embedding=True)
    results = tagger.tag([photos / name for name in PHOTOS])
    search = PhotoSearch([result.record for result in results], str(model))
    assert search.words("red")[0].image == str(photos / "red.png")
    assert search.like(str(photos / "blue.png"), n=1)[0].image != str(photos / "blue.png")
    with pytest.raises(UsageProblem, match="language 'xx': the labels have names in zh"):
        search.words("red", language="xx")


def test_photos_that_hardly_show_what_is_searched_are_not_found(model):
    axes = PhotoAxes.from_bundle(Bundle.open(model))
    shown = {"sure": 0.9, "likely": 0.3, "unlikely": 0.01, "never": 0.001}
    rows = [
        {"image": f"{name}.jpg", "embedding": axes.encode(np.array([0.01, 0.01, score, 0.5]))}
        for name, score in shown.items()
    ]
    search = PhotoSearch(rows, str(model))
    assert [found.image for found in search.words("blue")] == ["sure.jpg", "likely.jpg"]
    assert search.words("red") == []
    with pytest.raises(UsageProblem, match="knows no word"):
        search.words("xqzzv")


def test_her_keywords_are_found(search, photos):
    rows = [json.loads(line) for line in (photos / FILE).read_text().splitlines()]
    rows[0] |= {"sources": {"Oma Erna": ["human"], "red": ["model"]}}
    rows[1] |= {"sources": {"Zäune": ["human"]}, "captions": ["Karl"]}
    write_records(photos / FILE, rows)
    for question, name in (("Erna", "red.png"), ("Zaun", "green.png")):
        done = search(question)
        assert (names(done), "no label" in done.messages) == ([name], False), question
    assert "red.png" in names(search("Erna", "blue"))[:2]
    assert search("Karl").returncode == 2


def test_a_photo_is_not_found_by_a_label_that_its_owner_refused(search, model, photos):
    first, second, *others = (row["image"] for row in search("red").rows)
    write_records(photos / "mine.jsonl", [{"image": second, "refused": ["red"]}])
    mine = PhotoSearch(photos / FILE, str(model), keywords=photos / "mine.jsonl")
    assert [found.image for found in mine.words("red")] == [first, *others]
    rows = [json.loads(line) for line in (photos / FILE).read_text().splitlines()]
    write_records(photos / FILE, [row | {"refused": ["red"]} for row in rows])
    assert names(search("red")) == []


def test_a_folder_is_indexed_and_searched_in_one_command(model, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("broken.jpg", "sub/broken.jpg"):
        (photos / name).unlink(missing_ok=True)
    before = sorted(path for path in photos.rglob("*"))
    run = partial(Ramctl(photos.parent), "search", "--model", model, photos.name)
    first = run("blue")
    assert names(first)[0] == str(photos / "blue.png")
    assert "index is" in first.messages and sorted(photos.rglob("*")) == before
    assert "ramctl tag" not in (again := run("blue")).messages and again.rows == first.rows
    (photos / "red.png.xmp").write_bytes(XMP)
    assert names(run("Erna")) == [str(photos / "red.png")]
    (photos / "blue.png").rename(photos / "moved.png")
    save_photo(photos / "azure.png", (5, 5, 250))
    assert {Path(name).name for name in names(run("blue"))[:2]} == {"azure.png", "moved.png"}
    assert str(photos / "moved.png") not in names(run("--like", "photos/moved.png"))


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject><rdf:Bag><rdf:li>Oma Erna</rdf:li>
</rdf:Bag></dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>"""


def test_a_model_without_a_table_of_texts_is_asked_by_its_labels(tiny_bundle, photos, tmp_path):
    labels = Bundle.open(tiny_bundle).labels
    model = with_axes(tiny_bundle, tmp_path / "tiny", np.eye(len(labels)))
    run = Ramctl(photos)
    run("tag", "--model", model, *PHOTOS, "--embedding", "-o", FILE)
    assert len(run("search", "--model", model, FILE, labels.tags[0]).rows) == len(PHOTOS)
    assert "knows no word" in run("search", "--model", model, FILE, "?").messages


def test_every_label_of_the_embedded_model_has_a_name_in_six_languages():
    for label in Bundle.open(MINI).labels:
        assert set(label.names) == {"de", "fr", "es", "it", "ja", "zh"}, label.tag
        assert all(name.strip() == name != "" for name in label.names.values()), label.tag
