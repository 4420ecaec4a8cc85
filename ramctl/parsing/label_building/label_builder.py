"""A label system from the tags of a corpus, and the table in which a person reviews it.

Source: RAM sec. 3.1: frequent tags of parsed captions, synonyms merged, 4,585 labels.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path

from ramctl.errors import RunProblem
from ramctl.parsing.english.lexicon import POS_OF_KIND, Lexicon, word_set
from ramctl.parsing.english.wordnet import NOUN, spelled
from ramctl.parsing.label_building.hierarchy import Hierarchy
from ramctl.parsing.label_building.synonyms import Contexts, Merge, find_merges, rare_synonyms
from ramctl.parsing.label_building.tag_counts import TagCounts
from ramctl.records.files import read_text, write_atomic
from ramctl.records.labels import Label, Labels, normalise
from ramctl.records.record import KINDS

DECISIONS = ("label", "synonym", "drop")
# A free compound must occur this often to be a label, more than a word must.
MIN_PHRASE_COUNT = 15
# A free compound with this fraction of its head's mentions is a label beside the head.
MIN_PHRASE_FRACTION = 0.002
# The weight, when labels are ranked, of attributes (a picture has many, of which a caption names
# some at random), of words in no dictionary, and of free compounds of two tags.
HALF = 0.5
# An activity that is none in WordNet's texts must occur this many times as often as a label.
OFTEN = 4
TOO_RARE = "too rare for the size"
MAX_LABELS = 4585  # the paper's
MAX_STRINGS = 6500  # about the paper's 6,449 words and phrases
LISTED_ID = re.compile(r"(?:/\w+/\w+|n\d{8}|\d+)[\s,:]+")  # of OpenImages, ImageNet, or a number


@dataclass(frozen=True, slots=True)
class Candidate:
    """The decision on one frequent tag, as a row of the review table."""

    tag: str
    decision: str  # one of DECISIONS
    of: str  # the label of a synonym
    kind: str
    count: int
    reason: str


COLUMNS = tuple(field.name for field in fields(Candidate))


@dataclass(frozen=True, slots=True)
class LabelBuilder:
    """The label system of a corpus; the same counts give the same system."""

    counts: TagCounts
    lexicon: Lexicon
    listed: Mapping[str, str] = field(default_factory=dict)  # names of class lists, and the lists
    max_labels: int = MAX_LABELS
    max_strings: int = MAX_STRINGS
    min_count: int = 5  # of a tag's mentions

    def build(self, decisions: Mapping[str, Candidate]) -> tuple[Labels, list[Candidate]]:
        """The system, and every candidate by rank; `decisions` of a person override ours."""
        ranked = self._rank()
        contexts = Contexts(self.counts, self.lexicon, [tag for tag, _ in ranked])
        merges = find_merges(self.counts, self.lexicon, contexts)
        candidates = [
            replace(decisions[tag], count=count)
            if tag in decisions
            else self._decide(tag, count, merges)
            for tag, count in ranked
        ]
        candidates += [decisions[tag] for tag in sorted(decisions.keys() - dict(ranked).keys())]
        candidates, listed = self._with_lists(candidates, decisions)
        candidates = self._limit(candidates, listed)
        candidates += self._rare(candidates)
        return self._system(candidates, contexts), candidates

    def _rank(self) -> list[tuple[str, int]]:
        """(tag, count) of all tags and free compounds that are frequent enough, by rank."""
        counts, min_count = self.counts, self.min_count
        found = {tag: n for tag, n in counts.captions.items() if n >= min_count}
        found = self._activities() | found
        for word, count in self._parts().items():
            if found.get(word, 0) + count >= min_count:
                found[word] = found.get(word, 0) + count
        for phrase, count in counts.phrases.items():
            first, head = phrase.split(" ")[0], phrase.split(" ")[-1]
            if first in self.lexicon.colors or first in self.lexicon.cut_modifiers:
                continue  # "tan dog": both parts are tags; "story building" has lost its number
            often = count >= max(MIN_PHRASE_COUNT, min_count)
            if often and count >= MIN_PHRASE_FRACTION * counts.captions[head]:
                found[phrase] = found.get(phrase, 0) + count
        return sorted(found.items(), key=lambda item: (-item[1], item[0]))

    def _activities(self) -> dict[str, int]:
        """-ing names of actions whose base form is mostly a thing: "fishing", not "sticking"."""
        counts, min_count, names = self.counts, self.min_count, {}
        wordnet = self.lexicon.wordnet
        for tag, gerunds in counts.gerunds.items():
            form, count = min(gerunds.items(), key=lambda item: (-item[1], item[0]))
            if count < min_count or form in counts.captions or counts.kind(tag) == "action":
                continue
            is_sport = any(wordnet.is_kind_of(form, above) for above in ("sport", "diversion"))
            is_usual = count >= OFTEN * min_count or wordnet.count(form, NOUN) > 0
            if self.lexicon.first_file(form) == "noun.act" and (is_sport or is_usual):
                names[form] = count
        return names

    def _parts(self) -> Counter[str]:
        """Mentions of the heads of dictionary compounds, and of the first nouns of free ones."""
        lexicon, parts = self.lexicon, Counter[str]()
        for tag, count in self.counts.captions.items():
            head = tag.rpartition(" ")[2]
            is_compound = head != tag and lexicon.noun_kind(head) is not None
            if is_compound and lexicon.wordnet.is_kind_of(tag, head):
                parts[head] += count
        for phrase, count in self.counts.phrases.items():
            first = phrase.rpartition(" ")[0]
            if first not in lexicon.modifier_tags and lexicon.noun_kind(first) is not None:
                parts[first] += count
        return parts

    def _decide(self, tag: str, count: int, merges: Mapping[str, Merge]) -> Candidate:
        kind = self._kind(tag)
        if reason := self._why_dropped(tag, kind):
            return Candidate(tag, "drop", "", kind, count, reason)
        if merge := merges.get(tag):
            reason = f"{merge.rule} {merge.similarity}"
            return Candidate(tag, "synonym", merge.tag, kind, count, reason)
        return Candidate(tag, "label", "", kind, count, "frequent")

    def _with_lists(
        self, candidates: list[Candidate], decisions: Mapping[str, Candidate]
    ) -> tuple[list[Candidate], set[str]]:
        """The candidates with those that class lists name, each a label, a synonym, or new."""
        found, listed = {c.tag: c for c in candidates}, set()
        for name, source in self.listed.items():
            tag = next((form for form in (name, self.lexicon.noun(name)) if form in found), name)
            known = found.get(tag)
            listed.add(tag)
            if tag in decisions:
                continue
            if known and known.decision != "drop":
                met = "same label" if known.decision == "label" else "synonym"
                found[tag] = replace(known, reason=f"{known.reason}; {source}: {met}")
                continue
            kind, count = self.lexicon.kind(tag), self.counts.captions[tag]
            sure, possible = (
                {c.of or c.tag for word in words if (c := found.get(word)) and c.decision != "drop"}
                for words in (self.lexicon.synonyms(tag, kind), self._any_synonyms(tag, kind))
            )
            met = f"ambiguous ({', '.join(sorted(possible))})" if possible else "new"
            found[tag] = Candidate(tag, "label", "", kind, count, f"{source}: {met}")
            if len(sure) == 1:
                found[tag] = Candidate(
                    tag, "synonym", sure.pop(), kind, count, f"{source}: synonym"
                )
        return list(found.values()), listed

    def _any_synonyms(self, tag: str, kind: str) -> set[str]:
        """The words that share any sense with a tag."""
        senses = self.lexicon.senses(tag, POS_OF_KIND[kind])
        synsets = (self.lexicon.wordnet.synset(number) for number, _ in senses)
        return {spelled(lemma) for synset in synsets for lemma in synset.lemmas} - {tag}

    def _kind(self, tag: str) -> str:
        """The kind of a tag; of a free compound its head's, of the name of an activity action."""
        if tag in self.counts.kinds:
            return self.counts.kind(tag)
        is_activity = tag.endswith("ing") and tag not in self.counts.phrases
        return "action" if is_activity else self.lexicon.noun_kind(tag) or "object"

    def _why_dropped(self, tag: str, kind: str) -> str:
        if not all(part.replace("'", "").isalpha() for part in tag.split()):
            return "not a word"
        if tag.isascii() and len(tag) < 3 and not self.lexicon.is_plain_noun(tag):
            return "too short"
        first = tag.partition(" ")[0]
        if first != tag and self.lexicon.is_only_name(first) and not self.lexicon.is_listed(tag):
            return "a name"  # "oklahoma football"
        return f"vague {kind}" if tag in word_set(f"vague_{kind}") else ""

    def _weight(self, tag: str, kind: str) -> float:
        """How much a mention of a label counts towards its rank."""
        if kind == "attribute":
            return HALF
        first, _, last = tag.partition(" ")
        if last:
            is_free = self.lexicon.noun_kind(last) and not self.lexicon.is_listed(tag)
            return HALF if is_free and self.lexicon.is_tag_before_noun(first) else 1.0
        return 1.0 if self.lexicon.is_known(tag) else HALF

    def _limit(self, candidates: list[Candidate], listed: set[str]) -> list[Candidate]:
        """The candidates by rank, `listed` ones first; those that exceed the sizes are dropped."""
        kept, labels, strings = [], set[str](), 0
        # A label comes before its synonyms, even where a synonym is the more frequent word.
        rank = {c.tag: c.count * self._weight(c.tag, c.kind) for c in candidates}
        rank |= dict.fromkeys(listed, math.inf)
        for c in candidates:
            if c.decision == "synonym" and c.of in rank:
                rank[c.of] = max(rank[c.of], rank[c.tag])
        for c in sorted(candidates, key=lambda c: (-rank[c.tag], c.decision == "synonym", c.tag)):
            room = c.tag in listed or strings < self.max_strings
            if c.decision == "label":
                room = room and (c.tag in listed or len(labels) < self.max_labels)
            elif c.decision == "synonym":
                room = room and c.of in labels
            if c.decision != "drop" and not room:
                c = replace(c, decision="drop", of="", reason=TOO_RARE)
            if c.decision == "label":
                labels.add(c.tag)
            strings += c.decision != "drop"
            kept.append(c)
        return kept

    def _rare(self, candidates: list[Candidate]) -> list[Candidate]:
        """Words too rare to be labels, as synonyms of labels while there is room."""
        counts = self.counts
        strings = {c.tag: c.of or c.tag for c in candidates if c.decision != "drop"}
        decided = {c.tag for c in candidates}
        rare = [(tag, n) for tag, n in counts.captions.items() if tag not in decided]
        words = [tag for tag, _ in sorted(rare, key=lambda item: (-item[1], item[0]))]
        merges = rare_synonyms(counts, self.lexicon, words, strings)
        return [
            Candidate(word, "synonym", of, counts.kind(word), counts.captions[word], rule)
            for word, of, rule in islice(merges, max(self.max_strings - len(strings), 0))
        ]

    def _system(self, candidates: list[Candidate], contexts: Contexts) -> Labels:
        labels = [c for c in candidates if c.decision == "label"]
        synonyms: dict[str, list[Candidate]] = {label.tag: [] for label in labels}
        for c in candidates:
            if c.decision == "synonym":
                synonyms.setdefault(c.of, []).append(c)
        kinds = {label.tag: label.kind for label in labels}
        canonical = {label.tag: label.tag for label in labels}
        canonical |= {c.tag: tag for tag, others in synonyms.items() for c in others}
        forms = self._other_forms(labels, canonical)
        hierarchy = Hierarchy(self.lexicon, contexts, kinds)
        built = []
        for label in labels:
            others = synonyms[label.tag]
            count = label.count + sum(other.count for other in others)
            names = (*(other.tag for other in others), *forms[label.tag])
            built.append((
                -count * self._weight(label.tag, label.kind), label.tag,
                Label(label.tag, label.kind, names, hierarchy.parents(label.tag, canonical),
                      count=count),
            ))  # fmt: skip
        return Labels(label for _, _, label in sorted(built, key=lambda row: row[:2]))

    def _other_forms(
        self, labels: list[Candidate], canonical: Mapping[str, str]
    ) -> dict[str, tuple[str, ...]]:
        """Other strings of the labels: "surfing", "play tennis", British spellings."""
        british: dict[str, list[str]] = {}
        for form, lemma in self.lexicon.british.items():
            british.setdefault(lemma, []).append(form)
        room = self.max_strings - len(canonical)
        taken = set(canonical)
        forms: dict[str, tuple[str, ...]] = {}
        for label in labels:
            found: list[str] = []
            if label.kind == "action" and (gerunds := self.counts.gerunds.get(label.tag)):
                found = sorted(form for form, n in gerunds.items() if n >= self.min_count)
            found += british.get(label.tag, [])
            if self.lexicon.is_game(label.tag):
                found += [f"play {label.tag}", f"playing {label.tag}"]
            free = [form for form in found if form not in taken][:room]
            taken.update(free)
            room -= len(free)
            forms[label.tag] = tuple(free)
        return forms


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
            number = len(decided) + 2
            tag, decision, of, kind, count = ((row.get(name) or "").strip() for name in COLUMNS[:5])
            is_known = tag and decision in DECISIONS and kind in KINDS
            if not is_known or (decision == "synonym" and not of):
                raise RunProblem(
                    f"{path}:{number}: needs a tag, a decision ({', '.join(DECISIONS)}), "
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
