"""Versions of packages; extras, with the pip command of each that is missing; devices; whether the
endpoint of caption ($OPENAI_BASE_URL, else Ollama's) answers, and its models; models on this
machine, and known ones to download.

Examples:
  ramctl doctor
"""

import click

TARGET = "ramctl.apps.doctor:DoctorOptions"
OPTIONS: dict[str, list[click.Option]] = {}
