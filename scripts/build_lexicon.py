#!/usr/bin/env python3
"""Compile WordNet 3.0 into the one small file that ramctl.parsing reads.

    scripts/build_lexicon.py [WORDNET_FOLDER] [-o FOLDER]

WORDNET_FOLDER holds index.*, data.*, *.exc and cntlist.rev as Debian's package
wordnet-base installs them (default /usr/share/wordnet). Writes wordnet.gz and
WORDNET-LICENSE; the same input gives the same bytes. What is kept: lemmas,
senses in WordNet's order with their counts in the sense-tagged texts,
lexicographer files, synonyms, hypernyms (for adjectives: the similar head), and
the lists of irregular forms. Glosses are left out.

The file, after gunzip:
    line 1     "ramctl-wordnet 1 WORDS SYNSETS"
    WORDS      one line a word, sorted by its bytes: word TAB field TAB field ...
               n|v|a|r + "synset[:count] ..."   its senses in that part of speech
               N|V|A|R + "lemma|..."            it is an irregular form of these
    SYNSETS    one line a synset, its number is its place: lexicographer file
               number, "i" if it is a named thing; TAB hypernyms; TAB lemmas joined by |
Words are lower case with spaces for underscores and hyphens; the lemmas of synsets
keep their case.
"""

import argparse
import gzip
from collections import defaultdict
from pathlib import Path

Numbers = dict[tuple[str, str], int]  # of synsets, by part of speech and offset
Words = dict[str, dict[str, list[str]]]
FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
SYNSET_TYPES = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
UPWARD = {"@", "@i", "&"}
DEFAULT_OUT = Path(__file__).resolve().parent.parent / "ramctl" / "parsing" / "english" / "data"


def key(lemma: str) -> str:
    """The word under which a lemma is looked up."""
    return " ".join(lemma.lower().replace("_", " ").replace("-", " ").split())


def data_lines(path: Path) -> list[str]:
    """The lines of a WordNet file without its licence header."""
    with path.open(encoding="utf-8") as stream:
        return [line for line in stream if not line.startswith(" ")]


def sense_counts(path: Path) -> dict[tuple[str, str, int], int]:
    """{(word, part of speech, sense number): count in the sense-tagged texts}."""
    counts: dict[tuple[str, str, int], int] = defaultdict(int)
    for line in data_lines(path):
        sense, number, count = line.split()
        lemma, _, rest = sense.rpartition("%")
        place = (lemma, SYNSET_TYPES[rest.partition(":")[0]], int(number))
        counts[place] += int(count)
    return counts


def read_synsets(folder: Path) -> tuple[Numbers, list[str]]:
    """-> ({(part of speech, offset): number}, [synset line])."""
    rows: list[tuple[str, list[str]]] = []
    numbers: Numbers = {}
    for pos, name in FILES.items():
        for line in data_lines(folder / f"data.{name}"):
            fields = line.partition(" | ")[0].split()
            numbers[pos, fields[0]] = len(rows)
            rows.append((pos, fields))
    lines = []
    for pos, fields in rows:
        count = int(fields[3], 16)
        lemmas = [
            word.partition("(")[0].replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]
        ]
        pointers = fields[5 + 2 * count : 5 + 2 * count + 4 * int(fields[4 + 2 * count])]
        links = list(zip(*[iter(pointers)] * 4, strict=True))
        upward = [numbers[pos, to] for kind, to, _, _ in links if kind in UPWARD]
        named = "i" if any(kind == "@i" for kind, *_ in links) else ""
        lines.append(f"{int(fields[1])}{named}\t{' '.join(map(str, upward))}\t{'|'.join(lemmas)}")
    return numbers, lines


def read_words(folder: Path, numbers: Numbers) -> Words:
    """-> {word: {field letter: value}}."""
    counts = sense_counts(folder / "cntlist.rev")
    senses: Words = defaultdict(lambda: defaultdict(list))
    for pos, name in FILES.items():
        for line in data_lines(folder / f"index.{name}"):
            fields = line.split()
            for number, offset in enumerate(fields[-int(fields[2]) :], 1):
                count = counts[fields[0], pos, number]
                sense = f"{numbers[pos, offset]}" + (f":{count}" if count else "")
                entry = senses[key(fields[0])][pos]
                if sense not in entry:
                    entry.append(sense)
        for line in data_lines(folder / f"{name}.exc"):
            form, *lemmas = line.split()
            entry = senses[key(form)][pos.upper()]
            entry += [lemma.replace("_", " ") for lemma in lemmas if lemma not in entry]
    return senses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("-o", "--out", type=Path, default=DEFAULT_OUT)
    args = parser.parse_args()

    numbers, synsets = read_synsets(args.folder)
    words = read_words(args.folder, numbers)
    separator = {True: "|", False: " "}
    lines = [f"ramctl-wordnet 1 {len(words)} {len(synsets)}"]
    for word in sorted(words, key=str.encode):
        fields = [
            pos + separator[pos.isupper()].join(values) for pos, values in words[word].items()
        ]
        lines.append("\t".join([word, *fields]))
    text = "\n".join(lines + synsets) + "\n"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "wordnet.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    with (args.folder / "data.noun").open(encoding="utf-8") as stream:
        header = [line.split(" ", 3)[3].rstrip() for line in stream if line.startswith("  ")]
    (args.out / "WORDNET-LICENSE").write_text("\n".join(header) + "\n", encoding="utf-8")
    print(f"{len(words)} words, {len(synsets)} synsets")


if __name__ == "__main__":
    main()
