"""A label system from the tags of a caption corpus, and the table in which a person reviews it.

Source: RAM sec. 3.1: frequent tags of parsed captions, synonyms merged, 4,585 labels.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path

from ramctl.errors import RunProblem
from ramctl.parsing.closed_mode import LabelMapper
from ramctl.parsing.english.lexicon import POS_OF_KIND, Lexicon, word_set
from ramctl.parsing.english.wordnet import NOUN, spelled
from ramctl.parsing.parsed_caption import ParsedCaption, clean
from ramctl.records.choices import KINDS
from ramctl.records.files import read_text, write_atomic
from ramctl.records.labels import Label, Labels, normalise

DECISIONS = ("label", "synonym", "drop")
MAX_LABELS = 4585  # the paper's
MIN_COUNT = 5  # mentions of a label
MIN_PHRASE_COUNT = 15  # of a free compound, which is a label beside its head
# A singular is a slip where its plural is this many times as frequent: a pant.
SLIP = 10
# The most general hypernyms that people search by; "artifact" and "organism" are not among them.
EVERYDAY = frozenset({"person", "animal", "plant", "food"})
LISTED_ID = re.compile(r"(?:/\w+/\w+|n\d{8}|\d+)[\s,:]+")  # of OpenImages, ImageNet, or a number


@dataclass(frozen=True, slots=True)
class Candidate:
    """The decision on one tag, as a row of the review table."""

    tag: str
    decision: str  # one of DECISIONS
    of: str  # the label of a synonym
    kind: str
    count: int
    reason: str

    @property
    def label(self) -> str:
        """The label that the tag stands for, where it is not dropped."""
        return self.of or self.tag


COLUMNS = tuple(field.name for field in fields(Candidate))


class TagCounts:
    """How often the tags of captions occur, and with which kinds."""

    def __init__(self, captions: Iterable[ParsedCaption]) -> None:
        self.tags: Counter[str] = Counter()
        self.kinds: dict[str, Counter[str]] = {}
        self.phrases: Counter[str] = Counter()  # free compounds
        # The -ing forms of actions, which also name the activity: {"surf": {"surfing": 12}}.
        self.gerunds: dict[str, Counter[str]] = {}
        for parsed in captions:
            for mention in parsed.mentions:
                self.tags[mention.tag] += 1
                self.kinds.setdefault(mention.tag, Counter())[mention.kind] += 1
                if mention.kind == "action" and mention.words[-3:] == "ing":
                    self.gerunds.setdefault(mention.tag, Counter())[mention.words.lower()] += 1
            self.phrases.update(set(parsed.phrases))

    def kind(self, tag: str) -> str:
        """The kind that most mentions of a tag have."""
        kinds = self.kinds.get(tag, Counter())
        return min(kinds, key=lambda kind: (-kinds[kind], kind), default="object")


def build_labels(
    counts: TagCounts,
    decisions: Mapping[str, Candidate],
    listed: Mapping[str, str],
    size: int = MAX_LABELS,
) -> tuple[Labels, list[Candidate]]:
    """The `size` most frequent labels, and the decision on each tag, most frequent first.

    `decisions` of a person, by tag, override ours. `listed` maps the names of class lists to their
    lists: these come first and are never dropped. The same counts give the same system.
    """
    lexicon = Lexicon.shared()
    mentions = _mentions(counts, lexicon)
    lists: dict[str, str] = {}
    for name, source in listed.items():
        forms = (name, lexicon.noun(name))
        lists[next((form for form in forms if form in mentions), name)] = source
    found: dict[str, Candidate] = {}
    mentions.update(dict.fromkeys([*lists, *decisions], 0))
    for tag, count in sorted(mentions.items(), key=lambda item: (-item[1], item[0])):
        if tag in decisions:
            found[tag] = replace(decisions[tag], count=count or decisions[tag].count)
            continue
        kind = _kind(tag, counts, lexicon)
        source = lists.get(tag, "")
        reason = "" if source else _why_dropped(tag, kind, lexicon)
        decision, of = "drop" if reason else "label", ""
        if not reason and (same := _same_label(tag, kind, counts, found)):
            decision, (of, reason) = "synonym", same
        elif count < MIN_COUNT and not source:
            continue
        reason = "; ".join(filter(None, (reason, source))) or "frequent"
        found[tag] = Candidate(tag, decision, of, kind, count, reason)
    return _system(counts, found, lists, size)


def _mentions(counts: TagCounts, lexicon: Lexicon) -> Counter[str]:
    """How often captions name each word that may become a label."""
    found, parts = Counter(counts.tags), Counter[str]()
    for tag, n in counts.tags.items():
        head = tag.rpartition(" ")[2]
        is_compound = head != tag and lexicon.noun_kind(head) is not None
        if is_compound and lexicon.wordnet.is_kind_of(tag, head):  # a golden retriever
            parts[head] += n
    # "Tan dog": both parts are tags; "story building" has lost its number.
    no_first_words = lexicon.colors | lexicon.cut_modifiers
    for phrase, n in counts.phrases.items():
        modifier = phrase.rpartition(" ")[0]
        if modifier not in lexicon.modifier_tags and lexicon.noun_kind(modifier) is not None:
            parts[modifier] += n
        if n >= MIN_PHRASE_COUNT and phrase.partition(" ")[0] not in no_first_words:
            found[phrase] += n
    for word, n in parts.items():
        if n >= MIN_COUNT or found[word] >= MIN_COUNT:
            found[word] += n
    for tag, gerunds in counts.gerunds.items():
        form = min(gerunds, key=lambda form: (-gerunds[form], form))
        is_activity = form not in counts.tags and lexicon.first_file(form) == "noun.act"
        if is_activity and counts.kind(tag) != "action":  # "fishing", beside the thing "fish"
            found[form] += gerunds[form]
    return found


def _kind(tag: str, counts: TagCounts, lexicon: Lexicon) -> str:
    if tag in counts.kinds:
        return counts.kind(tag)
    is_activity = any(tag in gerunds for gerunds in counts.gerunds.values())
    return "action" if is_activity else lexicon.kind(tag)


def _why_dropped(tag: str, kind: str, lexicon: Lexicon) -> str:
    """Why a tag is no label; empty where it may be one."""
    if not all(part.replace("'", "").isalpha() for part in tag.split()):
        return "not a word"
    if tag.isascii() and len(tag) < 3 and not lexicon.is_plain_noun(tag):
        return "too short"
    first = tag.partition(" ")[0]
    if first != tag and lexicon.is_only_name(first) and not lexicon.is_listed(tag):
        return "a name"  # "oklahoma football"
    return f"vague {kind}" if tag in word_set(f"vague_{kind}") else ""


def _same_label(
    tag: str, kind: str, counts: TagCounts, found: Mapping[str, Candidate]
) -> tuple[str, str] | None:
    """The label that a tag is a spelling of or has the main sense of, and which of the two."""
    lexicon = Lexicon.shared()
    same = [(other, "spelling") for other in _spellings(tag, counts, lexicon)]
    same += [(other, "main sense") for other in lexicon.synonyms(tag, kind)]
    for other, rule in same:
        c = found.get(other)
        if c is None or c.decision == "drop":
            continue
        if rule == "spelling" or POS_OF_KIND[c.kind] == POS_OF_KIND[kind]:
            return c.label, rule
    return None


def _spellings(word: str, counts: TagCounts, lexicon: Lexicon) -> Iterator[str]:
    if lexicon.is_game(game := word.removeprefix("playing ")):
        yield game
    plural = f"{word}s"
    is_slip = " " in word or counts.tags[plural] >= SLIP * counts.tags[word]
    if is_slip and plural in lexicon.plural_only:
        yield plural
    others = [word.replace(" ", "")]
    if " " not in word:  # "surf board" for "surfboard"
        others += [f"{word[:i]} {word[i:]}" for i in range(3, len(word) - 2)]
    for other in others:
        phrase = max(word, other, key=len)
        first = phrase.partition(" ")[0]
        described = lexicon.is_plain_adjective(first) or first in lexicon.colors
        if other != word and (lexicon.is_listed(phrase) or not described):
            yield other  # a green house is no greenhouse


def _system(
    counts: TagCounts, found: dict[str, Candidate], lists: Iterable[str], size: int
) -> tuple[Labels, list[Candidate]]:
    """The labels of the candidates, and the candidates with those dropped that are too rare."""
    totals = Counter[str]()
    for c in found.values():
        totals[c.label] += c.count
    first = {found[name].label for name in lists}
    ranked = sorted(
        (c for c in found.values() if c.decision == "label"),
        key=lambda c: (c.tag not in first, -totals[c.tag], c.tag),
    )
    kept = {c.tag: c for c in ranked[: max(size, sum(c.tag in first for c in ranked))]}
    for tag, c in found.items():
        if c.decision != "drop" and c.label not in kept:
            found[tag] = replace(c, decision="drop", of="", reason="too rare for the size")
    names = {tag: c.label for tag, c in found.items() if c.decision != "drop"}
    synonyms: dict[str, list[str]] = {tag: [] for tag in kept}
    for tag, label in names.items():
        if tag != label:
            synonyms[label].append(tag)
    taken, kinds = set(names), {tag: c.kind for tag, c in kept.items()}
    for label, strings in synonyms.items():
        forms = [form for form in _other_forms(label, counts) if form not in taken]
        taken.update(forms)
        strings += forms
    labels = Labels(
        Label(tag, kinds[tag], tuple(synonyms[tag]), parents_of(tag, names, kinds), count=n)
        for tag, n in sorted(totals.items(), key=lambda item: (-item[1], item[0]))
        if tag in kept
    )
    return labels, list(found.values())


def with_counts(labels: Labels, records: Iterable[Iterable[tuple[str, ParsedCaption]]]) -> Labels:
    """The labels, the most frequent first, each with the number of records that name it.

    `records` have captions, each with its tags in open mode; the labels are closed mode's.
    """
    mapper, found = LabelMapper(labels, Lexicon.shared()), Counter[str]()
    for captions in records:
        closed = (mapper.label_of_whole_text(clean(x)) or mapper.map(y) for x, y in captions)
        found.update({tag for parsed in closed for tag in parsed.tags})
    counted = (label.changed(count=found[label.tag]) for label in labels)
    return Labels(sorted(counted, key=lambda label: (-found[label.tag], label.tag)))


def _other_forms(label: str, counts: TagCounts) -> list[str]:
    """Other strings of a label: "surfing", "play tennis", British spellings."""
    lexicon = Lexicon.shared()
    forms = [form for form, lemma in lexicon.british.items() if lemma == label]
    if counts.kind(label) == "action" and (gerunds := counts.gerunds.get(label)):
        forms = sorted(form for form, n in gerunds.items() if n >= MIN_COUNT) + forms
    if lexicon.is_game(label):
        forms += [f"play {label}", f"playing {label}"]
    return forms


@cache
def reviewed_parents() -> dict[tuple[str, str], list[str]]:
    """The parents of frequent labels, nearest first, by label and part of speech; [] for none."""
    table = resources.files("ramctl.parsing.english") / "data/parents.tsv"
    rows = (line.split("\t") for line in table.read_text("utf-8").splitlines())
    return {(tag, pos): above.split(", ") if above else [] for tag, pos, above in rows}


def parents_of(tag: str, names: Mapping[str, str], kinds: Mapping[str, str]) -> tuple[str, ...]:
    """The labels above one, nearest first: reviewed, else of its first sense if it is a noun.

    `names` maps strings to labels, `kinds` labels to their kinds.
    """
    pos = POS_OF_KIND[kinds[tag]]
    above = reviewed_parents().get((tag, pos))
    if above is None:
        above = _hypernyms(tag) if pos == NOUN else []
    found = dict.fromkeys(names[name] for name in above if name in names)
    return tuple(x for x in found if x != tag and POS_OF_KIND[kinds[x]] == pos)


def _hypernyms(tag: str) -> list[str]:
    """The words above a noun's first sense; the head of a compound that WordNet lacks."""
    lexicon, wordnet = Lexicon.shared(), Lexicon.shared().wordnet
    senses = lexicon.senses(tag, NOUN)
    if not senses:
        return [tag.rpartition(" ")[2]]
    words: list[str] = []
    for synset in map(wordnet.synset, wordnet.hypernym_path(senses[0][0])):
        lemmas = [spelled(lemma) for lemma in synset.lemmas]
        if not EVERYDAY.isdisjoint(lemmas):
            words += lemmas
        elif synset.file != "noun.Tops":  # a woodwind is no "wood"
            words += [x for x in lemmas if lexicon.senses(x, NOUN)[0][0] == synset.number]
    return words


