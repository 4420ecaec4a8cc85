"""What tagging services say of photos: responses of Google, Microsoft, Amazon and Apple.

A JSON file is one response and has the photo's name (`dog.json` or `dog.jpg.json`); a folder holds
such files; lines of JSONL are `{"image": ..., "response": ...}`. In Google's batches the photo is
the `uri` of the response's `context`.
"""

from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ramctl.errors import RecordProblem, RunProblem
from ramctl.readers.source import Source
from ramctl.records.files import unpacked_name
from ramctl.records.inputs import STDIN, open_input
from ramctl.records.record import Item, JsonObject, Reject, encode_name

Scores = dict[str, float]
LINES = (".jsonl", ".ndjson")


def _google(response: JsonObject) -> Scores:
    """Labels are missing where there are none.

    Source: AnnotateImageResponse of Cloud Vision's API v1; its Python library writes snake case.
    """
    labels = response.get("labelAnnotations") or response.get("label_annotations") or []
    return _best((label["description"], label["score"]) for label in labels)


def _microsoft(response: JsonObject) -> Scores:
    """Source: Azure Image Analysis 3.2 (`tags`) and 4.0 (`tagsResult`)."""
    result = response.get("tagsResult")
    tags = response["tags"] if result is None else result["values"]
    return _best((tag["name"], tag["confidence"]) for tag in tags)


def _amazon(response: JsonObject) -> Scores:
    """A parent that has no confidence of its own is as likely as its most probable child.

    Source: DetectLabels of Amazon Rekognition; confidences are in percent.
    """
    named, implied = [], []
    for label in response["Labels"]:
        confidence = label["Confidence"] / 100
        named += [(one["Name"], confidence) for one in (label, *(label.get("Aliases") or ()))]
        implied += [(parent["Name"], confidence) for parent in label.get("Parents") or ()]
    return _best(implied) | _best(named)


def _apple(response: list[JsonObject]) -> Scores:
    """Source: identifier and confidence of Vision's VNClassificationObservation."""
    return _best((seen["identifier"], seen["confidence"]) for seen in response)


def _best(pairs: Iterable[tuple[str, float]]) -> Scores:
    """The highest score of each name."""
    scores: Scores = {}
    for name, score in pairs:
        scores[name] = max(score, scores.get(name, score))
    return scores


SERVICES: dict[str, Callable[[Any], Scores]] = {
    "google": _google,
    "microsoft": _microsoft,
    "aws": _amazon,
    "apple": _apple,
}


def service_of(document: Any) -> str | None:
    """The service that a response, or a record with one, comes from."""
    response = document.get("response", document) if isinstance(document, dict) else document
    if isinstance(response, list):
        is_apple = bool(response) and isinstance(response[0], dict) and "identifier" in response[0]
        return "apple" if is_apple else None
    if not isinstance(response, dict):
        return None
    if not response.keys().isdisjoint({"labelAnnotations", "label_annotations", "responses"}):
        return "google"
    if isinstance(response.get("Labels"), list):
        return "aws"
    tags = response.get("tags")
    has_tags = isinstance(tags, list) and (
        isinstance(tags[0], dict) if tags else "requestId" in response
    )
    return "microsoft" if has_tags or "tagsResult" in response else None


class _Response(NamedTuple):
    image: Any
    content: Any
    line: int


def read_responses(source: Source, service: str) -> Iterator[Item]:
    """One record with `scores` per response of a service."""
    name = source.name
    if Path(name).is_dir():
        found = _in_folder(source)
    elif name == STDIN or Path(unpacked_name(name)).suffix in LINES:
        found = _in_lines(source)
    else:
        found = _in_file(source)
    for document in found:
        if isinstance(document, Reject):
            yield document
            continue
        for image, content, line in _unbatched(document):
            try:
                fields = {"image": image, "scores": _scores(content, service)}
                if image is None:
                    message = "which photo is it? it has no context.uri"
                    raise RecordProblem(message, code="missing_field")
                yield source.record(fields, line)
            except RecordProblem as problem:
                yield source.reject(line, problem.code, problem.message, content)


def _unbatched(found: _Response) -> Iterator[_Response]:
    """The responses of one of Google's batches; None for a photo that is not known."""
    batch = found.content.get("responses") if isinstance(found.content, dict) else None
    if not isinstance(batch, list):
        yield found
        return
    for number, response in enumerate(batch, 1):
        context = response.get("context") if isinstance(response, dict) else None
        uri = context.get("uri") if isinstance(context, dict) else None
        is_alone = len(batch) == 1
        line = found.line if is_alone else number
        yield _Response(uri or (found.image if is_alone else None), response, line)


def _scores(response: Any, service: str) -> Scores:
    if isinstance(response, dict) and (error := response.get("error")):
        message = error.get("message", error) if isinstance(error, dict) else error
        raise RecordProblem(f"{service} answered with an error: {message}", code="bad_field")
    try:
        return SERVICES[service](response)
    except (KeyError, TypeError, AttributeError) as error:
        message = f"not a response of {service}: {error!r}"
        raise RecordProblem(message, code="bad_field") from error


def _in_lines(source: Source) -> Iterator[_Response | Reject]:
    with open_input(source.name) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                fields = orjson.loads(line.removeprefix(BOM_UTF8))
                yield _Response(fields["image"], fields.get("response", fields), number)
            except ValueError as error:
                yield source.reject(number, "bad_json", f"bad JSON: {error}", line)
            except (KeyError, TypeError):
                yield source.reject(number, "missing_field", "no image field", line)


def response_files(folder: Path) -> list[Path]:
    """The files of responses in a folder and those below it."""
    return sorted(folder.rglob("*.json"))


def _in_folder(source: Source) -> Iterator[_Response | Reject]:
    folder = Path(source.name)
    for number, path in enumerate(response_files(folder), 1):
        place = Source(str(path), source.base, source.stage)
        image = encode_name(str(path.relative_to(folder).with_suffix("")))
        try:
            yield _Response(image, orjson.loads(path.read_bytes()), number)
        except (ValueError, OSError) as error:
            yield place.reject(number, "bad_json", f"bad JSON: {error}", "")


def _in_file(source: Source) -> Iterator[_Response | Reject]:
    try:
        with open_input(source.name) as stream:
            document = orjson.loads(stream.read())
    except ValueError as error:
        raise RunProblem(f"{source.name}: bad JSON: {error}") from error
    name = Path(unpacked_name(source.name)).name.removesuffix(".json")
    yield _Response(encode_name(name), document, 1)
