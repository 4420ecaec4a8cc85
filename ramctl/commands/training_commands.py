"""The commands that make a tagger out of captions, and their options."""

from collections.abc import Sequence
from typing import Any

import click
from click import Choice

from ramctl.commands import shared_options as options
from ramctl.commands.command import Command
from ramctl.commands.shared_options import NAME, OUTPUT, option
from ramctl.records.choices import CAPTION_FORMATS


def read_labels(name: str) -> Any:
    """The label system in a file or bundle."""
    from ramctl.checkpoints.bundle import read_labels  # which takes a while

    return read_labels(name)


def training_options(
    start: Sequence[click.Option], out: str, more: Sequence[click.Option] = ()
) -> list[click.Parameter | str]:
    """The options of a training command that starts from `start` and writes the bundle `out`."""
    return [
        "Input",
        options.inputs,
        options.root,
        option("--val FILE", "Validation records [default: hold some out].", type=NAME),
        "Model",
        *start,
        "Training",
        option("--epochs N", "Passes over the records.", type=click.FloatRange(0, min_open=True)),
        option(
            "--set KEY=VALUE",
            "Change a setting, as training.lr=1e-4; repeatable.",
            "overrides",
            multiple=True,
        ),
        *more,
        "Output",
        option("--out DIR", "Bundle to write.", default=out),
        option("--resume", "Continue the unfinished run in OUT.work."),
        options.rejects,
        option("--events FILE", "Write a line for each step and validation.", type=OUTPUT),
        "Run",
        options.device,
        options.quiet,
    ]


caption = Command(
    "caption",
    "Caption photos by a vision-language model (Ollama and others).",
    """
Inputs are those of tag. The model runs behind any OpenAI-compatible endpoint: Ollama (the
default), LM Studio, llama.cpp, vLLM or a hosted one, with the key in OPENAI_API_KEY.

Reads image; replaces captions, captioner (the model). Photos are sent upright, shrunk, as JPEG
without metadata, at temperature 0. A request is tried five times more; five photos in a
row that the server fails on end the run with 1, and --resume continues.

Examples:
  ramctl caption -R photos --model qwen3-vl:8b -o captions.jsonl --resume
  ramctl caption photo.jpg --model NAME --endpoint http://localhost:1234/v1
  ramctl caption -R photos --model NAME | ramctl parse --labels mini
""",
    "ramctl.captions.caption_photos:CaptionOptions",
    "Input",
    *options.photos,
    options.shard,
    "Model",
    option("--model NAME", "The model, as the endpoint names it.", envvar="RAMCTL_CAPTION_MODEL"),
    option("--endpoint URL", "Its address [default: $OPENAI_BASE_URL, else Ollama's]."),
    option("--style [dense|short]", "One or two sentences, or 14 words.", default="dense"),
    option("--prompt FILE", "Replace the built-in prompt.", type=options.EXISTING_FILE),
    option("--size N", "Pixels of the longer side, at most.", default=1024),
    "Output",
    *options.stream,
    "Run",
    option("-j, --jobs N", "Requests at once.", default=4, field="workers"),
    options.quiet,
)

parse = Command(
    "parse",
    "Extract tags from captions, or build a label system from them.",
    """
Every visible thing, place, property or action that a caption names becomes a tag; with
--labels only the labels in that file. Input formats are recognised; --from forces one.

Reads captions (or caption); writes tags, caption_tags, kinds, sources; with --explain, explain.
Memory stays constant, but --group holds all records in memory.

Examples:
  ramctl parse captions.jsonl > tagged.jsonl
  ramctl parse --build-labels labels.jsonl --review labels.tsv captions.jsonl
  ramctl parse --labels labels.jsonl --from coco captions_val2017.json
""",
    "ramctl.parsing.parse_run:ParseOptions",
    "Input",
    options.inputs,
    options.root,
    options.shard,
    option(
        "--from FORMAT",
        f"{', '.join(CAPTION_FORMATS)} [default: recognised].",
        "source_format",
        type=Choice(CAPTION_FORMATS),
    ),
    option("--caption-column NAME", "Name of the field with the captions.", "caption"),
    option("--image-column NAME", "Name of the field with the photo.", "image"),
    option("--group", "Join all captions of a photo into one record."),
    "Labels",
    option("--labels FILE", "Give only the labels of a file or bundle (mini).", type=read_labels),
    option("--build-labels FILE", "Build a label system; write no records.", type=OUTPUT),
    option("--merge FILE", "With --build-labels: a class list to add; repeatable.", multiple=True),
    option("--size N", "With --build-labels: the most frequent N labels [default: 4585]."),
    option("--review FILE", "With --build-labels: a table to edit, then rerun.", type=OUTPUT),
    "Output",
    option(
        "-f, --format [jsonl|tags|ram]",
        "tags: image and tags alone; ram: the RAM authors' training JSON (with --labels).",
        "target_format",
        default="jsonl",
    ),
    option("--keep-tags", "Keep the input's own tags, as a person's tags."),
    option("--explain", "Add the words and the rule behind each tag."),
    *options.stream,
    options.strict,
    options.stats,
    "Run",
    options.jobs,
    options.ray,
    options.quiet,
)

