"""Remarks on the picture rather than on its contents: figures of speech, use, credit."""

from ramctl.parsing.english.lexicon import Lexicon, word_set
from ramctl.parsing.english.rules.sentence import (
    ADJECTIVES,
    BOUNDARIES,
    DETERMINERS,
    NOUNS,
    VERBS,
    Rule,
    Sentence,
    Span,
    subject_of,
)

FINITE = frozenset({"VBZ", "VBP", "VBD"})
DOES = FINITE | {"VBG"}
# Lexicographer files of abstractions, which do nothing: "the softness of her pose stands in".
ABSTRACT = frozenset({"noun.attribute", "noun.cognition", "noun.feeling", "noun.state",
                      "noun.relation", "noun.motive"})  # fmt: skip
ALIVE = frozenset({"noun.person", "noun.animal", "noun.group", "noun.Tops"})
OURS = frozenset({"gallery", "shop", "store", "website", "site", "blog", "page", "collection"})
VIEWERS = frozenset({"viewer", "viewers", "observer", "onlooker", "beholder"})
CHANGES = frozenset({"turn", "transform", "multiply"})


def _doer(sentence: Sentence, i: int, lexicon: Lexicon) -> str:
    """The noun right before a verb, or before that noun's "of": "the play of light hides"."""
    k = sentence.skip_back(i - 1, {"RB"})
    head = ""
    while sentence.tag(k) in NOUNS and not sentence.excluded[k]:
        head = lexicon.noun(sentence.words[k])
        k = sentence.skip_back(k, NOUNS | ADJECTIVES | DETERMINERS)
        if sentence.word(k) != "of" or lexicon.first_file(head) in ALIVE:
            break
        k -= 1
    is_governed = sentence.tag(k) == "IN" or (k >= 0 and sentence.excluded[k])
    return "" if is_governed else head  # "a boy in a shirt throwing a ball"


def _abstract_doer(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if sentence.tags[i] not in FINITE:
        return None
    doer = _doer(sentence, i, lexicon)
    is_abstract = lexicon.first_file(doer) in ABSTRACT and lexicon.noun_kind(doer) is None
    is_name = doer in lexicon.colors or sentence.is_capital(i - 1)  # "Jack Black plays"
    return (i, i + 1) if is_abstract and not is_name else None


def _lifeless_doer(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    verb = lexicon.verb(sentence.words[i])
    if sentence.tags[i] not in DOES or verb not in lexicon.lifeless_actions:
        return None
    doer = _doer(sentence, i, lexicon)
    return (i, i + 1) if doer and lexicon.first_file(doer) not in {*ALIVE, ""} else None


def _light_doer(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if sentence.tags[i] not in DOES or lexicon.verb(sentence.words[i]) not in lexicon.light_actions:
        return None
    return (i, i + 1) if _doer(sentence, i, lexicon) in lexicon.lights else None


def _to_viewer(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    is_object = sentence.words[i + 1 : i + 2] == ["the"] and sentence.word(i + 2) in VIEWERS
    is_moved = is_object and lexicon.verb(sentence.words[i]) in lexicon.to_viewers
    return (i, i + 3) if is_moved and sentence.tags[i] in VERBS else None


def _into(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    k = sentence.skip_back(i - 1, NOUNS | ADJECTIVES | DETERMINERS)
    changed = k < i - 1 and lexicon.verb(sentence.word(k)) in CHANGES
    if not changed or sentence.tag(k) not in DOES:
        return None
    is_figure = lexicon.first_file(subject_of(sentence, k, lexicon)) not in ALIVE
    return (i, sentence.phrase_end(i + 1)) if is_figure else None


def _becomes(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    start = i + 1 + (sentence.word(i + 1) == "both")
    if sentence.tag(start) not in DETERMINERS | NOUNS:
        return None
    end = sentence.phrase_end(start)
    while sentence.word(end) in ("and", "of") and end < sentence.phrase_end(end + 1):
        end = sentence.phrase_end(end + 1)
    return i, end


def _guard(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    return (i, i + 1) if lexicon.verb(sentence.word(i - 1)) in ("stand", "keep", "hold") else None


def _used_for(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    return (i, sentence.text_end(i + 2, BOUNDARIES)) if sentence.word(i + 1) == "for" else None


def _ours(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    end = sentence.phrase_end(i)
    return (i, end) if sentence.word(end - 1) in OURS else None


def _credit(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if not sentence.is_capital(i + 2):
        return None
    end = _names_end(sentence, i + 2)
    if sentence.word(i + 1) == "by":
        return i, end
    # A credit comes last: "Photo: A dog" is none.
    is_last = i > 0 and sentence.tag(end) in BOUNDARIES | {""}
    return (i, end) if sentence.word(i + 1) == ":" and is_last else None


def _names_end(sentence: Sentence, i: int) -> int:
    """The index after names, also of firms: "Tom Fields/Agency Pool"."""
    while sentence.word(i) == "/" or (sentence.is_capital(i) and sentence.tags[i] not in VERBS):
        i += 1
    return i


def _agency(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    start = sentence.name_start(i)
    known = sentence.word(i - 1) in lexicon.agencies and start < i
    return (start, _names_end(sentence, i)) if known and sentence.is_capital(i + 1) else None


def _unwanted(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    is_prompt = sentence.word(i - 1) == "negative" and sentence.word(i + 1) == ":"
    return (i - 1, len(sentence)) if is_prompt else None


RULES = (
    Rule("doing of an abstraction", _abstract_doer, "Her softness stands in contrast.",
         "A number of people walking.", VERBS),
    Rule("doing of the lifeless", _lifeless_doer, "A bowl fills the frame.", "A man fills a bowl.",
         VERBS),
    Rule("doing of light", _light_doer, "Sunlight dances on the water.",
         "A girl dances on a stage.", VERBS),
    Rule("done to the viewer", _to_viewer, "The road leaves the viewer to wonder.",
         "A man leaves the house.", VERBS),
    Rule("changed into", _into, "Fog turns the hill into an island.",
         "A man turns the hill into an island.", {"into"}),
    Rule("what it becomes", _becomes, "The city becomes a dream of color.", "A dress becomes her.",
         {"become", "becomes", "becoming", "became"}),
    Rule("guard", _guard, "Two dogs stand guard.", "A guard at a gate.", {"guard"}),
    Rule("good for", _used_for, "A cactus drawing, perfect for cards and posters.",
         "A perfect cactus.", {"perfect", "ideal", "suitable"}),
    Rule("ours", _ours, "A bride, more in our gallery.", "Our dog in a gallery.", {"our"}),
    Rule("credit", _credit, "A bride, photography by Amber Fields", "A house by the sea",
         word_set("credited")),
    Rule("agency", _agency, "A bridge. REUTERS/Max Stone", "a man and/or a stone", {"/"}),
    Rule("negative prompt", _unwanted, "a lake, negative prompt: people, boats",
         "a negative of a boat", {"prompt"}),
)  # fmt: skip
