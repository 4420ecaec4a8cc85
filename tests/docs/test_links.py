"""What the documents point to is there: links, headings, and paths of the project."""

import re

import pytest

from ramctl.cli import SENTENCE
from tests.conftest import REPOSITORY

FOLDERS = ("ramctl", "scripts", "tests", "completions")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
WORD = re.compile(r"[\w./*-]+")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
README = REPOSITORY / "README.md"
CONTRIBUTING = REPOSITORY / "CONTRIBUTING.md"
MOST_README_LINES = 150
MOST_WORDS, MOST_WORDS_OF_CONTRIBUTING = 24_000, 900


def documents():
    inner = (path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.md"))
    return sorted([*REPOSITORY.glob("*.md"), *inner])


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = HEADING.findall(FENCE.sub("", text))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def by_name(path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", documents(), ids=by_name)
def test_links_lead_to_files_and_headings(path):
    text = path.read_text("utf-8")
    for link in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{by_name(path)}: {link} is not there"
        if anchor:
            headings = anchors(target.read_text("utf-8"))
            assert anchor in headings, f"{by_name(path)}: no heading {link}"


@pytest.mark.parametrize("path", documents(), ids=by_name)
def test_paths_of_the_project_exist(path):
    for word in WORD.findall(path.read_text("utf-8")):
        name = word.strip(".").removeprefix("./")
        top, slash, rest = name.partition("/")
        if slash and rest and top in FOLDERS:
            assert list(REPOSITORY.glob(name)), f"{by_name(path)}: {name} is not there"


def rows(text: str, heading: str) -> list[str]:
    """The rows of the table under a heading, without its head."""
    _, _, rest = text.partition(f"\n## {heading}\n")
    section, _, _ = rest.partition("\n## ")
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", rows(CONTRIBUTING.read_text("utf-8"), "Where new things go"))
def test_where_new_things_go_names_what_is_there(row):
    """Each name in code style is a path, or it stands in one of the files that the row names."""
    files, names = [], []
    for word in re.findall(r"`([^`]+)`", row.split("|", 2)[2]):
        if "/" in word:
            files.append(REPOSITORY / word)
        elif files and re.fullmatch(r"\w+\.(py|js)", word):  # beside the file before it
            folder = files[-1] if files[-1].is_dir() else files[-1].parent
            files.append(folder / word)
            assert files[-1].exists(), word
        elif re.fullmatch(r"\w+", word):
            names.append(word)
    texts = [path.read_text("utf-8") for path in files if path.is_file()]
    for name in names:
        found = any(re.search(rf"\b{name}\b", text) for text in texts)
        assert found, f"{name} is in none of the files of its row"


def test_documents_are_short():
    words = {by_name(path): len(path.read_text("utf-8").split()) for path in documents()}
    assert sum(words.values()) <= MOST_WORDS
    assert words["CONTRIBUTING.md"] <= MOST_WORDS_OF_CONTRIBUTING
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= MOST_README_LINES
    assert text.startswith(f"# ramctl\n\n{SENTENCE.replace(chr(10), ' ')}\n")


def test_the_readme_leads_to_every_manual():
    links = {link.partition("#")[0] for link in LINK.findall(README.read_text("utf-8"))}
    assert {name for name in map(by_name, documents()) if name.startswith("ramctl/")} <= links
