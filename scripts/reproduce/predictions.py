#!/usr/bin/env python3
"""Convert the output of other systems to predictions for `ramctl eval`.

    predictions.py google answers/ > predictions.jsonl
    predictions.py logits output/ --labels ram_tag_list.txt > predictions.jsonl

google, microsoft, aws, apple: responses of tagging services. A .json file is one response and has
its photo's name (dog.json, dog.jpg.json); lines of .jsonl are {"image": ..., "response": ...}; in
Google's batches the photo is the `uri` of a response's `context`. panoptic: COCO's panoptic JSON,
as ODISE and SEEM write it. mkt: text files with what MKT's inference.py prints of a photo each.
logits: the folder of the RAM authors' logits.pth and pred.txt. Folders are searched for files.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import orjson

Row = dict[str, Any]
Scores = dict[str, float]


class NoPrediction(ValueError):
    """A problem with one photo's part of a file."""


def google(response: Row) -> Scores:
    """Labels are missing where there are none.

    Source: AnnotateImageResponse of Cloud Vision's API v1; its Python library writes snake case.
    """
    labels = response.get("labelAnnotations") or response.get("label_annotations") or []
    return best((label["description"], label["score"]) for label in labels)


def microsoft(response: Row) -> Scores:
    """Source: Azure Image Analysis 3.2 (`tags`) and 4.0 (`tagsResult`)."""
    result = response.get("tagsResult")
    tags = response["tags"] if result is None else result["values"]
    return best((tag["name"], tag["confidence"]) for tag in tags)


def amazon(response: Row) -> Scores:
    """A parent that has no confidence of its own is as likely as its most probable child.

    Source: DetectLabels of Amazon Rekognition; confidences are in percent.
    """
    named, implied = [], []
    for label in response["Labels"]:
        confidence = label["Confidence"] / 100
        named += [(one["Name"], confidence) for one in (label, *(label.get("Aliases") or ()))]
        implied += [(parent["Name"], confidence) for parent in label.get("Parents") or ()]
    return best(implied) | best(named)


def apple(response: list[Row]) -> Scores:
    """Source: identifier and confidence of Vision's VNClassificationObservation."""
    return best((seen["identifier"], seen["confidence"]) for seen in response)


def best(pairs: Iterable[tuple[str, float]]) -> Scores:
    """The highest score of each name."""
    scores: Scores = {}
    for name, score in pairs:
        scores[name] = max(score, scores.get(name, score))
    return scores


SERVICES: dict[str, Callable[[Any], Scores]] = {
    "google": google,
    "microsoft": microsoft,
    "aws": amazon,
    "apple": apple,
}


def responses(path: Path, image: str) -> Iterator[tuple[str | None, Any]]:
    """Photos and responses in a file; None for a photo that is not known."""
    if path.suffix == ".jsonl":
        for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines():
            if line.strip():
                row = orjson.loads(line)
                yield row["image"], row.get("response", row)
        return
    document = orjson.loads(path.read_bytes())
    batch = document.get("responses") if isinstance(document, dict) else None
    for response in [document] if batch is None else batch:
        uri = (response.get("context") or {}).get("uri") if isinstance(response, dict) else None
        yield uri or (image if batch is None or len(batch) == 1 else None), response


def of_service(service: str, path: Path, image: str) -> Iterator[Row | NoPrediction]:
    """A record with `scores` of each response."""
    for photo, response in responses(path, image):
        try:
            if isinstance(response, dict) and (error := response.get("error")):
                raise NoPrediction(f"{service} answered with an error: {error}")
            if photo is None:
                raise NoPrediction("which photo is it? it has no context.uri")
            yield {"image": photo, "scores": SERVICES[service](response)}
        except NoPrediction as problem:
            yield problem
        except (KeyError, TypeError, AttributeError) as error:
            yield NoPrediction(f"not a response of {service}: {error!r}")


def of_panoptic(path: Path) -> Iterator[Row | NoPrediction]:
    """The names of the categories of each photo's segments as `tags`.

    Source: `predictions.json` of detectron2's COCOPanopticEvaluator; `file_name` is the mask's.
    """
    document = orjson.loads(path.read_bytes())
    names = {row["id"]: row["name"] for row in document["categories"]}
    photos = {row["id"]: row["file_name"] for row in document.get("images", ())}
    for row in document["annotations"]:
        image = photos.get(row["image_id"]) or PurePosixPath(row["file_name"]).stem
        tags = dict.fromkeys(names[segment["category_id"]] for segment in row["segments_info"])
        yield {"image": image, "tags": list(tags)}


MKT_TITLE = "Top-10 Predictions:"
# Six characters of a score: where there is an exponent, its digits are lost.
MKT_LINE = re.compile(r"(\S.*?)\s*(-?\d\.\d+)(e.*)?")


def of_mkt(path: Path, image: str) -> Iterator[Row | NoPrediction]:
    """The ten scores of one photo."""
    _, title, ranking = path.read_text("utf-8", "replace").partition(MKT_TITLE)
    matches = map(MKT_LINE.fullmatch, filter(None, map(str.strip, ranking.splitlines())))
    scores = {match[1]: 0.0 if match[3] else float(match[2]) for match in matches if match}
    yield {"image": image, "scores": scores} if title else NoPrediction(f"no {MKT_TITLE!r}")


def of_logits(folder: Path, labels: list[str]) -> Iterator[Row | NoPrediction]:
    """Rows of `logits.pth`: probabilities (N, C), despite its name; photos are in `pred.txt`.

    Source: the authors' batch_inference.py.
    """
    import torch

    table = torch.load(folder / "logits.pth", map_location="cpu", weights_only=True)
    photos = [line.split(",") for line in (folder / "pred.txt").read_text("utf-8").splitlines()]
    if table.shape != (len(photos), len(labels)):
        shape = " x ".join(map(str, table.shape))
        raise ValueError(f"{shape} numbers for {len(photos)} photos and {len(labels)} labels")
    for number, ((image, *tags), row) in enumerate(zip(photos, table, strict=True)):
        first = {"label_names": labels} if number == 0 else {}
        yield {"image": image, "tags": list(filter(None, tags)), **first, "dense": row.tolist()}


def rows_of(form: str, path: Path, labels: list[str]) -> Iterator[tuple[Path, Row | NoPrediction]]:
    """The records of a file or of all files in a folder."""
    if form == "logits":
        yield from ((path, row) for row in of_logits(path, labels))
        return
    suffix = ".txt" if form == "mkt" else ".json"
    for file in sorted(path.rglob(f"*{suffix}")) if path.is_dir() else [path]:
        image = str(file.relative_to(path if path.is_dir() else file.parent).with_suffix(""))
        if form == "panoptic":
            rows = of_panoptic(file)
        elif form == "mkt":
            rows = of_mkt(file, image)
        else:
            rows = of_service(form, file, image)
        yield from ((file, row) for row in rows)


def main() -> int:
    """The command line; the exit status is 3 where some photo has no prediction."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("form", choices=[*SERVICES, "panoptic", "mkt", "logits"])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--labels", type=Path, help="the columns of logits, one a line")
    options = parser.parse_args()
    labels = options.labels.read_text("utf-8").splitlines() if options.labels else []
    status = 0
    for path in options.files:
        try:
            for file, row in rows_of(options.form, path, labels):
                if isinstance(row, NoPrediction):
                    sys.stderr.write(f"{file}: {row}\n")
                    status = 3
                else:
                    sys.stdout.buffer.write(orjson.dumps(row) + b"\n")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            sys.stderr.write(f"{path}: not {options.form}: {error!r}\n")
            return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
