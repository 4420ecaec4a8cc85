"""`tag --embedding` and `search`: vectors that give scores back, and what is found by them."""

import base64
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from safetensors.numpy import load_file, save_file

from ramctl import PhotoSearch
from ramctl.checkpoints.bundle import AXES, Bundle, write_meta
from ramctl.errors import RunProblem
from ramctl.photo_search import labels_in_text
from ramctl.tagging.embedding import N_AXES, PhotoAxes, write_axes
from tests.command import Ramctl
from tests.conftest import REPOSITORY
from tests.support import write_records
from tests.tagging.conftest import LABELS, names, save_photo

FILE = "tags.jsonl"
MINI = REPOSITORY / "ramctl/bundles/mini"
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "words.txt"], "needs a bundle and its labels"),
        (["-f", "csv"], "need -f jsonl"),
        (["--model", "clip:somewhere"], "needs a bundle and its labels"),
        (["--model", "{plain}"], "embeddings need axes.safetensors"),
    ],
)
def test_what_has_no_embeddings_is_refused_before_any_work(
    model, colours, photos, arguments, message
):
    (photos / "words.txt").write_text("red\n")
    arguments = [word.format(plain=colours) for word in arguments]
    done = Ramctl(photos)("tag", "--model", model, "red.png", "--embedding", *arguments)
    assert (done.returncode in (1, 2), done.stdout) == (True, b"")
    assert message in done.messages
    assert done.messages.count("\n") == 1


def test_words_find_the_photos_that_show_them(search):
    assert names(search("red"))[0] == "red.png"
    assert names(search("something", "green", "-n", "1")) == ["green.png"]
    assert names(search("purple"))[-1] == "green.png"  # no label: by its text alone
    rows = search("scarlet").rows
    assert list(rows[0]) == ["image", "tags", "scores", "score"]
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(0, abs=0.01)


def test_scores_of_words_are_weighted_sums_of_log_odds(search, photos, model):
    dense = Ramctl(photos)("tag", "--model", model, "--dense", *PHOTOS).rows
    matrix = log_odds([row["dense"] for row in dense])
    texts = Bundle.open(model).tensors(["labels.text"])["labels.text"]
    centred, sentence = texts - texts.mean(0), texts[0] - texts.mean(0)  # of "red"
    by_text = centred @ np.linalg.inv(centred.T @ centred + np.eye(texts.shape[1])) @ sentence
    by_text[0] += 1 / max(matrix[:, 0].std(), 1)
    expected = (matrix - matrix.mean(0)) @ by_text
    found = {one.image: one.score for one in PhotoSearch(photos / FILE, str(model)).words("red")}
    assert [found[name] for name in PHOTOS] == pytest.approx(expected.tolist(), abs=0.02)


def test_a_photo_finds_those_like_it(search, photos):
    save_photo(photos / "pink.png", (255, 60, 80))
    for photo in ("pink.png", "./red.png"):
        assert names(search("--like", photo, "-n", "1")) == ["red.png"]
    own = search("--like", "red.png")
    assert "red.png" not in names(own)
    assert len(own.rows) == 3


def test_answers_are_text_too_and_make_a_gallery(search, photos):
    assert search("red", "-n", "1", "-f", "text").stdout.endswith(b"\tred.png\n")
    page = Ramctl(photos)("export", "-q", "--gallery", "page.html", stdin=search("red").stdout)
    assert (page.returncode, "red.png" in (photos / "page.html").read_text()) == (0, True)


def test_names_that_are_not_utf_8_are_found_as_they_are(model, photos):
    odd = photos / b"\xff red.png".decode(errors="surrogateescape")
    save_photo(photos / "red.png", "red").rename(odd)
    run = Ramctl(photos)
    run("tag", "--model", model, odd.name, "--embedding", "-o", FILE)
    search = partial(run, "search", "--model", model, FILE, "red", "-n", "1")
    assert search("-f", "text").stdout.endswith(b"\t\xff red.png\n")
    assert search().rows[0]["image"]["bytes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name what to search for"),
        (["  "], "name what to search for"),
        (["red", "--duplicates"], "name what to search for"),
        (["?!"], "knows no word"),
        (["zebra"], "knows no word"),
        (["--like", "nowhere.png"], "nowhere.png: no such file"),
        (["--like", "broken.jpg"], "broken.jpg"),
        (["red", "-n", "0"], "'-n'"),
    ],
)
def test_questions_without_an_answer_are_one_line(search, arguments, message):
    done = search(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert message in done.messages
    assert done.messages.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "a.jpg", "tags": []}', "FILE:2: not an embedding of tag"),
        ('{"image": "a.jpg", "embedding": 3}', "FILE:2: not an embedding of tag"),
        ('{"image": "a.jpg", "embedding": "{STAMP}:AAAA"}', "FILE:2: not an embedding of tag"),
        ('{"image": "a.jpg", "embedding": "{STAMP}:??"}', "FILE:2: not an embedding of tag"),
        ('{"image": "a.jpg", "embedding": "01234567:AAAA"}', "FILE:2: the embedding is another"),
        ('{"embedding": "{OWN}"}', "FILE:2: no image"),
        ("[1]", "FILE:2: bad JSON: not a JSON object"),
        ("{oops", "FILE:2: bad JSON"),
    ],
)
def test_other_records_are_named(search, photos, model, line, message):
    first = (photos / FILE).read_text().splitlines()[0]
    own = json.loads(first)["embedding"]
    line = line.replace("{STAMP}", own[:8]).replace("{OWN}", own)
    (photos / FILE).write_text(f"{first}\n{line}\n")
    done = search("red")
    assert (done.returncode, done.stdout) == (1, b"")
    assert message.replace("FILE", FILE) in done.messages
    assert done.messages.count("\n") == 1


