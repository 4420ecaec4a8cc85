"""Words that give no tags: idioms, negated, compared and awaited things, written text."""

from ramctl.parsing.dictionary.lexicon import Lexicon, word_set
from ramctl.parsing.rules.sentence import ADJECTIVES, BOUNDARIES, NOUNS, VERBS, Sentence

NEGATORS = word_set("negators")
FREE_OF = frozenset({"free", "empty", "devoid", "lack", "absence", "instead", "void", "absent"})
# Words before "to" and an action that does not happen.
UNDONE = frozenset({"fail", "refuse", "decline", "unable", "forget"})
QUOTES_OPEN = frozenset({"``", "''"})
QUOTES = frozenset({'"', "\u201c", "\u201d"})
WRITES = frozenset({"say", "read", "spell", "state"})
WRITTEN_ON = word_set("written_on")
AWAITED = word_set("awaited")
BARE_PHRASE_STARTS = NOUNS | {"DT", "PRP$", "CD"}
# Words between a noun and itself: "hand in hand", "face to face".
BETWEEN_REPEATED = frozenset({"in", "to"})
AFTER_FIGURE = BETWEEN_REPEATED | {"of"}
SIGNS = frozenset({"sign", "signs", "symbol", "symbols", "zone"})


def exclude_words(sentence: Sentence, lexicon: Lexicon) -> None:
    """Mark the words that give no tags, each with the name of the rule."""
    _exclude_idioms(sentence, lexicon)
    _exclude_quotations(sentence)
    for i, word in enumerate(sentence.words):
        if sentence.excluded[i]:
            continue
        if sentence.word(i + 1) in AFTER_FIGURE and sentence.tags[i] in NOUNS:
            _exclude_figure(sentence, i, lexicon)
        elif word in NEGATORS:
            _exclude_negated(sentence, i)
        elif (word == "of" and sentence.word(i - 1) in FREE_OF) or (
            word == "than" and sentence.word(i - 1) == "rather"
        ):
            sentence.exclude(i, _bare_list_end(sentence, i), "negation")
        elif word == "free" and sentence.tag(i - 1) in NOUNS and sentence.tag(i + 1) in NOUNS:
            sentence.exclude(i - 1, i + 1, "negation")  # "a traffic free zone"
        elif word == "missing" and sentence.tag(i + 1) in BARE_PHRASE_STARTS:
            sentence.exclude(i, sentence.phrase_end(i + 1), "negation")
        elif word == "to" and _verb_before(sentence, i, lexicon) in UNDONE:
            sentence.exclude(i, max(sentence.phrase_end(i + 2), i + 2), "negation")
        elif word == "like" and sentence.tags[i] == "IN":
            _exclude_compared(sentence, i, lexicon)
        elif word in ("for", "of", "about", "after"):
            if f"{_verb_before(sentence, i, lexicon)}={word}" in AWAITED:
                sentence.exclude(i, sentence.phrase_end(i + 1), "awaited")
        elif word == "shades" and sentence.tag(i - 1) in ADJECTIVES:
            sentence.exclude(i, i + 1, "shade of a colour")
        elif word == "blues" and not _is_beside_color(sentence, i, lexicon):
            sentence.exclude(i, i + 1, "music style")
        elif sentence.tags[i] in VERBS and lexicon.verb(word) in WRITES:
            _exclude_written(sentence, i, lexicon)


def _exclude_idioms(sentence: Sentence, lexicon: Lexicon) -> None:
    i = 0
    while i < len(sentence):
        length = lexicon.idioms.length_at(sentence.words, i)
        if length > 1:
            sentence.exclude(i, i + length, "idiom")
        i += length


def _exclude_figure(sentence: Sentence, i: int, lexicon: Lexicon) -> None:
    """Exclude a noun that is no thing here: "hand in hand", "a sea of people", "ears of corn"."""
    words, lemma = sentence.words, lexicon.noun(sentence.words[i])
    if sentence.word(i + 1) != "of":
        if words[i] == sentence.word(i + 2) and sentence.word(i - 1) != "from":
            sentence.exclude(i, i + 3, "idiom")
        return
    end = sentence.phrase_end(i + 2)
    if f"{lemma}={lexicon.noun(words[end - 1])}" in word_set("figures"):
        sentence.exclude(i, i + 1, "figure of speech")