train = Command(
    "train",
    "Train a tagging model on parsed records.",
    """
Labels come from --labels, else from --model, else from the records' tags.
All records are read before the first step.

Reads image, tags, captions, caption_tags, generated_captions, generated_caption_tags, kinds.
Writes a bundle to OUT; OUT.work holds the unfinished run. Several processes: torchrun ... -m
ramctl train ...; the exit code is then 0 with rejects, as torchrun takes 3 for a failure.

Examples:
  ramctl parse captions.jsonl | ramctl train
  ramctl train parsed.jsonl --preset mini --val dev.jsonl --epochs 10
""",
    "ramctl.training.train:TrainOptions",
    *training_options(
        [
            option(
                "--preset NAME|FILE", "Architecture and settings [default: --model's, or mini]."
            ),
            option(
                "--model BUNDLE",
                "Start from a bundle's weights and labels.",
                "init",
                envvar="RAMCTL_TRAIN_MODEL",
            ),
            options.labels,
            option("--text DIR|mini", "Label embeddings [default: --model's].", type=NAME),
        ],
        "model",
        [
            option(
                "--distill TEACHER",
                "caption, imagenet, clip:FOLDER, scores:FILE, none; repeatable.",
                multiple=True,
            )
        ],
    ),
)

generate = Command(
    "generate",
    "Add the tags and captions that a record lacks.",
    """
Existing tags stay. A tag that clean has removed is not added again.

Reads image, tags, kinds, sources, removed; writes tags, kinds, scores, sources, generator,
generated_captions, generated_caption_tags. Memory stays constant.

Examples:
  ramctl parse captions.jsonl | ramctl generate --model model/ > more.jsonl
  ramctl generate tagged.jsonl -o more.jsonl --captions 0 --precision 0.9
""",
    "ramctl.data_engine.additions:GenerateOptions",
    "Input",
    options.inputs,
    options.root,
    options.shard,
    "Model",
    options.model,
    option("--captions N", "Add at most N captions a photo.", type=click.IntRange(0), default=1),
    option("--threshold NUMBER|FILE", "Add tags above this score."),
    option("--precision P", "Target precision of added tags [default: 0.8]."),
    "Output",
    *options.stream,
    "Run",
    options.devices,
    options.jobs,
    options.ray,
    options.quiet,
)

clean = Command(
    "clean",
    "Remove wrong tags, judged by image regions and the model's scores.",
    """
--rule model removes tags that are probably wrong, by the model's score of the photo and by the
other records. --rule paper removes outliers, and tags that the model does not predict on their
own regions: far more, and mostly right ones. A person's tags are never removed.

Reads image, tags, kinds, sources, generator; writes tags, kinds, scores, sources, removed.
All records are read (onto disk) before the first is written; a stopped run starts again. Memory:
a few numbers a tag, and from 10,000 records on 5 x features x (features + labels).

Examples:
  ramctl generate tagged.jsonl | ramctl clean > clean.jsonl
  ramctl clean more.jsonl -o clean.jsonl --rule paper
""",
    "ramctl.data_engine.cleaning:CleanOptions",
    "Input",
    options.inputs,
    options.root,
    "Model",
    options.model,
    option("--detector NAME", "attention or grounding-dino:WEIGHTS.", default="attention"),
    "Cleaning",
    option("--rule [model|paper]", "Which tags are wrong.", default="model"),
    option("--kinds KIND,...", "Kinds of tags to clean [default: all; paper: object,scene]."),
    option("--outliers FRACTION", "Paper: remove these of a tag's regions [default: 0.1]."),
    option(
        "--threshold NUMBER|FILE",
        "Paper: remove tags whose regions score no more [default: the model's].",
    ),
    "Output",
    options.output,
    options.rejects,
    "Run",
    options.device,
    options.quiet,
)

finetune = Command(
    "finetune",
    "Fine-tune a model on a small, clean set of records.",
    """
Goes on with the training of a bundle, at its preset's settings for that. It keeps the labels
and, without --val, what scores are worth. Reads and writes what train does.

Examples:
  ramctl finetune --model model good.jsonl --out tuned
  ramctl finetune --model model --labels +birds.txt birds.jsonl --epochs 2
""",
    "ramctl.training.train:TrainOptions",
    *training_options(
        [
            option("--model BUNDLE", "The bundle to start from.", "init", default="mini"),
            options.labels,
        ],
        "model-finetuned",
    ),
)

