"""The options that several commands share, declared once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ramctl.commands.base import Option, common, option

FILE_OR_FOLDER = click.Path(path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXIT_CODES = """\
Exit codes: 0 all done; 1 failed; 2 wrong usage; 3 done, but some inputs were rejected;
4 stopped by --max-time, inputs are left; 130 interrupted, 143 terminated (in these three cases
what is written is complete, and --resume continues)."""

shard = option("--shard I/N", "Process part I of N of the input; cat joins the outputs.")
root = option(
    "--root DIR|URL",
    "Folder or URL of relative photo names [default: beside the input file].",
    type=click.Path(file_okay=False),
)
model = common(
    "--model BUNDLE", "Folder, hf://owner/name, or name (doctor --models).", default="mini"
)
labels = common("--labels [+]FILE", "Label file, bundle or word list; +FILE adds to the model's.")


def jobs(default: str, **attributes: Any) -> Option:
    """`-j`, of a command that takes `default` workers without it."""
    text = f"Parallel workers; the output does not change [default: {default}]."
    return option("-j, --jobs N", text, **{"common": True, "field": "workers"} | attributes)


def source_format(known: Sequence[str]) -> Option:
    """`--from`, of a command that recognises the formats of its inputs."""
    return option(
        "--from FORMAT", f"{', '.join(known)} [default: recognised].",
        field="source_format", type=click.Choice(known),
    )  # fmt: skip


rejects = common(
    "--rejects FILE", "Write rejected inputs as JSONL; - for stderr.", type=str, writes=True
)
strict = option("--strict", "Fail at the first rejected input.")
stats = option("--stats FILE", "Write counts, seconds and versions as JSON.", writes=True)
max_time = option("--max-time TIME", "Stop cleanly after 90 (s), 15m, 2h; --resume continues.")
stream = [
    common(
        "-o, --output FILE",
        "Write to FILE, via FILE.part [default: stdout].",
        type=FILE_OR_FOLDER,  # a folder with --ray
        writes=True,
    ),
    common("--resume", "Continue an earlier -o FILE."),
    option("--retry-rejects", "With --resume: try rejected inputs again, last."),
    rejects,
    strict,
    max_time,
    stats,
]

ray = option(
    "--ray ADDRESS", "Process the input files on a Ray cluster (local: here), into the folder -o."
)
batch = option("-b, --batch N", "Records per batch [default: suits the model].")
threads = option("--threads N", "CPU threads of the model [default: all cores].")
device = common("--device DEVICE", "auto, cpu, mps or cuda[:N].", default="auto")
devices = common("--device DEVICE", "auto, cpu, mps, cuda:0 or cuda:0,1 [default: auto].")
dtype = option(
    "--dtype [auto|fp32|bf16|fp16|int8]", "Number format of the computation.", default="auto"
)
seed = option("--seed N", "Random seed.", type=int, default=0)
engine_run = [jobs("1"), batch, threads, dtype, seed]

quiet = common("-q, --quiet", "Print only errors on stderr.")
verbose = option("-v, --verbose", "Twice (-vv): show the traceback of an error.", count=True)
messages = [
    option(
        "--progress/--no-progress", "Show a progress bar [default: on a terminal].", default=None
    ),
    quiet,
    verbose,
]
