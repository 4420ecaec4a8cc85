"""The commands of `ramctl`, in pipeline order; none is imported here."""

COMMANDS = {
    "parse": "Extract tags from captions, or build a label system from them.",
    "train": "Train a tagging model on parsed records.",
    "generate": "Add tags and captions that the captions leave out.",
    "clean": "Remove wrong tags, judged by image regions and the model's scores.",
    "finetune": "Fine-tune a model on a small, clean set.",
    "tag": "Tag photos with the built-in model or your own.",
    "search": "Find photos by words, by likeness, and near-duplicates.",
    "export": "Write tags into sidecars, other programs' files and pages.",
    "import": "Read photos' own keywords and captions, as records or labels.",
    "serve": "Tag photos on a page in the browser, and over HTTP.",
    "eval": "Compare predictions with the truth: mAP, precision, recall.",
    "convert": "Convert the authors' checkpoints to bundles, and bundles to ONNX.",
    "doctor": "Say what is installed and found.",
}

# The modules of this package that describe a command in a class of its name; each of the others is
# described by the module of its name.
MODULES = {"generate": "data_engine", "clean": "data_engine", "finetune": "train", "import": "tag"}
MODULES |= dict.fromkeys(("convert", "serve", "doctor"), "models")
