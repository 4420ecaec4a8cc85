"""Closed mode: the tags of captions to the labels of a system."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from ramctl.parsing.english.lexicon import POS_OF_KIND, Lexicon
from ramctl.parsing.parsed_caption import Mention, ParsedCaption, without_accents
from ramctl.records.labels import Label, Labels, normalise


def lexicon_for(labels: Labels) -> Lexicon:
    """The lexicon in which the vague nouns that a word list asks for ("photo") are things.

    Systems built of captions have them as actions only.
    """
    lexicon = Lexicon.shared()
    if any(label.count for label in labels):
        return lexicon
    things = [label for label in labels if label.kind != "action"]
    names = {normalise(name) for label in things for name in (label.tag, *label.synonyms)}
    vague = (lexicon.stop_nouns & names) - lexicon.noun_actions - lexicon.standalone_actions
    return Lexicon.shared(vague) if vague else lexicon


def label_kinds(labels: Labels) -> list[str]:
    """The kinds that closed mode gives the labels of a plain word list."""
    lexicon = lexicon_for(labels)
    return [lexicon.kind(normalise(label.tag)) for label in labels]


class LabelMapper:
    """Open tags to the tags of a label system: free compounds first, then words, then hypernyms.

    A word that is of one kind here and of another in the system is no label ("train" the action,
    "light" the color), except an attribute and a thing that are the same: male, wooden.
    A plain word list has no kinds, inflections and synonyms: there any kind agrees, and
    an inflection or a synonym serves for a word that the list does not have.
    """

    def __init__(self, labels: Labels, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._is_plain = all(label.kind == "object" for label in labels)
        if self._is_plain:
            labels = Labels(x.changed(kind=lexicon.kind(normalise(x.tag))) for x in labels)
        self._by_string: dict[str, Label] = {}
        for label in labels:
            for synonym in label.synonyms:
                self._by_string.setdefault(normalise(synonym), label)
        for label in reversed(labels):
            self._by_string[normalise(label.tag)] = label
        for string, label in list(self._by_string.items()):
            self._by_string.setdefault(without_accents(string), label)
        # By base form, as an action and as anything else: "clogs" by "clog", "casting" by "cast".
        self._by_form: dict[tuple[str, bool], Label] = {}
        for label in labels if self._is_plain else ():
            name = normalise(label.tag)
            self._by_form.setdefault((lexicon.noun(name), False), label)
            self._by_form.setdefault((lexicon.verb(name), True), label)
        self._stand_in = lru_cache(maxsize=20_000)(self._find_stand_in)

    def find(self, text: str) -> Label | None:
        """The label that a string stands for, whatever its kind."""
        return self._by_string.get(normalise(text))

    def label_of_whole_text(self, text: str) -> ParsedCaption | None:
        """The label that the whole text names, even one that is no tag within a sentence."""
        label = self.find(text)
        if label is None:
            return None
        return ParsedCaption((Mention(0, label.tag, label.kind, text, "the whole text"),))

    def labels_of(self, tags: Iterable[str], kinds: Mapping[str, str]) -> list[str]:
        """The labels of open tags, in their order; `kinds` has the kinds that are known."""
        found = ((tag, normalise(tag)) for tag in tags)
        mentions = (
            Mention(0, name, kinds.get(tag) or self._lexicon.kind(name), tag, "")
            for tag, name in found
        )
        return self.map(ParsedCaption(tuple(mentions))).tags

    def map(self, parsed: ParsedCaption) -> ParsedCaption:
        """The caption's labels in order of first mention, with the labels' kinds."""
        whole = {phrase.rpartition(" ")[2]: phrase for phrase in parsed.phrases}
        unique: dict[str, Mention] = {}
        for mention in parsed.mentions:
            phrase = whole.get(mention.tag)
            # No synonym of it: "young woman" is a woman, and no "miss".
            label = self._label(phrase, mention, is_exact=True) if phrase else None
            label = label or self._label(mention.tag, mention)
            head = mention.tag.rpartition(" ")[2]
            if label is None and head != mention.tag and self._lexicon.may_be(mention.tag, head):
                label = self._label(head, mention)
            if label is not None:
                kind = mention.kind if self._is_plain else label.kind
                new = Mention(mention.place, label.tag, kind, mention.words, mention.rule)
                unique.setdefault(label.tag, new)
        return ParsedCaption(tuple(unique.values()))

    def _label(self, text: str, mention: Mention, *, is_exact: bool = False) -> Label | None:
        label, agree = self._by_string.get(text), self._lexicon.agree
        if label and (self._is_plain or agree(text, mention.kind, label.kind)):
            return label
        if mention.kind == "action" and " " not in mention.words:
            activity = self._by_string.get(mention.words.lower())
            if activity is not None and (self._is_plain or activity.kind == "action"):
                return activity
        return self._stand_in(text, mention.kind) if self._is_plain and not is_exact else None

    def _find_stand_in(self, text: str, kind: str) -> Label | None:
        """The label of a plain list that stands for a word which the list does not have."""
        if label := self._by_form.get((text, kind == "action")):
            return label
        plain = self._lexicon.plain_words.get(text) or self._lexicon.material(text)
        if label := self._by_string.get(plain):
            return label
        for word in self._lexicon.synonyms(text, kind):
            label = self._by_string.get(word)
            # A label that mostly is something else is no synonym: "quail" for wincing.
            if label and POS_OF_KIND[self._lexicon.kind(word)] == POS_OF_KIND[kind]:
                return label
        return None