def test_a_line_without_end_takes_no_memory(search, photos, monkeypatch):
    monkeypatch.setattr("ramctl.records.jsonl.MAX_LINE", 1000)
    (photos / FILE).write_bytes(b'{"image": "' + b"a" * 5000 + b'"}\n')
    done = search("red")
    assert (done.returncode, "tags.jsonl:1: a line of more than" in done.messages) == (1, True)


def test_a_photo_that_stands_twice_is_no_copy_of_itself(search, photos):
    lines = (photos / FILE).read_text()
    (photos / FILE).write_text(lines + lines)
    assert all(len(set(row["images"])) > 1 for row in search("--duplicates").rows)


def test_files_without_records_are_named(search, photos):
    (photos / FILE).write_text("")
    assert "no records" in search("red").messages
    (photos / FILE).unlink()
    assert search("red").returncode == 2
    piped = Ramctl(photos)("search", "-", "red", stdin=b"{}")
    assert (piped.returncode, "name a file" in piped.messages) == (2, True)


@pytest.mark.parametrize("n_photos", [40, 1500])
def test_duplicates_are_those_that_every_pair_compared_gives(tmp_path, n_photos):
    photo_axes, rng = PhotoAxes.from_bundle(Bundle.open(MINI)), np.random.default_rng(1)
    odds = rng.normal(size=(n_photos, N_AXES)) @ photo_axes.axes.T * 4
    copies = odds[:10].repeat(2, 0) + rng.normal(size=(20, odds.shape[1])) / 20
    scores = 1 / (1 + np.exp(-np.concatenate([odds, copies])))
    embedded = enumerate(map(photo_axes.encode, scores))
    rows = ({"image": f"{number}.jpg", "embedding": own} for number, own in embedded)
    found = PhotoSearch(write_records(tmp_path / FILE, rows)).duplicates()
    expected = [[f"{i}.jpg", *(f"{n_photos + 2 * i + k}.jpg" for k in (0, 1))] for i in range(10)]
    assert found == expected


def test_changed_copies_of_photos_are_told_from_other_photos(tmp_path, ramctl):
    sources = sorted((REPOSITORY / "tests/data/pictures").glob("*.jpg"))
    for source in sources:
        photo = Image.open(source).convert("RGB")
        photo.save(tmp_path / source.name)
        photo.resize((int(photo.width * 0.9), int(photo.height * 0.9))).save(
            tmp_path / f"copy-{source.name}", quality=70
        )
        photo.rotate(180).filter(ImageFilter.FIND_EDGES).save(tmp_path / f"other-{source.name}")
    photos = [path.name for path in tmp_path.glob("*.jpg")]
    ramctl("tag", *photos, "--embedding", "-o", FILE, cwd=tmp_path)
    groups = [row["images"] for row in ramctl("search", FILE, "--duplicates", cwd=tmp_path).rows]
    assert sorted(map(sorted, groups)) == sorted(
        sorted([source.name, f"copy-{source.name}"]) for source in sources
    )


def test_texts_name_labels_by_their_longest_names_and_inflections():
    labels = Bundle.open(MINI).labels
    tags = {labels[i].tag for i in labels_in_text("Two dogs walked over ice", labels.ids)}
    assert {"dog", "walk"} <= tags
    assert labels_in_text("", labels.ids) == labels_in_text("!?", labels.ids) == set()
    others = {"海滩": [1], "狗": [2], "row house": [3], "海": [4]}
    assert labels_in_text("海滩上的狗, row house", lambda name: others.get(name, [])) == {1, 2, 3}


def test_words_of_other_languages_find_what_labels_are_called_there(search):
    assert names(search("蓝色", "-n", "1")) == ["blue.png"]
    assert search("蓝色").stdout != search("blue").stdout  # without the text's embedding


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


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 65504])
def test_a_vector_that_no_photo_has_is_a_reject_and_spoils_no_answer(search, photos, number):
    lines = (photos / FILE).read_text().splitlines(keepends=True)
    row = json.loads(lines[0])
    stamp, _, text = row["embedding"].partition(":")
    vector = np.frombuffer(base64.b64decode(text), "<f2").copy()
    vector[0] = number
    packed = base64.b64encode(vector.tobytes()).decode()
    odd = json.dumps(row | {"image": "odd.png", "embedding": f"{stamp}:{packed}"}) + "\n"
    for question in (["red"], ["--like", "red.png"], ["--duplicates"]):
        (photos / FILE).write_text("".join(lines))
        expected = search(*question)
        (photos / FILE).write_text("".join([lines[0], odd, *lines[1:]]))
        done = search(*question)
        assert done.rows == expected.rows and expected.returncode == 0
        assert done.returncode == 3
        assert f"{FILE}:2: embedding is not of `ramctl tag`" in done.messages
    with pytest.raises(RunProblem, match=f"{FILE}:2: embedding is not of"):
        PhotoSearch(photos / FILE, str(search.args[2]))


def test_vectors_of_the_surest_scores_are_a_photos(model):
    axes = PhotoAxes.from_bundle(Bundle.open(model))
    for scores in (np.ones(len(LABELS)), np.zeros(len(LABELS))):
        assert np.linalg.norm(axes.vector(scores)) <= axes.max_length
