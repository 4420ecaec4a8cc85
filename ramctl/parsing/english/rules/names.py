"""Names that are read as things: of people, places, makers, firms and programs."""

from ramctl.parsing.english.lexicon import Lexicon, word_set
from ramctl.parsing.english.rules.sentence import ADJECTIVES, NOUNS, Rule, Sentence, Span

# How many words a maker and a model have before the model's number.
MAX_MODEL = 3


def _name(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    """Capitalised words beside each other, one of which is no common word: "Rose Byrne"."""
    if sentence.is_title or not sentence.is_capital(i) or _is_in_name(sentence, i - 1):
        return None
    end = _name_end(sentence, i)
    words = sentence.words[i:end]
    if len(words) < 2 or all(_is_common(word, lexicon) for word in words):
        return None
    while i < end and _is_before_name(sentence, i, lexicon):
        i += 1
    last = sentence.words[end - 1]
    if lexicon.noun_kind(last) == "scene" or last in lexicon.landmarks:
        end -= 1  # "Abbey Road": the road is there
    return (i, end) if i < end else None


def _is_in_name(sentence: Sentence, i: int) -> bool:
    return sentence.is_capital(i) and sentence.tags[i] in NOUNS | ADJECTIVES | {"VBG", "VBN", "VB"}


def _name_end(sentence: Sentence, i: int) -> int:
    while _is_in_name(sentence, i):
        i += 1
    return i


def _is_common(word: str, lexicon: Lexicon) -> bool:
    """Whether a word is more than a name."""
    lemma = lexicon.noun(word)
    known = lexicon.is_plain_adjective(word) or lexicon.is_plain_verb(word)
    return known or (lexicon.is_plain_noun(lemma) and not lexicon.is_only_name(lemma))


def _is_before_name(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a word describes the name after it: "President", "Red"."""
    word = sentence.words[i]
    if word in lexicon.given_names:
        return False
    shown = lexicon.scenes | lexicon.landmarks
    described = word in lexicon.colors | lexicon.visible_adjectives | shown
    return described or lexicon.first_file(lexicon.noun(word)) == "noun.person"


def _named_thing(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    """A name of several words that WordNet has: "Little Rock"; in "Salt Lake City" is a city."""
    length = lexicon.compounds.length_at(sentence.words, i)
    if length == 1 or not (sentence.is_capital(i) and sentence.is_capital(i + length - 1)):
        return None
    if not lexicon.is_only_name(" ".join(sentence.words[i : i + length])):
        return None
    if sentence.words[i] in lexicon.landmarks:
        return i + 1, i + length  # "River Avon"
    head = sentence.words[i + length - 1]
    is_there = lexicon.noun_kind(head) == "scene" or lexicon.first_file(head) == "noun.artifact"
    return i, i + length - is_there


def _maker(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    """A brand before its model: "Apple MacBook"; "Apple Pie" is a pie."""
    if not sentence.is_capital(i):
        return None
    numbered = sentence.skip(i + 1, NOUNS | ADJECTIVES)
    is_model = all(map(sentence.is_capital, range(i, numbered)))
    if is_model and numbered <= i + MAX_MODEL and sentence.tag(numbered) == "CD":
        return i, numbered  # "Nike Air Max 90"
    model = sentence.word(i + 1)
    if sentence.written[i + 1 : i + 2] == [model] and not model.isdigit():
        return None
    if lexicon.is_listed(f"{sentence.words[i]} {model}"):
        return None
    return i, i + 1


def _place(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    """The name of a place: "at Brown Chapel" is a chapel."""
    if sentence.is_title or sentence.word(i - 1) not in lexicon.at_place:
        return None
    end = _name_end(sentence, i)
    if end < i + 2:
        return None
    is_there = lexicon.noun_kind(lexicon.noun(sentence.words[end - 1])) == "scene"
    return (i, end - 1) if is_there else None


def _address(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    start = sentence.name_start(i)
    return (start, i) if start < i and sentence.tag(start - 1) == "CD" else None


def _company(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    start = i
    while _is_in_name(sentence, start - 1):
        start -= 1
    return (start, i + 1) if start < i and sentence.is_capital(i) else None


def _aged(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    start = i
    while sentence.is_capital(start - 1) and sentence.tags[start - 1] in NOUNS | ADJECTIVES:
        start -= 1
    is_age = sentence.word(i + 1).isdigit() and sentence.word(i + 2) == ","
    return (start, i) if is_age and start == i - 2 else None


def _officer(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    is_capitalised = all(map(sentence.is_capital, range(i, i + 3)))
    if not is_capitalised or lexicon.first_file(sentence.words[i]) != "noun.person":
        return None
    first, last = sentence.words[i + 1 : i + 3]
    is_name = not _is_common(first, lexicon) and sentence.tags[i + 2] in NOUNS
    return (i + 1, i + 3) if is_name and not lexicon.is_listed(f"{first} {last}") else None


def _program(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    """A program among the keywords of a prompt: "a fox, blender, octane"."""
    alone = sentence.tag(i - 1) in ("", ",") and sentence.tag(i + 1) in ("", ",", ".")
    return (i, i + 1) if alone else None


def _rival(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    return (i, i + 1) if sentence.is_capital(i) and sentence.word(i - 1) in lexicon.rivals else None


RULES = (
    Rule("named thing", _named_thing, "The skyline of Salt Lake City", "a lake and a city",
         NOUNS | ADJECTIVES),
    Rule("maker", _maker, "Apple MacBook on a desk", "Apple Pie on a Desk", word_set("makers")),
    Rule("company", _company, "A bag of Blue Whale Brewing Co.", "A blue whale and co.",
         {"co", "co.", "inc", "inc.", "ltd", "ltd.", "llc", "gmbh"}),
    Rule("named place", _place, "a girl lights a candle at Brown Chapel",
         "a girl lights a candle at a brown chapel", NOUNS | ADJECTIVES),
    Rule("address", _address, "A house at 14 Maple Street", "A maple on 14 streets",
         word_set("streets")),
    Rule("name and age", _aged, "Rose Parks, 91, lights a candle", "Two Parks, 3 lakes", {","}),
    Rule("officer", _officer, "Minister Petra Stone Opens a Bridge",
         "Minister of Stone Opens a Bridge", NOUNS),
    Rule("name", _name, "Rose Byrne smiles at a child", "Rose and byre in a garden",
         NOUNS | ADJECTIVES),
    Rule("program", _program, "a fox in a forest, blender", "a blender on a counter",
         word_set("programs")),
    Rule("rival", _rival, "A player scores against City.", "A boy leans against a wall.", NOUNS),
)  # fmt: skip
