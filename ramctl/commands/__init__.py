"""The commands of `ramctl`, in pipeline order; none is imported here."""

from keyword import iskeyword

COMMANDS = {
    "caption": "Caption photos by a vision-language model (Ollama and others).",
    "parse": "Extract tags from captions, or build a label system from them.",
    "train": "Train a tagging model on parsed records.",
    "generate": "Add the tags and captions that a record lacks.",
    "clean": "Remove wrong tags, judged by image regions and the model's scores.",
    "finetune": "Fine-tune a model on a small, clean set of records.",
    "fit": "Fit a tagger to your own photos, by captions or corrections.",
    "tag": "Tag photos with the built-in model or your own.",
    "search": "Find photos by words or by likeness, and near-duplicates.",
    "export": "Write tags into sidecars, other programs' files and pages.",
    "import": "Read photos' own keywords and captions, as records or labels.",
    "serve": "Tag photos on a page in the browser, and over HTTP.",
    "eval": "Compare predictions with the truth: mAP, precision, recall.",
    "convert": "Convert the authors' checkpoints to bundles, and bundles to ONNX.",
    "doctor": "Show what is installed: versions, extras, devices, models.",
}


def module_of(command: str) -> str:
    """The name of the module that declares a command: `import_` for import."""
    return f"ramctl.commands.{command}{'_' * iskeyword(command)}"
