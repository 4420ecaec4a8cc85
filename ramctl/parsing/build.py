"""A label system from the tags of a corpus.

Source: RAM sec. 3.1: frequent tags of parsed captions, synonyms merged, 4,585 labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ramctl.labels import Label, LabelSystem
from ramctl.parsing.counts import TagCounts
from ramctl.parsing.lexicon import VISIBLE_FILES, Lexicon
from ramctl.parsing.synonyms import POS_OF_KIND, Merge, find_merges, rare_synonyms
from ramctl.parsing.wordnet import NOUN, VERB

DECISIONS = ("label", "synonym", "drop")
MAX_LABELS = 4585  # the paper's
MAX_STRINGS = 6500  # about the paper's 6,449 words and phrases
MIN_COUNT = 5
#: The most general hypernyms that people search by; "artifact" and "organism" are none.
EVERYDAY = frozenset({"person", "animal", "plant", "food"})
#: A free compound must be this much more frequent than a word to be a label.
MIN_PHRASE_COUNT = 15
#: The share of its head's mentions that makes a free compound a thing of its own.
MIN_PHRASE_SHARE = 0.002
#: What counts half when labels are ranked: properties (a picture has many, and captions name
#: them by chance), words that no dictionary has, and free compounds whose parts are both tags.
HALF = 0.5
TOO_RARE = "too rare for the size"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a label system may grow, and how often a tag must occur."""

    max_labels: int = MAX_LABELS
    max_strings: int = MAX_STRINGS
    min_count: int = MIN_COUNT


@dataclass(frozen=True, slots=True)
class Candidate:
    """What became of one frequent tag: `decision` is label, synonym or drop, with the reason."""

    tag: str
    count: int
    kind: str
    decision: str
    of: str
    reason: str


@dataclass(frozen=True, slots=True)
class BuiltLabels:
    """A label system, and every candidate with what became of it, in order of rank."""

    labels: LabelSystem
    candidates: list[Candidate]


def build_labels(
    counts: TagCounts,
    lexicon: Lexicon,
    sizes: Sizes,
    decisions: Mapping[str, Candidate] | None = None,
) -> BuiltLabels:
    """The label system of a corpus; `decisions` (tag to what a person decided) win.

    The same counts give the same system.
    """
    decisions = decisions or {}
    ranked = _rank(counts, lexicon, sizes)
    merges = {merge.word: merge for merge in find_merges(counts, lexicon, [t for t, _ in ranked])}
    candidates = [
        replace(decisions[tag], count=count)
        if tag in decisions
        else _decide(tag, count, counts, lexicon, merges)
        for tag, count in ranked
    ]
    candidates += [decisions[tag] for tag in sorted(decisions.keys() - dict(ranked).keys())]
    candidates = _limit(candidates, lexicon, sizes)
    candidates += _rare(candidates, counts, lexicon, sizes)
    return BuiltLabels(_system(candidates, counts, lexicon, sizes), candidates)


def _rank(counts: TagCounts, lexicon: Lexicon, sizes: Sizes) -> list[tuple[str, int]]:
    """(tag, count) of all tags and free compounds that are frequent enough, by rank."""
    found = {tag: n for tag, n in counts.captions.items() if n >= sizes.min_count}
    for form, count in _activities(counts, lexicon).items():
        found.setdefault(form, count)
    for word, count in _parts(counts, lexicon).items():
        if found.get(word, 0) + count >= sizes.min_count:
            found[word] = found.get(word, 0) + count
    for phrase, count in counts.phrases.items():
        head = phrase.rpartition(" ")[2]
        if phrase.partition(" ")[0] in lexicon.colors:
            continue  # "tan dog": both parts are tags
        often = count >= max(MIN_PHRASE_COUNT, sizes.min_count)
        if often and count >= MIN_PHRASE_SHARE * counts.captions[head]:
            found[phrase] = found.get(phrase, 0) + count
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def _activities(counts: TagCounts, lexicon: Lexicon) -> dict[str, int]:
    """-ing names of doings whose base form is mostly a thing: "fishing" beside the `fish`.

    WordNet must know the name: nobody speaks of "sticking" as a doing.
    """
    names = {}
    for tag, gerunds in counts.gerunds.items():
        form, count = min(gerunds.items(), key=lambda item: (-item[1], item[0]))
        is_name = lexicon.wordnet.has(form, NOUN) and form not in counts.captions
        if counts.kind(tag) != "action" and is_name:
            names[form] = count
    return names


