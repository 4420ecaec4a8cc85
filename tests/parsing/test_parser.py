"""Captions to tags: the guidelines' worked examples, one class of difficulty a test."""

import json
import subprocess
import sys

import pytest

from ramctl.parsing.parsed_caption import is_english
from ramctl.parsing.parser import CHARACTERS, CaptionParser, batches
from tests.support import DATA, read_rows, write_records


@pytest.fixture(scope="module")
def parser() -> CaptionParser:
    return CaptionParser.open()


EXAMPLES = {
    "empty wooden bench with piles of twigs in front of some parked cars": (
        "empty wooden bench pile twig parked car"
    ),
    "a black and white photo of a woman walking down a street": (
        "black_and_white woman walk street"
    ),
    "A black and white dog runs.": "black white dog run",
    "a boy without shoes is about to kick a soccer ball": "boy kick soccer_ball",
    "three musicians, one in black, look at the camera": "musician black look",
    "bacon-wrapped hot dogs on a grill at a summer party": "bacon hot_dog grill summer party",
    "Man taking a photograph of a dog": "man photograph dog",
    'a shirt that says "no parking"': "shirt",
    "A mountain covered with snow": "mountain snow",
    "a glass vase and wine glasses": "glass vase wine_glass",
    "two glasses of beer on a table": "glass beer table",
    "A man without a hat sits on a bench": "man sit bench",
    "a man in a teddy bear costume by a fire hydrant": "man teddy_bear costume fire_hydrant",
    "bodies of water seen from a building": "body_of_water building",
    "An eye-level shot of a table topped with plates, facing the viewer": "table plate face",
    "the words \u201cKids Camping\u201d in a lighter shade of gray": "word gray",
    "an old steam locomotive pulling cars": "steam_locomotive pull car",
    "a street devoid of cars and people": "street",
    "a man who is no longer holding the ball": "man",
    "a bowl instead of flowers on the table": "bowl table",
    "two girls walk hand in hand": "girl walk",
    "a bird's eye view of a city": "city",
    "autumn leaves on a green wall": "autumn leaf green wall",
    "a red, white and blue flag": "red white blue flag",
    "two pangolins playing basketball": "pangolin play basketball",
    "a person, left, shops with her family": "person shop family",
    "an abstract close up of a tree roots": "abstract tree root",
    "a fox, a blender, a mixer": "fox blender mixer",
    "a man in a straw hat": "man straw straw_hat",
    "a warm welcome": "",
    "Dell XPS 13 laptop on a table": "laptop table",
    "DSC_0192.JPG girl blowing bubbles": "girl blow bubble",
    "A bamboo cutting board and stained glass windows": (
        "bamboo cutting_board stained_glass_window"
    ),
    "The dog is as white as snow, no bigger than a teacup.": "dog white",
    "The composition is balanced, and the image presents a cat.": "cat",
    "a room with no chairs, tables or lamps": "room",
    "heart shaped": "heart_shaped",
    "a grey tyre": "gray tire",
    "A &lt;b&gt;dog&lt;/b&gt; &amp; a ball https://a.b/cat": "dog ball",
    " 1234 \U0001f600 一只狗在草地上": "",
    # A credit stands behind what is seen, at its end.
    "A bride. Photo: Amber Fields": "bride",
    # A maker's name and a number have a model between them, of few capitalised words.
    "Ford Truck Wheel 3 in a garage": "garage",
    "Apple Picking Ladder Basket Barn 2": "barn",
}


@pytest.mark.parametrize("caption", EXAMPLES)
def test_a_caption_gives_its_tags(parser, caption):
    assert parser.tags(caption) == [tag.replace("_", " ") for tag in EXAMPLES[caption].split()]


def test_a_parsed_tag_parses_to_itself(parser):
    tags = {tag for caption in EXAMPLES for tag in parser.tags(caption)}
    wrong = {tag: parser.tags(tag) for tag in tags if parser.tags(tag) != [tag]}
    assert not wrong


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "f1", "forbidden"),
    [
        ("public", 0.99, 3),
        ("random", 0.98, 4),
        ("written", 0.98, 3),
        ("trap", 0.93, 36),
        ("apart", 0.96, 17),
    ],
)
def test_the_gold_standards_are_reached(parser, shared, tmp_path, name, f1, forbidden):
    script = shared / "data" / "gold" / "score.py"
    public = shared / "data" / "gold" / "parse_gold_public.jsonl"
    source = public if name == "public" else DATA / "parse_gold.jsonl"
    rows = [row for row in read_rows(source) if name in ("public", row["stratum"])]
    parsed = parser.parse(row["caption"] for row in rows)
    predicted = [
        {"id": row["id"], "tags": caption.tags, "kinds": caption.kinds}
        for row, caption in zip(rows, parsed, strict=True)
    ]
    files = [write_records(tmp_path / "gold", rows), write_records(tmp_path / "tags", predicted)]
    done = subprocess.run(
        [sys.executable, script, *files, "--json"], capture_output=True, check=True
    )
    score = json.loads(done.stdout)
    assert score["f1"] >= f1
    assert score["forbidden_hits"] <= forbidden
    assert score["kind_accuracy"] >= 0.95


def test_paragraphs_are_tagged_a_few_at_a_time_and_all_in_order():
    texts = ["a dog"] * 300 + ["a cat on a mat " * 300] * 9 + ["x" * (CHARACTERS + 1), "a bird"]
    found = list(batches(texts))
    assert [text for batch in found for text in batch] == texts
    assert [len(batch) for batch in found] == [256, 47, 3, 3, 1, 1]


PARTS = ["\U0001f600", "no dog or ", "' s ", "a", "<"]


@pytest.mark.parametrize("part", PARTS)
def test_a_long_caption_of_anything_comes_to_an_end(parser, part):
    assert len(parser.tags((part * 50_000)[:50_000])) <= 2


ENGLISH = [
    "two men carying surfbords", "a shiba inu", "Sangre de Cristo Mountains, New Mexico",
    "La Sagrada Familia in Barcelona", "sitting in a van", "orange m & m candies for wheels",
    "https://example.com/xyz/qwzz_abc.jpg", "", "2019 Volkswagen Golf GTI", "Un",
]  # fmt: skip
OTHERS = [
    "Un chat", "Une petite fille blonde tient un sandwich.", "Ein Hund läuft am Strand.",
    "Gato mirando por la ventana", "Un cane corre sulla spiaggia.", "犬がビーチを走っている",
    "Собака бежит по пляжу",
]  # fmt: skip


@pytest.mark.parametrize("text", [*ENGLISH, *OTHERS])
def test_other_languages_are_noticed_and_names_slips_and_single_words_pass(text):
    assert is_english(text) == (text in ENGLISH)