fit = Command(
    "fit",
    "Fit a tagger to your own photos, by captions or corrections.",
    """
Fits labels to 20 to 5,000 photos with parsed captions, keywords or corrections, in minutes.
Things that five captions name become labels. Photos of other kinds are tagged as before.

Reads image, tags, kinds, captions, caption_tags, confirmed, refused. Writes a bundle to OUT; a
stopped run starts again.

Examples:
  ramctl parse captions.jsonl | ramctl fit --out mine
  ramctl import -R photos | ramctl fit --out mine
""",
    "ramctl.training.fit:FitOptions",
    "Input",
    options.inputs,
    options.root,
    "Model",
    options.model,
    "Output",
    option("--out DIR", "Bundle to write.", default="fitted"),
    options.rejects,
)

eval_ = Command(
    "eval",
    "Compare predictions with the truth: mAP, precision, recall.",
    """
PREDICTIONS is JSONL, Parquet or a table, - for stdin; several files are compared. Photos match
by image, else by unique base name. mAP is higher on fewer photos: compare on the same photos.

Predictions: image, and dense with label_names (first line), else scores, else tags (score 1).
Without --threshold, the records' tags count as predicted if all records have them.
Truth: image, tags, uncertain (ignored), negatives (if present, other tags are unknown).
CSV and TSV: image,tags[,scores], image,label[,score], or a column for each label; without a
header, id,tag,tag. Writes figures, classes, unmatched photos.
Memory: about six bytes a photo and class.

Examples:
  ramctl tag --dense photos/*.jpg | ramctl eval - --truth truth.jsonl
  ramctl eval new.jsonl old.jsonl --truth truth.jsonl -f table
""",
    "ramctl.evaluation.evaluate:EvalOptions",
    "Input",
    click.Argument(["predictions"], metavar="[PREDICTIONS]...", nargs=-1, type=NAME),
    option("--truth FILE", "Records with the true tags.", type=NAME, required=True),
    option(
        "--classes FILE",
        "Word list or bundle [default: the truth's tags].",
        type=options.FILE_OR_FOLDER,
    ),
    option("--map FILE", "Lines of class<TAB>tag|tag; the best score counts.", "map_file"),
    "Metrics",
    option("--threshold NUMBER|FILE", "Count tags above this score [default: 0.5]."),
    option("--ci", "Add the 95 % bootstrap interval of mAP."),
    "Output",
    option("-f, --format [json|table]", "Format of the figures.", default="json"),
    options.output,
    option("--report FILE", "Write a CSV row for each class.", "report_file", type=OUTPUT),
    option("--plot FILE", "Draw curves and classes (.png, .svg, .pdf).", type=OUTPUT),
    options.rejects,
    "Run",
    options.quiet,
)

convert = Command(
    "convert",
    "Convert the authors' checkpoints to bundles, and bundles to ONNX.",
    """
A known model (see doctor) is downloaded and converted into $RAMCTL_MODELS.
Nothing in a checkpoint is executed: a file that holds more than weights is refused.
Any file may be hf://owner/name:file.

Examples:
  ramctl convert ram-plus
  ramctl convert ram_swin_large_14m.pth --arch ram --out my-model
  ramctl convert my-model --to onnx
""",
    "ramctl.apps.conversion:ConvertOptions",
    "Checkpoint",
    click.Argument(["source"], metavar="NAME|CHECKPOINT|BUNDLE", type=NAME),
    option("--arch [ram|ram-plus|tag2text]", "Architecture of the checkpoint."),
    option("--tags FILE", "Word list or labels [default: the authors'].", type=NAME),
    option("--thresholds FILE", "Thresholds: numbers, or JSONL [default: 0.68].", type=NAME),
    option("--vocab FILE", "Tokens of captions, one a line [default: BERT's].", type=NAME),
    option("--text-encoder DIR", "CLIP that embeds new words [default: the authors'].", type=NAME),
    "Graph",
    option("--to [onnx]", "Add photo.onnx and labels.onnx to a bundle.", field="target"),
    "Output",
    option("--out DIR", "Bundle to write [--to onnx: BUNDLE]."),
)

doctor = Command(
    "doctor",
    "Show what is installed: versions, extras, devices, models.",
    """
Versions of packages; extras, with the pip command of each that is missing; devices; whether the
endpoint of caption ($OPENAI_BASE_URL, else Ollama's) answers, and its models; models on this
machine, and known ones to download.

Examples:
  ramctl doctor
""",
    "ramctl.apps.doctor:DoctorOptions",
)

COMMANDS = [caption, parse, train, generate, clean, finetune, fit, eval_, convert, doctor]
