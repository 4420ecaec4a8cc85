"""Captions equal the authors' token by token (transformers 4.25.1)."""

import numpy as np
import pytest
import torch

from ramctl.apps.conversion import ConvertOptions, convert_checkpoint
from ramctl.inference.caption_writer import CaptionWriter
from ramctl.inference.runner import ModelPhoto
from ramctl.inference.tagger import Tagger, TaggerOptions, open_runner
from ramctl.inference.torch_engine import TorchEngine
from ramctl.model.device import Runtime
from ramctl.model.generation import Decoding, Ends
from ramctl.records.record import Record

pytestmark = pytest.mark.shared

RUNS = [
    "image0_default", "image1_default", "image2_default", "batch3_default", "batch3_max50",
    "batch3_beam1", "batch3_beam5_min5", "batch3_rep1.5", "batch3_user_tags",
]  # fmt: skip
OPTIONS = {name: name for name in ("max_length", "min_length", "repetition_penalty")}
OPTIONS["num_beams"] = "beams"


def generate(recorded, images, tags, decoding):
    engine = TorchEngine(recorded.model, Runtime(torch.device("cpu")))
    tokenizer = recorded.tokenizer()
    guides, prompt = tokenizer.encode_tags(tags), tokenizer.prompts(len(images))
    ends = Ends(tokenizer.end, tokenizer.pad)
    written = engine.write(engine.encode(images), guides, prompt, decoding, ends)
    pieces = np.concatenate(written)
    return pieces, tokenizer.decode(pieces)


@pytest.mark.parametrize("name", RUNS)
def test_beam_and_greedy_captions_equal_the_authors(tag2text, name):
    run = tag2text.facts["runs"][name]
    images = tag2text.io["image"]
    if name.startswith("image"):
        images = images[int(name[5])][None]
    options = {OPTIONS[k]: v for k, v in run["kwargs"].items() if k in OPTIONS}
    pieces, captions = generate(tag2text, images, run["tags"], Decoding(**options))
    assert pieces.tolist() == run["token_ids"]
    assert captions == run["captions"]


class RecordedInputs:
    """Stands for the preprocessing: a prepared photo is the number of a recorded input."""

    def __init__(self, images):
        self.images = images.numpy()

    def full_batch(self, photos, number):
        blank = np.zeros_like(self.images[0])
        rows = [self.images[photo.item()] for photo in photos]
        return np.stack(rows + [blank] * (number - len(rows)))


def test_the_command_writes_the_recorded_captions(files, tag2text, tmp_path, parity):
    """With the files of a user, and the tags in the order of the labels."""
    arguments, _, io = files("tag2text")
    tags = parity.parent / "labels" / "ram" / "tag2text_ori_tag_list.txt"
    vocabulary, out = str(parity / "tiny_vocab.txt"), tmp_path / "bundle"
    options = ConvertOptions(str(arguments[0]), "tag2text", str(tags), vocab=vocabulary, out=out)
    bundle = convert_checkpoint(options)
    wanted = TaggerOptions(caption=True, runtime="torch", device="cpu", batch=3)
    runner, labels = open_runner(bundle, wanted)
    runner.preprocess = RecordedInputs(io["image"])
    photos = [ModelPhoto(Record({"image": f"{i}.jpg"}), np.array(i, np.uint8)) for i in range(3)]
    outcomes = Tagger(runner, labels, wanted).work(photos)
    recorded = tag2text.facts["runs"]["batch3_default"]
    assert [outcome["generated_captions"][0] for outcome in outcomes] == recorded["captions"]
    # Of 18, 9 and 9 tags: in another order than that of the labels two of three differ.
    names = recorded["tags"][0].split(" | ")
    assert CaptionWriter(bundle).ordered(sorted(names)) == names
