"""The parents of labels, by the sense of WordNet in which captions use each label.

WordNet's first sense is often not the one in captions (a cape is first of all a headland, a monitor
a warship). Frequent labels therefore have reviewed parents (`english/data/parents.tsv`), and a
label of several likely senses only what these have in common.
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from ramctl.parsing.english.lexicon import POS_OF_KIND, VISIBLE_FILES, Lexicon
from ramctl.parsing.english.wordnet import NOUN, VERB, Synset, spelled

if TYPE_CHECKING:  # which needs the extra `[parse]`
    from ramctl.parsing.label_building.synonyms import Contexts

# The most general hypernyms that people search by; "artifact" and "organism" are not among them.
EVERYDAY = frozenset({"person", "animal", "plant", "food"})
# A sense with at most this many uses in WordNet's texts is rare in captions.
RARE = 2
# A sense that WordNet's texts use this many times as often as another one is meant before it.
OFTEN_MEANT = 4
# A name of a person that an animal or a tool has too seldom means the person: ostrich, toaster.
NO_PEOPLE = ("noun.animal", "noun.artifact")
# Files of visible things that are no objects: heaps, texts, weather, cubes.
NO_THINGS = ("noun.group", "noun.communication", "noun.phenomenon", "noun.shape")
COLORS_FILE = "noun.attribute"
# The fraction of a noun's uses in WordNet's texts from which its label has one sense only.
SURE = 0.8
# The minimum similarity of an action's contexts and its parent's: "haul" seldom means "draw".
MIN_ACTION_SIMILARITY = 0.1


@cache
def reviewed_parents() -> dict[tuple[str, str], list[str]]:
    """The parents of frequent labels, nearest first, by label and part of speech; [] for none."""
    table = resources.files("ramctl.parsing.english") / "data/parents.tsv"
    rows = (line.split("\t") for line in table.read_text("utf-8").splitlines())
    return {(tag, pos): above.split(", ") if above else [] for tag, pos, above in rows}


class Hierarchy:
    """The senses of a system's labels, given with their kinds, and the parents that follow."""

    def __init__(self, lexicon: Lexicon, contexts: "Contexts", kinds: Mapping[str, str]) -> None:
        self._lexicon, self._wordnet = lexicon, lexicon.wordnet
        self._contexts, self._kinds = contexts, kinds
        nouns = [tag for tag, kind in kinds.items() if POS_OF_KIND[kind] == NOUN]
        self._senses = {tag: self._listed_sense(tag, kinds[tag]) for tag in nouns}

    def parents(self, tag: str, canonical: Mapping[str, str]) -> tuple[str, ...]:
        """The labels above one, nearest first: reviewed, else hypernyms, else a compound's head.

        A label is a parent if the hypernym is the sense of that label: a woodwind is no "wood".
        WordNet's adjectives have no hypernyms; colours have those of their nouns.
        `canonical` maps strings to labels.
        """
        found: dict[str, None] = {}
        kind = self._kinds[tag]
        pos = POS_OF_KIND[kind]
        if (reviewed := reviewed_parents().get((tag, pos))) is not None:
            found |= dict.fromkeys(canonical[name] for name in reviewed if name in canonical)
            return tuple(x for x in found if x != tag and POS_OF_KIND[self._kinds[x]] == pos)
        for number in self._path_above(tag, kind):
            synset = self._wordnet.synset(number)
            if synset.file == "noun.Tops" and EVERYDAY.isdisjoint(synset.lemmas):
                continue
            for lemma in synset.lemmas:
                above = canonical.get(spelled(lemma))
                if above is None or above == tag:
                    continue
                other = self._kinds[above]
                if other == "attribute" != kind or POS_OF_KIND[other] != pos:
                    continue
                is_meant = above in EVERYDAY or self._means(above, number)
                if is_meant and (kind != "action" or self._is_alike(tag, above)):
                    found.setdefault(above)
        head = tag.rpartition(" ")[2]
        is_free = head != tag and pos == NOUN
        # Compounds that WordNet has are in the right place: a power plant is no plant.
        if not found and is_free and head in canonical and not self._synsets(tag):
            found[canonical[head]] = None
        return tuple(found)

    def _is_alike(self, tag: str, above: str) -> bool:
        """Whether two actions occur in similar contexts, or have none to compare."""
        if not {tag, above} <= self._contexts.rank.keys():
            return False
        similarity = self._contexts.similarity
        is_known = similarity(tag, tag) > 0 and similarity(above, above) > 0
        return not is_known or similarity(tag, above) >= MIN_ACTION_SIMILARITY

    def _means(self, tag: str, number: int) -> bool:
        kind = self._kinds[tag]
        if POS_OF_KIND[kind] == NOUN:
            meant = self._senses[tag]
            if meant is None or meant == number:
                return meant is not None
            counts = dict(self._lexicon.senses(tag, NOUN))
            count = counts.get(number, 0)
            is_usual = count > 0 and count * OFTEN_MEANT >= max(counts.values())
            return is_usual and len({self._wordnet.synset(n).file for n in (meant, number)}) == 1
        if kind == "attribute":
            return tag in self._lexicon.colors
        senses = self._lexicon.senses(tag, POS_OF_KIND[kind])
        return bool(senses) and senses[0][0] == number

    def _path_above(self, tag: str, kind: str) -> list[int]:
        """The hypernyms of the sense that is meant, nearest first."""
        path = self._wordnet.hypernym_path
        if kind == "attribute":
            shades = [s for s in self._wordnet.synsets(tag, NOUN) if s.file == COLORS_FILE]
            return path(shades[0].number) if shades and tag in self._lexicon.colors else []
        if kind == "action":
            senses = self._lexicon.senses(tag, VERB)
            # Verbs soon become too general: to run is to hurry is to travel is to move.
            return path(senses[0][0])[:1] if senses else []
        return self._certain_hypernyms(tag)

    def _certain_hypernyms(self, tag: str) -> list[int]:
        """The hypernyms of a noun's sense, or those that all its likely senses have in common."""
        sense = self._senses[tag]
        if sense is None:
            return []
        counts = dict(self._lexicon.senses(tag, NOUN))
        n_visible = sum(s.file in VISIBLE_FILES for s in self._synsets(tag))
        # It has one visible sense, or one that stands for nearly all its uses.
        is_sure = n_visible == 1 or counts.get(sense, 0) > SURE * sum(counts.values())
        is_sure = is_sure or self._kinds[tag] == "scene"
        likely = [] if is_sure else self._possible_senses(tag, sense, counts)
        others = [self._wordnet.hypernym_path(number) for number in likely]
        above = self._wordnet.hypernym_path(sense)
        return [number for number in above if all(number in path for path in others)]

    def _possible_senses(self, tag: str, listed: int, counts: Mapping[int, int]) -> list[int]:
        """The senses that captions may mean, of which WordNet suggests one."""
        may_be_person = self._wordnet.synset(listed).file not in NO_PEOPLE
        others = (
            s.number
            for s in self._synsets(tag)
            if s.file in VISIBLE_FILES
            and not s.is_named_thing
            and (may_be_person or s.file != "noun.person" or counts.get(s.number, 0) > RARE)
        )
        return list(dict.fromkeys((listed, *others)))

    def _listed_sense(self, tag: str, kind: str) -> int | None:
        """The sense that WordNet's order and files suggest: a party is an event, no person."""
        synsets = self._synsets(tag)
        if kind == "scene":
            return next((s.number for s in synsets if self._lexicon.is_place(s.number)), None)
        if " " in tag:
            last = self._lexicon.noun(tag.rpartition(" ")[2])
            below = [s for s in synsets if self._wordnet.is_below(s.number, last)]
            synsets = below or synsets  # a wooden spoon is a spoon, and no trophy
        synset = self._wordnet.synset
        # The first sense of Mobile is a river, which captions hardly mean.
        synsets = [s for s in synsets if not s.is_named_thing] or synsets
        visible = [s.number for s in synsets if s.file in VISIBLE_FILES]
        counts = dict(self._lexicon.senses(tag, NOUN))
        if not visible:
            return synsets[0].number if synsets else None
        first = synsets[0]
        is_meant = counts.get(first.number, 0) > OFTEN_MEANT * counts.get(visible[0], 0)
        is_meant = is_meant or not any(counts.values())
        if first.file in NO_THINGS and first.number not in visible and is_meant:
            return first.number  # a pile is a heap, not what velvet has
        others = [n for n in visible if counts[n] >= counts[visible[0]]]
        if synset(visible[0]).file == "noun.plant":  # a melon on a plate is no vine
            others = [n for n in others if synset(n).file == "noun.food"]
        elif synset(visible[0]).file == "noun.person" and counts[visible[0]] <= RARE:
            others = [n for n in others if synset(n).file in NO_PEOPLE]
            # A diver is not first of all a loon.
            others = [n for n in others if spelled(synset(n).lemmas[0]) == tag]
        return (others or visible)[0]

    def _synsets(self, tag: str) -> list[Synset]:
        """The senses of a noun as it is spelt: with spaces or without."""
        synsets = self._wordnet.synsets(tag, NOUN)
        return [s for s in synsets if " " not in tag or tag in map(spelled, s.lemmas)]
