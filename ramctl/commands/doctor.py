"""`ramctl doctor`: what is installed and found."""

import click

from ramctl.commands import options
from ramctl.commands.options import common

ARGUMENTS: list[click.Argument] = []
TARGET = "ramctl.installation:DoctorOptions"
HELP = """
Versions of packages; extras, with the pip command of each that is missing; plug-ins;
devices; whether the endpoint of caption ($OPENAI_BASE_URL, else Ollama's) answers, and which
of its models see photos; models on this machine, and known ones to download.
"""
EXAMPLES = """
ramctl doctor
ramctl doctor --models
ramctl doctor --json
"""
NOTES = """
Reads no records; writes lines, or with --json one object, to stdout.
Exit codes: 0 done; 2 wrong usage.
"""
OPTIONS = {
    "output": [
        common("--models", "Only list models: here, and to download."),
        common("--json", "Write one JSON object."),
    ],
    "run": [options.verbose],
}
