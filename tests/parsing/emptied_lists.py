"""Which of the word lists change the tags of their example: JSON {list: caption} to [list].

Rules bind lists when they are imported, so each list is emptied in a process of its own, which
imports them again.
"""

import json
import os
import sys

from ramctl.parsing.english import lexicon
from ramctl.parsing.english.pos_tagger import PosTagger
from ramctl.parsing.english.wordnet import WordNet

RULES = "ramctl.parsing.english.rules"


def parsed(emptied: str, captions: list[tuple[list[str], list[str]]]) -> list[object]:
    """The tags of tagged captions with a list emptied, or none."""
    if emptied:
        lexicon._word_lists()[emptied] = []
        lexicon.word_set.cache_clear()
        for module in [name for name in sys.modules if name.startswith(RULES)]:
            del sys.modules[module]
    from ramctl.parsing.english.rules.apply import read_caption

    known = lexicon.Lexicon.shared()
    parses = [read_caption(words, tags, known) for words, tags in captions]
    return [[sorted(parse.kinds.items()), list(parse.phrases)] for parse in parses]


def parsed_in_fork(emptied: str, captions: list[tuple[list[str], list[str]]]) -> list[object]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(writer, "w") as out:
            json.dump(parsed(emptied, captions), out)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as result:
        text = result.read()
    os.waitpid(child, 0)
    return json.loads(text)


def main() -> None:
    examples = json.load(sys.stdin)
    tagged = list(PosTagger.shared().tag(examples.values()))
    WordNet.shared()
    usual = parsed_in_fork("", tagged)
    changing = [
        name
        for i, name in enumerate(examples)
        if parsed_in_fork(name, tagged[i : i + 1]) != usual[i : i + 1]
    ]
    json.dump(changing, sys.stdout)


if __name__ == "__main__":
    main()
