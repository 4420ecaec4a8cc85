"""Captions to tags: the guidelines' worked examples, one class of difficulty a test."""

import json
import subprocess
import sys

import pytest

from ramctl.parsing.parser import CHARACTERS, CaptionParser, batches
from tests.support import DATA


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
    "Two women ride horses while children watch.": "woman ride horse child watch",
    "a man wearing sunglasses and black shorts": "man wear sunglasses black shorts",
    "A group of people surfing": "person surf",
    "clouds like mountains over a field": "cloud field",
    "Man taking a photograph of a dog": "man photograph dog",
    "the highway cuts the suburb in half .": "highway suburb",
    'a shirt that says "no parking"': "shirt",
    "a man waiting for a bus": "man",
    "hard rock artist performs": "artist perform",
    "A mountain covered with snow": "mountain snow",
    "a snow covered mountain": "snow mountain",
    "seated man": "sit man",
    "a glass vase and wine glasses": "glass vase wine_glass",
    "a man in a teddy bear costume by a fire hydrant": "man teddy_bear costume fire_hydrant",
    "A large red truck parks in front of a building.": "red truck park building",
    "bodies of water seen from a building": "body_of_water building",
    "a woman with a knife cuts pepper on a board": "woman knife cut pepper board",
    "spoon lying on the table": "spoon lie table",
    "flat green leaves above a chef hat": "flat green leaf hat",
    "a man hoping not to fall near syringes": "man syringe",
    "An eye-level shot of a table topped with plates, facing the viewer": "table plate face",
    "the words \u201cKids Camping\u201d in a lighter shade of gray": "word gray",
    "a locomotive at a station": "locomotive station",
    "an old steam locomotive pulling cars": "steam_locomotive pull car",
    "a man with a tattoo near a fire hydrant": "man tattoo fire_hydrant",
    "two geese in the wild near a metal can": "goose wild metal can",
    "an official looks on at a street fair": "official look fair",
    "a square box and a flat, round dish": "square box flat round dish",
    "a girl with a dark gray shirt looking nice": "girl gray shirt",
    "a play area absent of any children": "play_area",
    "a dog that lacks a collar": "dog",
    "a bench with nobody sitting on it": "bench",
    "a man who is no longer holding the ball": "man",
    "a bear that is not eating but sleeping": "bear sleep",
    "a street devoid of cars and people": "street",
    "a bowl instead of flowers on the table": "bowl table",
    "two girls walk hand in hand": "girl walk",
    "a sea of people and a flight of stairs": "person stairs",
    "two ears of corn and a deck of cards": "corn card",
    "a bird's eye view of a city": "city",
    "a smiling sloth": "smile sloth",
    "rolling green hills": "green hill",
    "autumn leaves on a green wall": "autumn leaf green wall",
    "a man leaves in a car": "man leave car",
    "Man leaves.": "man leave",
    "The softness of the fabric stands in contrast.": "fabric",
    "an abstract close up of a tree roots": "abstract tree root",
    "A boy drawing in a notepad": "boy draw notepad",
    "member wears a robe and hat with designs": "wear robe hat design",
    "a badger sniffing a yellow rose next to a tree": "badger sniff yellow rose tree",
    "a red, white and blue flag": "red white blue flag",
    "singer and blues artist performing": "singer artist perform",
    "two pangolins playing basketball": "pangolin play basketball",
    "a school of small fish": "school fish",
    "a person, left, shops with her family": "person shop family",
    "family members beside a mirror frame": "family mirror",
    "a pirate themed party": "pirate_themed party",
    "a matte black television": "matte black television",
    "a cake shaped like a train": "cake",
    "a man in a military uniform": "man military_uniform",
    'a "hot dog" on a plate': "plate",
    "a street without cars or dogs": "street",
    "a statue of president Abraham Lincoln": "statue president",
    "glasses of beer on a table": "glass beer table",
    "an ice cream cone on a plate": "ice_cream_cone plate",
    "a man in a straw hat": "man straw straw_hat",
    "a riding helmet on a shelf": "helmet shelf",
    "a warm welcome": "",
    "a man folded a shirt": "man fold shirt",
    "muted blues and greens on a wall": "muted blue green wall",
    "Jack Black plays guitar on the Late Show": "play guitar",
    "Salt Lake City skyline at dusk": "skyline dusk",
    "Dell XPS 13 laptop on a table": "laptop table",
    "DSC_0192.JPG girl blowing bubbles": "girl blow bubble",
    "a bowl of bibimbap and a pixar style": "bowl bibimbap",
    "A bamboo cutting board and stained glass windows": (
        "bamboo cutting_board stained_glass_window"
    ),
    "The dog is as white as snow, no bigger than a teacup.": "dog white",
    "The composition is balanced, and the image presents a cat.": "cat",
    "a corgi astronaut and a cricket player": "corgi astronaut player",
    "a room with no chairs, tables or lamps": "room",
    # A credit stands behind what is seen, at its end.
    "Photo: Dogs": "dog",
    "A lawn. Photo: Dogs run": "lawn dog run",
    "A lawn, photo: Amber Fields.": "lawn",
    "A bride. Photo: Amber Fields": "bride",
    # A maker's name and a number have a model between them, of few capitalised words.
    "Ford Truck Wheel 3 in a garage": "garage",
    "Apple Picking Ladder Basket Barn 2": "barn",
    "Nike shoes 5 on a box": "shoe box",
}