def _parts(counts: TagCounts, lexicon: Lexicon) -> Counter[str]:
    """Mentions of words inside compounds.

    The head of a dictionary compound, if it is a kind of it ("golden retriever"), and the
    first noun of a free one ("banquet table").
    """
    parts: Counter[str] = Counter()
    for tag, count in counts.captions.items():
        head = tag.rpartition(" ")[2]
        senses = lexicon.wordnet.entry(tag).senses.get(NOUN, ()) if head != tag else ()
        if not senses or lexicon.noun_kind(head) is None:
            continue
        path = lexicon.wordnet.hypernym_path(senses[0][0])
        if any(head in lexicon.wordnet.synset(number).lemmas for number in path):
            parts[head] += count
    for phrase, count in counts.phrases.items():
        first = phrase.rpartition(" ")[0]
        if first not in lexicon.modifier_tags and lexicon.noun_kind(first) is not None:
            parts[first] += count
    return parts


def _decide(
    tag: str, count: int, counts: TagCounts, lexicon: Lexicon, merges: Mapping[str, Merge]
) -> Candidate:
    kind = counts.kind(tag)
    if tag not in counts.kinds:
        kind = "action" if tag.endswith("ing") else lexicon.noun_kind(tag) or "object"
    if reason := _not_worth_having(tag, kind, lexicon):
        return Candidate(tag, count, kind, "drop", "", reason)
    if merge := merges.get(tag):
        return Candidate(tag, count, kind, "synonym", merge.tag, f"{merge.rule} {merge.likeness}")
    return Candidate(tag, count, kind, "label", "", "frequent")


def _not_worth_having(tag: str, kind: str, lexicon: Lexicon) -> str:
    if not all(part.replace("'", "").isalpha() for part in tag.split()):
        return "not a word"
    if tag.isascii() and len(tag) < 3 and not lexicon.is_plain_noun(tag):
        return "too short"
    return f"vague {kind}" if tag in lexicon.vague_labels[kind] else ""


def _weight(tag: str, kind: str, lexicon: Lexicon) -> float:
    """How much a mention of a label counts in its rank."""
    if kind == "attribute":
        return HALF
    first, _, last = tag.partition(" ")
    if last:
        is_free = lexicon.noun_kind(last) and not lexicon.is_listed(tag)
        return HALF if is_free and lexicon.is_tag_before_noun(first) else 1.0
    return 1.0 if lexicon.is_known(tag) else HALF


def _limit(candidates: list[Candidate], lexicon: Lexicon, sizes: Sizes) -> list[Candidate]:
    """The candidates by rank, with those past the sizes dropped: the lowest ones."""
    kept, labels, strings = [], set[str](), 0
    # A label comes before its synonyms, also where a synonym is the more frequent word.
    rank = {c.tag: c.count * _weight(c.tag, c.kind, lexicon) for c in candidates}
    for c in candidates:
        if c.decision == "synonym" and c.of in rank:
            rank[c.of] = max(rank[c.of], rank[c.tag])
    for candidate in sorted(
        candidates, key=lambda c: (-rank[c.tag], c.decision == "synonym", c.tag)
    ):
        room = strings < sizes.max_strings
        if candidate.decision == "label":
            room = room and len(labels) < sizes.max_labels
        elif candidate.decision == "synonym":
            room = room and candidate.of in labels
        if candidate.decision != "drop" and not room:
            candidate = Candidate(
                candidate.tag, candidate.count, candidate.kind, "drop", "", TOO_RARE
            )
        if candidate.decision == "label":
            labels.add(candidate.tag)
        strings += candidate.decision != "drop"
        kept.append(candidate)
    return kept


