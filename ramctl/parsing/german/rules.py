"""Words of a German caption to tags: first what gives none, then each word by the lists."""

from collections.abc import Callable, Iterator

from ramctl.parsing.captions import Found
from ramctl.parsing.german.lexicon import Lexicon
from ramctl.parsing.rule_table import Rule, RuleTable

Span = tuple[int, int] | None
QUOTES = frozenset({'"', "\u201e", "\u201c", "\u201d", "\u00bb", "\u00ab"})


class Exclusion(Rule[Callable[[list[str], int, Lexicon], Span]]):
    """The words of the span that `pattern` finds at an index give no tags."""

    layer = "exclusion"


def find_tags(written: list[str], lexicon: Lexicon) -> Iterator[Found]:
    """Every tag of a caption, with the rule that gives it."""
    words = [word.lower() for word in written]
    excluded = excluded_words(words, lexicon)
    for i, word in enumerate(words):
        if i in excluded or word in lexicon.words["vague"] or word in lexicon.words["articles"]:
            continue
        # In German a noun is capitalised, and nothing else within a sentence.
        is_capital = written[i][:1].isupper()
        noun = lexicon.known_noun(word)
        if noun and (is_capital or not lexicon.known_verb(word)):
            yield Found(i, noun, lexicon.noun_kind(noun), written[i], "noun")
        elif attribute := lexicon.known_adjective(word):
            yield Found(i, attribute, "attribute", written[i], "adjective")
        elif (verb := lexicon.known_verb(word)) and (not is_capital or i == 0):
            yield Found(i, verb, "action", written[i], "verb")


def excluded_words(words: list[str], lexicon: Lexicon) -> dict[int, str]:
    """The words that give no tags, by index, each with the name of the rule."""
    excluded: dict[int, str] = {}
    for i, word in enumerate(words):
        for rule in RULES.rows_at(word):
            if i not in excluded and (span := rule.pattern(words, i, lexicon)):
                excluded |= dict.fromkeys(range(*span), rule.name)
    return excluded


def _phrase_end(words: list[str], i: int, lexicon: Lexicon) -> int:
    """The index after the articles, attributes and nouns from an index on."""
    while i < len(words) and (
        words[i] in lexicon.words["articles"]
        or lexicon.known_adjective(words[i])
        or lexicon.known_noun(words[i])
    ):
        i += 1
    return i


def _negation(words: list[str], i: int, lexicon: Lexicon) -> Span:
    end = _phrase_end(words, i + 1, lexicon)
    while end + 1 < len(words) and words[end] in lexicon.words["joins"]:
        if words[end + 1] in lexicon.words["articles"]:
            break  # "ohne Hut und ein Hund": the dog is there
        further = _phrase_end(words, end + 1, lexicon)
        if further == end + 1:
            break
        end = further
    return i, end


def _comparison(words: list[str], i: int, lexicon: Lexicon) -> Span:
    return i, _phrase_end(words, i + 1, lexicon)


def _idiom(words: list[str], i: int, lexicon: Lexicon) -> Span:
    ends = (i + idiom.count(" ") + 1 for idiom in _idioms_at(words, i, lexicon))
    end = max(ends, default=i)
    return (i, end) if end > i else None


def _idioms_at(words: list[str], i: int, lexicon: Lexicon) -> list[str]:
    text = " ".join(words[i:]) + " "
    return [idiom for idiom in lexicon.words["idioms"] if text.startswith(f"{idiom} ")]


def _quotation(words: list[str], i: int, lexicon: Lexicon) -> Span:
    closing = (k for k in range(i + 1, len(words)) if words[k] in QUOTES)
    end = next(closing, None)
    return None if end is None else (i, end + 1)


_LISTS = Lexicon.shared().words
RULES = RuleTable((
    Exclusion("quotation", _quotation, "Ein Schild mit \u201eRote Rosen\u201c",
         "Ein Schild mit Rosen", QUOTES),
    Exclusion("idiom", _idiom, "Ein Hund im Hintergrund", "Ein Hund im Garten",
         frozenset(idiom.split()[0] for idiom in _LISTS["idioms"])),
    Exclusion("negation", _negation, "Ein Mann ohne Hut", "Ein Mann mit Hut",
         frozenset(_LISTS["negators"])),
    Exclusion("comparison", _comparison, "Wolken wie Berge", "Wolken und Berge",
         frozenset(_LISTS["likened"])),
))  # fmt: skip
