"""The parents of labels, by the sense of WordNet in which captions use each label.

WordNet's first sense is often not the one in captions (a cape is first of all a headland, a monitor
a warship). Labels of one sense therefore vote: the label has the sense whose labels occur in the
most similar contexts.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ramctl.parsing.english.lexicon import POS_OF_KIND, VISIBLE_FILES, Lexicon
from ramctl.parsing.english.wordnet import NOUN, VERB, Synset, spelled
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
# The fraction of a noun's uses in WordNet's texts from which its label votes with one sense only.
SURE = 0.8
# The minimum number of votes below a hypernym (fewer near the sense), and the fraction of them,
# those with the most similar contexts, that count.
VOTERS = 3
COUNTED = 0.25
NOISE = 0.02  # a smaller similarity means nothing
# Another sense than WordNet's first is meant if it suits the contexts this many times as well; the
# second number applies where no text shows the frequent sense. Else only hypernyms of both count.
CLEARLY = 1.75
SLIGHTLY = 1.2
# The minimum similarity of an action's contexts and its parent's: "haul" seldom means "draw".
MIN_ACTION_SIMILARITY = 0.1


class Meaning(NamedTuple):
    """The sense of a noun, None where it is not clear, and the hypernyms that are certain."""

    sense: int | None
    above: list[int]


class Hierarchy:
    """The senses of a system's labels, given with their kinds, and the parents that follow."""

    def __init__(self, lexicon: Lexicon, contexts: Contexts, kinds: Mapping[str, str]) -> None:
        self._lexicon, self._wordnet = lexicon, lexicon.wordnet
        self._contexts, self._kinds = contexts, kinds
        nouns = [tag for tag, kind in kinds.items() if POS_OF_KIND[kind] == NOUN]
        listed = {tag: self._listed_sense(tag, kinds[tag]) for tag in nouns}
        self._voters: dict[int, list[str]] = {}  # by hypernym
        for tag, sense in listed.items():
            if sense is not None and tag in contexts.rank and self._is_sure(tag, sense):
                for number in (sense, *self._wordnet.hypernym_path(sense)):
                    self._voters.setdefault(number, []).append(tag)
        self._meant = {tag: self._meaning(tag, sense) for tag, sense in listed.items()}

    def parents(self, tag: str, canonical: Mapping[str, str]) -> tuple[str, ...]:
        """The labels above one, nearest first: its hypernyms, else the head of the compound.

        A label is a parent if the hypernym is the sense of that label: a woodwind is no "wood".
        WordNet's adjectives have no hypernyms; colours have those of their nouns.
        `canonical` maps strings to labels.
        """
        found: dict[str, None] = {}
        kind = self._kinds[tag]
        pos = POS_OF_KIND[kind]
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
            meant = self._meant[tag].sense
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
        return self._meant[tag].above

    def _meaning(self, tag: str, listed: int | None) -> Meaning:
        """The sense that suits the contexts of a label best; WordNet's first if none does clearly.

        Where neither texts nor contexts decide, the hypernyms that the best two have in common.
        """
        if listed is None:
            return Meaning(None, [])
        path = self._wordnet.hypernym_path
        counts = dict(self._lexicon.senses(tag, NOUN))
        is_known = self._kinds[tag] == "object" and tag in self._contexts.rank
        senses = self._possible_senses(tag, listed, counts) if is_known else [listed]
        weights = self._weights(tag, senses, counts) if len(senses) > 1 else {}
        if not weights:
            return Meaning(listed, path(listed))
        second, best = sorted(weights, key=lambda n: (weights[n], n == listed))[-2:]
        if any(counts.values()):
            sense = best if weights[best] >= CLEARLY * weights[listed] else listed
            return Meaning(sense, path(sense))
        if weights[best] >= SLIGHTLY * weights[second]:
            return Meaning(best, path(best))
        return Meaning(None, [number for number in path(best) if number in path(second)])

    def _weights(self, tag: str, senses: list[int], counts: Mapping[int, int]) -> dict[int, float]:
        """How well each sense suits contexts and WordNet's texts; empty where no label votes."""
        paths = {n: [n, *self._wordnet.hypernym_path(n)] for n in senses}
        shared = set.intersection(*map(set, paths.values()))
        similar = self._contexts.similarities(tag)
        votes = {
            sense: self._vote(tag, [number for number in path if number not in shared], similar)
            for sense, path in paths.items()
        }
        cast = [vote for vote in votes.values() if vote is not None]
        if not cast:
            return {}
        weights = {}
        for n, vote in votes.items():
            if vote is None:  # a sense without votes counts as the mean if texts use it often
                vote = sum(cast) / len(cast) * (counts.get(n, 0) > RARE)
            weights[n] = (vote + NOISE) * math.sqrt(1 + counts.get(n, 0))
        return weights

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

    def _vote(self, tag: str, path: list[int], similar: np.ndarray) -> float | None:
        """How similar the contexts of labels below a sense are, or below the nearest hypernym."""
        parts = set(tag.split())
        for distance, number in enumerate(path, start=1):
            near = [
                similar[self._contexts.rank[voter]]
                for voter in self._voters.get(number, ())
                if voter != tag and parts.isdisjoint(voter.split())
            ]
            if len(near) >= min(distance, VOTERS):
                n_counted = max(VOTERS, round(COUNTED * len(near)))
                return float(np.mean(np.sort(near)[-n_counted:]))
        return None

    def _is_sure(self, tag: str, sense: int) -> bool:
        """Whether a noun has one visible sense, or one that stands for nearly all its uses."""
        visible = [s for s in self._synsets(tag) if s.file in VISIBLE_FILES]
        counts = dict(self._lexicon.senses(tag, NOUN))
        return len(visible) == 1 or counts.get(sense, 0) > SURE * sum(counts.values())

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