def _rare(
    candidates: list[Candidate], counts: TagCounts, lexicon: Lexicon, sizes: Sizes
) -> list[Candidate]:
    """Words below the count that a label needs, as synonyms of labels, while there is room."""
    strings = {c.tag: c.of or c.tag for c in candidates if c.decision != "drop"}
    decided = {c.tag for c in candidates}
    rare = [(tag, n) for tag, n in counts.captions.items() if tag not in decided]
    words = [tag for tag, _ in sorted(rare, key=lambda item: (-item[1], item[0]))]
    merges = rare_synonyms(counts, lexicon, words, strings)
    return [
        Candidate(m.word, counts.captions[m.word], counts.kind(m.word), "synonym", m.tag, m.rule)
        for m in merges[: max(sizes.max_strings - len(strings), 0)]
    ]


def _system(
    candidates: list[Candidate], counts: TagCounts, lexicon: Lexicon, sizes: Sizes
) -> LabelSystem:
    labels = [candidate for candidate in candidates if candidate.decision == "label"]
    synonyms: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.decision == "synonym":
            synonyms.setdefault(candidate.of, []).append(candidate)
    canonical = {label.tag: label.tag for label in labels}
    canonical |= {c.tag: tag for tag, others in synonyms.items() for c in others}
    forms = _other_forms(labels, canonical, counts, lexicon, sizes)
    built = []
    for label in labels:
        others = synonyms.get(label.tag, [])
        built.append(
            Label(
                label.tag,
                label.kind,
                synonyms=(*(other.tag for other in others), *forms.get(label.tag, ())),
                parents=_parents(label, lexicon, canonical),
                count=label.count + sum(other.count for other in others),
            )
        )

    def rank(label: Label) -> tuple[float, str]:
        return -(label.count or 0) * _weight(label.tag, label.kind, lexicon), label.tag

    return LabelSystem(sorted(built, key=rank))


def _other_forms(
    labels: list[Candidate],
    canonical: Mapping[str, str],
    counts: TagCounts,
    lexicon: Lexicon,
    sizes: Sizes,
) -> dict[str, tuple[str, ...]]:
    """Other strings of the labels: "surfing", "play tennis", British spellings."""
    british: dict[str, list[str]] = {}
    for form, lemma in lexicon.british.items():
        british.setdefault(lemma, []).append(form)
    room = sizes.max_strings - len(canonical)
    taken = set(canonical)
    forms: dict[str, tuple[str, ...]] = {}
    for label in labels:
        gerunds = counts.gerunds.get(label.tag, Counter()) if label.kind == "action" else Counter()
        found = sorted(form for form, n in gerunds.items() if n >= sizes.min_count)
        found += british.get(label.tag, [])
        if lexicon.is_game(label.tag):
            found += [f"play {label.tag}", f"playing {label.tag}"]
        free = [form for form in found if form not in taken][:room]
        taken.update(free)
        room -= len(free)
        forms[label.tag] = tuple(free)
    return forms


def _parents(label: Candidate, lexicon: Lexicon, canonical: Mapping[str, str]) -> tuple[str, ...]:
    """The labels above one, nearest first: its hypernyms, else the head of the compound."""
    found: dict[str, None] = {}
    pos = POS_OF_KIND[label.kind]
    for number in _path_above(label.tag, pos, lexicon):
        synset = lexicon.wordnet.synset(number)
        if synset.file == "noun.Tops" and EVERYDAY.isdisjoint(synset.lemmas):
            continue
        for lemma in synset.lemmas:
            above = canonical.get(lemma.lower().replace("-", " "))
            if above and above != label.tag:
                found.setdefault(above)
    head = label.tag.rpartition(" ")[2]
    if not found and head != label.tag and pos == NOUN and head in canonical:
        found[canonical[head]] = None
    return tuple(found)


def _path_above(tag: str, pos: str, lexicon: Lexicon) -> list[int]:
    """The hypernyms of the sense that is meant: the first visible one of a noun."""
    synsets = lexicon.wordnet.synsets(tag, pos)
    if not synsets:
        return []
    meant = next((s for s in synsets if s.file in VISIBLE_FILES), synsets[0])
    path = lexicon.wordnet.hypernym_path(meant.number)
    # Verbs soon become too general: to run is to hurry is to travel is to move.
    return path[:1] if pos == VERB else path