def read_class_list(path: Path) -> list[str]:
    """The names in a class list: a label system, or lines of a name and other columns.

    Ids before a name are left out (`/m/011k07,Tortoise`, `n01440764 tench, Tinca tinca`).
    """
    cells = (re.split(r"[\t,]", LISTED_ID.sub("", tag))[0] for tag in Labels.read(path).tags)
    return [name for cell in cells if (name := normalise(cell))]


def read_review(path: Path) -> dict[str, Candidate]:
    """The decisions of a review table, if there is one, by tag; RunProblem for a bad line."""
    if not path.is_file():  # a pipe or a device is only written to
        return {}
    decided: dict[str, Candidate] = {}
    with io.StringIO(read_text(path), newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            tag, decision, of, kind, count = ((row.get(name) or "").strip() for name in COLUMNS[:5])
            is_known = tag and decision in DECISIONS and kind in KINDS
            if not is_known or (decision == "synonym" and not of):
                raise RunProblem(
                    f"{path}:{len(decided) + 2}: needs a tag, a decision ({', '.join(DECISIONS)}), "
                    f"a kind ({', '.join(KINDS)}) and the label 'of' which it is a synonym"
                )
            number = int(count) if count.isdigit() else 0
            decided[tag] = Candidate(tag, decision, of, kind, number, row["reason"] or "")
    return decided


def write_review(path: Path, candidates: Iterable[Candidate]) -> None:
    """Write the table, tab-separated, one candidate a line; whole or not at all."""
    text = io.StringIO()
    rows = csv.writer(text, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
    rows.writerows([COLUMNS, *map(astuple, candidates)])
    write_atomic(path, text.getvalue().encode())
