#!/usr/bin/env python3
"""Give each record short captions: of long ones the sentence without its details.

    scripts/mini/short_captions.py < records.jsonl > with_short.jsonl

"A green-grey vintage coupe with a chrome grille is parked on a brick-paved street in front of brick
houses." becomes "A green-grey vintage coupe is parked on a brick-paved street." Photos of many
kinds have dense captions only; a captioner that learns from photos of people and dogs alone sees
people and dogs everywhere. Archives' titles name places and persons, which a model learns by heart:
of those only short ones without names are left. Records without a short caption go.
"""

import json
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import spacy
from spacy.tokens import Span, Token

from ramctl.parsing.parser import MODEL_PACKAGES

MIN_WORDS, MAX_SHORT_WORDS = 3, 14
ARTICLE, VOWELS = re.compile(r"\b([Aa])n? (\w)"), "aeiou"
BEFORE_NOUNS = {"det", "poss", "nummod", "compound", "case", "neg", "quantmod"}
ARCHIVES = ("fsa-train",)
WITH_VERBS = {"aux", "auxpass", "neg", "prt"}


def noun_phrase(noun: Token) -> Iterator[Token]:
    """The noun with its article and number, its nearest adjective, what it is of, and one "and"."""
    adjectives = [child for child in noun.lefts if child.dep_ == "amod"][-1:]
    for child in noun.lefts:
        if child.dep_ in BEFORE_NOUNS:
            yield from child.subtree
        elif child in adjectives:
            yield from child.subtree if len(list(child.subtree)) <= 3 else (child,)
    yield noun
    others = [child for child in noun.rights if child.dep_ == "conj"]
    for child in noun.rights:
        if child.dep_ == "prep" and child.lower_ == "of":
            yield from place(child)
        elif child.dep_ == "cc" and len(others) == 1 and not list(others[0].rights):
            yield child
            yield from noun_phrase(others[0])


def place(preposition: Token) -> Iterator[Token]:
    """A preposition with its noun."""
    for child in preposition.rights:
        if child.dep_ == "pobj":
            yield preposition
            yield from noun_phrase(child)
        elif child.dep_ == "prep":  # out of, along with
            yield preposition
            yield from place(child)


def action(verb: Token) -> Iterator[Token]:
    """A verb with its object, and the first thing that is said of where or how."""
    yield from (child for child in verb.lefts if child.dep_ in WITH_VERBS)
    yield verb
    has_place = False
    for child in verb.rights:
        if child.dep_ in ("dobj", "attr"):
            yield from noun_phrase(child)
        elif child.dep_ in ("prt", "acomp"):
            yield child
        elif child.dep_ == "prep" and not has_place:
            has_place = True
            yield from place(child)


def main_thing(sentence: Span) -> Iterator[Token]:
    """The words of a sentence that say what the photo is of, and what it does or where it is."""
    root = sentence.root
    subjects = [child for child in root.lefts if child.dep_ in ("nsubj", "nsubjpass")]
    if root.pos_ in ("VERB", "AUX") and subjects:
        yield from noun_phrase(subjects[0])
        yield from action(root)
        return
    if root.pos_ not in ("NOUN", "PROPN"):
        return
    yield from noun_phrase(root)
    for child in root.rights:
        if child.dep_ == "acl" and child.tag_ in ("VBG", "VBN"):
            yield from action(child)
            return
    for child in root.rights:
        if child.dep_ == "prep" and child.lower_ != "of":
            yield from place(child)
            return


def is_cut(last: Token) -> bool:
    """Whether the noun that a phrase ends with goes on: "a pink water" of a water lily."""
    follows = last.doc[last.i + 1] if last.i + 1 < len(last.doc) else last
    return last.pos_ in ("NOUN", "ADJ") and follows.pos_ in ("NOUN", "PROPN", "ADJ")


def shortened(sentence: Span) -> str | None:
    """A sentence of `MAX_SHORT_WORDS` at most; None where too little or too much is left."""
    text, last = "", None
    for token in sorted(set(main_thing(sentence)), key=lambda token: token.i):
        between = list(sentence.doc[token.i if last is None else last.i + 1 : token.i])
        if any(skipped.text in (",", ";", "(") for skipped in between):
            break  # what comes after a comma is a detail, or belongs to another clause
        if last is not None and between:
            if is_cut(last):
                return None
            is_joined = [skipped.text for skipped in between] == ["-"]
            text = text.rstrip() + ("-" if is_joined else " ")
        text += token.text_with_ws
        last = token
    if last is None or is_cut(last):
        return None
    text = ARTICLE.sub(
        lambda found: f"{found[1]}{'n' * (found[2].lower() in VOWELS)} {found[2]}", text
    )
    if not MIN_WORDS <= len(text.split()) <= MAX_SHORT_WORDS:
        return None
    return f"{text[:1].upper()}{text[1:].rstrip()}."


def names_nobody(short: str, sentence: Span) -> bool:
    """Whether a short caption has none of the sentence's names, numbers and brackets."""
    names = {token.text for token in sentence if token.pos_ in ("PROPN", "NUM")}
    return names.isdisjoint(short.removesuffix(".").split()) and "[" not in short


def main() -> None:
    nlp = spacy.load(next(filter(spacy.util.is_package, MODEL_PACKAGES)), exclude=["ner"])
    records = [json.loads(line) for line in sys.stdin]
    texts = [text for record in records for text in record["captions"]]
    docs = nlp.pipe(texts, batch_size=256)
    for record in records:
        sentences = [next(doc.sents) for doc in islice(docs, len(record["captions"]))]
        is_title = record["image"].startswith(ARCHIVES)
        added = [
            short
            for sentence in sentences
            if (is_title or len(sentence) > MAX_SHORT_WORDS)
            and (short := shortened(sentence)) is not None
            and (not is_title or names_nobody(short, sentence))
        ]
        own = [text for text in record["captions"] if len(text.split()) <= MAX_SHORT_WORDS]
        record["captions"] = added if is_title else own + added
        record["caption_tags"] = [record["caption_tags"][0]] * len(record["captions"])
        if not record["captions"]:
            continue
        print(json.dumps(record, ensure_ascii=False))


if __name__ == "__main__":
    main()