def _exclude_quotations(sentence: Sentence) -> None:
    opened = None
    for i, word in enumerate(sentence.words):
        if word not in QUOTES and (sentence.tags[i] not in QUOTES_OPEN or word == "'"):
            continue
        if opened is None:
            opened = i
        else:
            sentence.exclude(opened, i + 1, "quotation")
            opened = None


def _exclude_negated(sentence: Sentence, i: int) -> None:
    words, start = sentence.words, i
    if sentence.word(i + 1) in ("only", "just"):
        return
    i = sentence.skip(i + 1, ("RB", "RBR")) - 1  # "no longer holding", "not really wet"
    end = sentence.phrase_end(i + 1)
    if words[start] == "no" and words[end - 1] in SIGNS:
        sentence.exclude(start, end - 1, "negation")
        return
    to_do = sentence.tag(i + 1) == "TO"  # "hoping not to fall"
    if end == i + 1 and sentence.tag(end + to_do) in VERBS:
        end += to_do
        end = sentence.phrase_end(end + 1)
    if end == i + 1 and sentence.tag(end).startswith("JJ"):
        end += 1
    while sentence.word(end) in ("or", "nor") or (
        words[start] in ("no", "without")
        and sentence.word(end) == ","
        and _continues(sentence, end)
    ):
        end = max(sentence.phrase_end(end + 1), end + 1)
    sentence.exclude(start, end, "negation")


def _bare_list_end(sentence: Sentence, i: int) -> int:
    """The index after the noun phrase that follows a word, and after bare nouns joined to it."""
    end = sentence.phrase_end(i + 1)
    while sentence.word(end) in ("and", "or") and sentence.tag(end + 1) in NOUNS:
        end = sentence.phrase_end(end + 1)
    return end


def _continues(sentence: Sentence, comma: int) -> bool:
    """Whether a list of bare nouns that ends in "or" goes on after a comma."""
    end = sentence.phrase_end(comma + 1)
    return end > comma + 1 and sentence.word(end) == "or"


def _exclude_compared(sentence: Sentence, i: int, lexicon: Lexicon) -> None:
    # "looks like clear plastic" only hedges: the plastic is there.
    if lexicon.verb(sentence.word(i - 1)) in ("look", "feel", "appear", "seem"):
        return
    sentence.exclude(i, sentence.phrase_end(i + 1), "comparison")


def _verb_before(sentence: Sentence, i: int, lexicon: Lexicon) -> str:
    k = i - 1
    while k > 0 and sentence.tags[k] in ("RB", "RP"):
        k -= 1
    return lexicon.verb(sentence.word(k))


def _is_beside_color(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a colour is named nearby: "greens and blues"."""
    near = sentence.words[max(i - 3, 0) : i] + sentence.words[i + 1 : i + 4]
    return any(word in lexicon.colors or lexicon.noun(word) in lexicon.colors for word in near)


def _exclude_written(sentence: Sentence, i: int, lexicon: Lexicon) -> None:
    k = i - 1
    while k >= 0 and sentence.tags[k] in ("RB", "WDT", "MD", "VBZ", "DT", "IN"):
        if sentence.words[k] in ("that", "which"):
            break
        k -= 1
    writer = sentence.word(k)
    if writer in ("that", "which"):
        writer = sentence.word(k - 1)
    if sentence.tag(i + 1) in ("DT", "PRP$"):
        return
    if lexicon.noun(writer) not in WRITTEN_ON and sentence.tag(i + 1) not in QUOTES_OPEN:
        return
    end = i + 1
    if sentence.word(end) == ",":
        end = len(sentence)
    while (
        end < len(sentence) and sentence.tags[end] not in BOUNDARIES and sentence.tags[end] != "IN"
    ):
        end += 1
    sentence.exclude(i, end, "written text")
