"""`ramctl doctor`: what is installed and found, and how fast photos are tagged."""

import click

from ramctl.commands import options
from ramctl.commands.base import common

ARGUMENTS: list[click.Argument] = []
TARGET = "ramctl.doctor:DoctorOptions"
HELP = """
Versions of packages; extras, and for each that is not installed the line that brings
it; devices; models that a bare name finds; space that models, caches and downloads
take; and photos tagged per second, measured for as long as --seconds says.
"""
EXAMPLES = """
ramctl doctor
ramctl doctor --json --seconds 0
"""
NOTES = """
Reads no records; writes lines, or with --json one object, to stdout.
Exit codes: 0 done; 1 the model cannot tag; 2 wrong usage.
"""
OPTIONS = {
    "measurement": [
        options.model,
        common(
            "--seconds N",
            "Measure for so long; 0: not at all.",
            default=5.0,
            type=click.FloatRange(0, max=3600),
        ),
        options.devices,
    ],
    "output": [common("--json", "Write one JSON object.")],
    "run": [options.verbose],
}
