"""`ramctl doctor`: what is installed and found."""

import click

from ramctl.commands.options import Option

ARGUMENTS: list[click.Argument] = []
TARGET = "ramctl.apps.doctor:DoctorOptions"
HELP = """
Versions of packages; extras, with the pip command of each that is missing; devices; whether the
endpoint of caption ($OPENAI_BASE_URL, else Ollama's) answers, and its models; models on this
machine, and known ones to download.
"""
EXAMPLES = """
ramctl doctor
"""
NOTES = """
Reads no records; writes lines to stdout.
Exit codes: 0 done; 2 wrong usage.
"""
OPTIONS: dict[str, list[Option]] = {}
