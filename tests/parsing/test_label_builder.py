"""Label systems from counts made by hand: merges, ranks, parents, reviews, class lists."""

import pytest

from ramctl.errors import RunProblem
from ramctl.parsing.label_builder import (
    Candidate,
    TagCounts,
    build_labels,
    read_class_list,
    read_review,
    write_review,
)
from ramctl.parsing.parsed_caption import Mention, ParsedCaption


def caption(tags: str, *phrases: str) -> ParsedCaption:
    """A caption with tags separated by spaces, `_` for a space in one, `tag/kind` for its kind."""
    found = []
    for place, text in enumerate(tags.split()):
        tag, _, kind = text.partition("/")
        tag = tag.replace("_", " ")
        found.append(Mention(place, tag, kind or "object", f"{tag}ing", "by hand"))
    return ParsedCaption(tuple(found), phrases)


def build(*captions, decisions=None, listed=None, **sizes):
    """(labels by tag, (decision, of, reason) by tag)."""
    labels, candidates = build_labels(TagCounts(captions), decisions or {}, listed or {}, **sizes)
    found = {label.tag: label for label in labels}
    return found, {c.tag: (c.decision, c.of, c.reason) for c in candidates}


@pytest.mark.parametrize(
    ("label", "other", "is_twin"),
    [
        ("couch", "sofa", True),  # one meaning only
        ("child", "kid", True),  # one main meaning
        ("pants", "pant", True),  # number
        ("flip flops", "flip flop", True),
        ("whiteboard", "white board", True),  # spacing
        ("top hat", "tophat", True),
        ("glass", "glasses", False),
        ("plate", "home plate", False),
        ("greenhouse", "green house", False),
        ("bank", "depository financial institution", False),  # of a river, of money
    ],
)
def test_twins_are_one_label_however_rare_and_what_means_something_else_is_not(
    label, other, is_twin
):
    words = [caption(f"{word.replace(' ', '_')} yard") for word in (label, other)]
    found, fates = build(*[words[0]] * 40, *[words[1]] * (3 if is_twin else 5))
    assert found[label].count == (43 if is_twin else 40)
    assert found[label].synonyms[:1] == ((other,) if is_twin else ())
    assert fates[other][:2] == (("synonym", label) if is_twin else ("label", ""))


def test_a_tag_has_the_kind_of_most_mentions_and_a_free_compound_its_heads():
    fish = [caption("fish/object fish/action"), caption("fish/object")] * 5
    phrases = "brick building", "hotel lobby", "skateboard trick", "red building"
    heads = [caption("building lobby/scene trick/action", *phrases)] * 15
    found, _ = build(*fish, *heads)
    tags = ("fish", "fishing", "brick building", "hotel lobby", "skateboard trick")
    kinds = ["object", "action", "object", "scene", "action"]
    assert [found[tag].kind for tag in tags] == kinds
    assert "red building" not in found  # a colour and a thing
    assert "brick building" not in build(*heads[:14])[0]


def test_a_dictionary_compound_counts_for_its_head():
    found, _ = build(*[caption("golden_retriever teddy_bear")] * 6)
    assert found["retriever"].count == 6
    assert found["golden retriever"].parents[0] == "retriever"
    assert "bear" not in found


def test_vague_odd_and_rare_tags_are_left_out():
    tags = "device dog 3d zq identify/action football"
    found, fates = build(*[caption(tags, "oklahoma football")] * 15, *[caption("cat")] * 4)
    assert found.keys() == {"dog", "football"}
    assert {tag: fates[tag] for tag in fates.keys() - found.keys()} == {
        "device": ("drop", "", "vague object"), "identify": ("drop", "", "vague action"),
        "3d": ("drop", "", "not a word"), "zq": ("drop", "", "too short"),
        "oklahoma football": ("drop", "", "a name"),
    }  # fmt: skip


def test_other_strings_of_a_label_are_its_ing_form_its_game_and_british_spellings():
    found, _ = build(*[caption("tennis/action gray/attribute surf/action")] * 5)
    assert found["tennis"].synonyms == ("tennising", "play tennis", "playing tennis")
    assert found["gray"].synonyms == ("grey",)
    assert found["surf"].synonyms == ("surfing",)


@pytest.mark.parametrize(
    ("tags", "parents"),
    [
        ("saxophone wood reed musical_instrument", {"saxophone": ("musical instrument",)}),
        ("power_plant plant", {"power plant": ()}),
        ("brick_face face", {"brick face": ("face",)}),  # no dictionary has it
        ("navy/attribute blue/attribute amber/attribute", {"navy": ("blue",)}),
        ("poodle dog animal", {"poodle": ("dog", "animal")}),
        ("dog animal organism", {"dog": ("animal",), "animal": ()}),
        ("bike motor_vehicle vehicle toilet room", {"bike": ("vehicle",), "toilet": ()}),
    ],
)
def test_parents_are_reviewed_or_of_the_first_sense(tags, parents):
    found, _ = build(*[caption(tags)] * 5)
    assert {tag: found[tag].parents for tag in parents} == parents


def test_the_review_of_a_person_wins_and_its_counts_are_new(tmp_path):
    decisions = {
        "dog": Candidate("dog", "label", "", "scene", 999, "by hand"),
        "cat": Candidate("cat", "synonym", "dog", "object", 999, "by hand"),
        "unseen": Candidate("unseen", "label", "", "object", 2, "by hand"),
    }
    found, _ = build(*[caption("dog cat")] * 5, decisions=decisions)
    assert (found["dog"].kind, found["dog"].count, found["dog"].synonyms) == ("scene", 10, ("cat",))
    assert found["unseen"].count == 2
    counts, path = TagCounts([caption("sand road")] * 9), tmp_path / "review.tsv"
    labels, candidates = build_labels(counts, {}, {})
    assert labels.ids("sand")
    write_review(path, candidates)
    edited = path.read_text().replace("sand\tlabel\t\t", "sand\tdrop\t\t")
    path.write_text(edited)
    labels, candidates = build_labels(counts, read_review(path), {})
    assert not labels.ids("sand")
    write_review(path, candidates)
    assert path.read_text() == edited
    path.write_text("tag\tdecision\tof\tkind\tcount\treason\ndog\tmaybe\t\tobject\t3\t\n")
    with pytest.raises(RunProblem, match=r"review.tsv:2: needs"):
        read_review(path)


def test_class_lists_come_first_and_the_size_limits_the_others(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("/m/01,Kid\n7\tballs\nn01440764 tench, Tinca tinca\nautomobile\nlorry\n")
    names = read_class_list(path)
    assert names == ["kid", "balls", "tench", "automobile", "lorry"]
    captions = [caption("child ball car road")] * 9 + [caption("kid retriever")] * 6
    labels, found = build(*captions, listed=dict.fromkeys(names, "classes.txt"), size=6)
    assert found["ball"] == ("label", "", "classes.txt")
    assert found["kid"][:2] == ("synonym", "child")
    assert found["tench"] == ("label", "", "classes.txt")
    assert found["automobile"] == ("synonym", "car", "main sense; classes.txt")
    assert found["retriever"] == ("drop", "", "too rare for the size")
    assert labels.keys() == {"child", "ball", "tench", "car", "lorry", "road"}
