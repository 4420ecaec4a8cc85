"""`ramctl caption`: photos in, records with a model's captions out."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from ramctl.captions.answer import caption_in
from ramctl.captions.endpoint import Endpoint, ServerProblem
from ramctl.errors import UsageProblem, attempt
from ramctl.photos.decoding import Photo, photo_record, record_photo
from ramctl.photos.finding import PhotoInputs, photo_items
from ramctl.records.inputs import inputs_or_stdin
from ramctl.records.jsonl import content_stamp
from ramctl.records.parallel import ordered_map
from ramctl.records.record import JsonObject, Record
from ramctl.records.report import Report
from ramctl.records.stream import Batch, Outcome, StreamOptions, run_stream

_END = "State only what can be seen. Write plain text: no introduction, list or Markdown."
PROMPTS = {
    "dense": "Describe this photo in one or two plain, dense sentences. Begin with the main subject"
    " by its most specific common name; then name the other things, their parts and colours, the"
    f" place, and what is being done. {_END}",
    "short": "Describe this photo in one plain sentence of at most 14 words. Begin with the main"
    f" subject by its most specific common name. {_END}",
}
MAX_TOKENS = 2048  # room for models that think first
_QUALITY = 90  # of the JPEGs that are sent


@dataclass(frozen=True, slots=True)
class CaptionOptions:
    """The options of `ramctl caption`."""

    inputs: tuple[str, ...] = ()  # photos, folders, archives, records; none or `-`: stdin
    photos: PhotoInputs = field(default_factory=PhotoInputs)
    model: str = ""  # as the endpoint names it
    endpoint: str | None = None  # URL; None: $OPENAI_BASE_URL, else Ollama's
    prompt: Path | None = None
    style: str = "dense"
    size: int = 1024  # pixels of the longer side
    workers: int = 4
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False


class Captioner:
    """A vision-language model that captions photos.

    `Captioner(Endpoint(), "qwen3-vl:8b").caption("photo.jpg")` is the caption of a photo.
    """

    def __init__(
        self, endpoint: Endpoint, model: str, prompt: str = PROMPTS["dense"], size: int = 1024
    ) -> None:
        self.endpoint = endpoint
        self.model = model
        self.prompt = prompt
        self.size = size

    def caption(self, photo: Photo) -> str:
        """The caption of a photo: a path, the bytes of a file, a picture of Pillow's, an array.

        RecordProblem for a photo without a caption, RunProblem if the endpoint cannot be used.
        """
        record = photo_record(photo, "the photo", official=False)
        return self._caption(record_photo(record, self.size))

    def stage(self, batches: Iterator[Batch], workers: int) -> Iterator[list[Outcome]]:
        """The records of batches with `captions` and `captioner`, several requests at once.

        Failures of the server wait for the next answer: where none comes they are an outage, which
        ends the run, and no rejects.
        """
        waiting: list[list[Outcome]] = []
        for outcomes in ordered_map(
            lambda batch: [attempt(self._captioned, record) for record in batch], batches, workers
        ):
            waiting.append(outcomes)
            if not isinstance(outcomes[-1], ServerProblem):
                yield from waiting
                waiting.clear()
        yield from waiting

    def _captioned(self, record: Record) -> JsonObject:
        caption = self._caption(record_photo(record, self.size))
        fields = {name: v for name, v in record.fields.items() if name != "caption_tags"}
        return fields | {"captions": [caption], "captioner": self.model}

    def _caption(self, photo: Image.Image) -> str:
        picture = {"type": "image_url", "image_url": {"url": _data_url(photo, self.size)}}
        text = {"type": "text", "text": self.prompt}
        return caption_in(
            self.endpoint.answer(
                [picture, text], model=self.model, max_tokens=MAX_TOKENS, temperature=0
            )
        )


def _data_url(photo: Image.Image, size: int) -> str:
    """A photo as a JPEG of at most `size` pixels a side, without metadata."""
    if max(photo.size) > size:
        photo = photo.copy()
        photo.thumbnail((size, size))
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(photo), quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def run(options: CaptionOptions) -> Report:
    """Caption the photos; the report of the run."""
    if not options.model:
        raise UsageProblem("name a model with --model (ramctl doctor lists the endpoint's)")
    prompt = PROMPTS[options.style]
    if options.prompt is not None:
        prompt = options.prompt.read_text("utf-8", errors="replace").strip()
    if not prompt:
        raise UsageProblem(f"--prompt {options.prompt}: no text in it")
    stream = options.stream
    report = Report("caption", options.quiet, unit="images")
    names = inputs_or_stdin(options.inputs, "photos")
    endpoint = Endpoint(options.endpoint)
    report.counts = endpoint.tokens
    photos = replace(options.photos, names=names, stage="caption", skipped=report.counts)
    source = stream.shard.of(photo_items(photos))
    if not endpoint.is_local:
        report.notify(f"sends the photos, shrunk and without metadata, to {endpoint.host}")
    captioner = Captioner(endpoint, options.model, prompt, options.size)
    report.device = f"{options.model} at {endpoint.url}"
    return run_stream(
        report, source, partial(captioner.stage, workers=options.workers),
        replace(stream, batch=1),  # each caption is written as soon as it is there
        fingerprint={
            "--model": options.model, "--prompt": content_stamp(prompt.encode()),
            "--size": str(options.size),
        },
    )  # fmt: skip
