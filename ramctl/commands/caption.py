"""Inputs are those of tag. The model runs behind any OpenAI-compatible endpoint: Ollama (the
default), LM Studio, llama.cpp, vLLM or a hosted one, with the key in OPENAI_API_KEY.

Reads image; replaces captions, captioner (the model). Photos are sent upright, shrunk, as JPEG
without metadata, at temperature 0. A request is tried five times more; five photos in a
row that the server fails on end the run with 1, and --resume continues.

Examples:
  ramctl caption -R photos --model qwen3-vl:8b -o captions.jsonl --resume
  ramctl caption photo.jpg --model NAME --endpoint http://localhost:1234/v1
  ramctl caption -R photos --model NAME | ramctl parse --labels mini
"""

from ramctl.commands import options
from ramctl.commands.options import option

TARGET = "ramctl.captions.caption_photos:CaptionOptions"
OPTIONS = {
    "Input": [*options.photos, options.shard],
    "Model": [
        option(
            "--model NAME", "The model, as the endpoint names it.", envvar="RAMCTL_CAPTION_MODEL"
        ),
        option("--endpoint URL", "Its address [default: $OPENAI_BASE_URL, else Ollama's]."),
        option("--style [dense|short]", "One or two sentences, or 14 words.", default="dense"),
        option("--prompt FILE", "Replace the built-in prompt.", type=options.EXISTING_FILE),
        option("--size N", "Pixels of the longer side, at most.", default=1024),
    ],
    "Output": options.stream,
    "Run": [
        option("-j, --jobs N", "Requests at once.", default=4, field="workers"),
        options.quiet,
    ],
}