@pytest.mark.parametrize("caption", EXAMPLES)
def test_a_caption_gives_its_tags(parser, caption):
    assert parser.tags(caption) == [tag.replace("_", " ") for tag in EXAMPLES[caption].split()]


def test_every_tag_has_a_kind_and_its_words_and_rules(parser):
    first, second = parser.parse(
        ["Two dogs sit on a sunny beach by a dog.", "His left hand grips a wrench."]
    )
    kinds = {"dog": "object", "sit": "action", "sunny": "attribute", "beach": "scene"}
    assert first.kinds == kinds
    assert [(mention.words, mention.rule) for mention in first.mentions] == [
        ("dogs", "noun"), ("sit", "verb"), ("sunny", "adjective"), ("beach", "noun"),
    ]  # fmt: skip
    rules = {mention.tag: mention.rule for mention in second.mentions}
    assert rules == {"hand": "noun", "grip": "verb, by doing to it", "wrench": "noun"}


@pytest.mark.parametrize("tag", ["top", "view", "heart shaped", "fire hydrant", "photograph"])
def test_a_tag_alone_is_itself(parser, tag):
    assert parser.tags(tag) == [tag]


def test_what_has_no_words_gives_no_tags(parser):
    for caption in ("", " ", "1234", "\U0001f600\U0001f600", "一只狗在草地上", "&lt;b&gt;&amp;"):
        assert parser.tags(caption) == []


def test_british_spelling_gives_the_same_tags(parser):
    assert parser.tags("a grey tyre") == parser.tags("a gray tire") == ["gray", "tire"]


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
    rows = [json.loads(line) for line in source.open(encoding="utf-8")]
    rows = [row for row in rows if name in ("public", row["stratum"])]
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parsed = parser.parse(row["caption"] for row in rows)
    with (tmp_path / "predicted.jsonl").open("w") as out:
        for row, caption in zip(rows, parsed, strict=True):
            line = {"id": row["id"], "tags": caption.tags, "kinds": caption.kinds}
            out.write(json.dumps(line) + "\n")
    done = subprocess.run(
        [sys.executable, script, gold, tmp_path / "predicted.jsonl", "--json"],
        capture_output=True, check=True,
    )  # fmt: skip
    score = json.loads(done.stdout)
    assert score["f1"] >= f1
    assert score["forbidden_hits"] <= forbidden
    assert score["kind_accuracy"] >= 0.95


def test_paragraphs_are_tagged_a_few_at_a_time_and_all_in_order():
    texts = ["a dog"] * 300 + ["a cat on a mat " * 300] * 9 + ["x" * (CHARACTERS + 1), "a bird"]
    found = list(batches(texts))
    assert [text for batch in found for text in batch] == texts
    assert [len(batch) for batch in found] == [256, 47, 3, 3, 1, 1]


PARTS = ["\U0001f600", "a-", "\u732b", "runs ", "no dog or ", "' s ", "a", "dog ", "<", "(", "-"]


@pytest.mark.parametrize("part", PARTS)
def test_a_long_caption_of_anything_comes_to_an_end(parser, part):
    assert len(parser.tags((part * 50_000)[:50_000])) <= 2
