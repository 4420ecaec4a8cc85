"""How photos are tagged: the options of `ramctl tag` and `Tagger.from_pretrained`."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ramctl.errors import UsageProblem
from ramctl.inference.runner import WARN, RunnerOptions
from ramctl.inference.selection import SelectionOptions
from ramctl.inference.thresholds import Threshold
from ramctl.inference.vocabulary import Words

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "runtime": ("auto", "onnx", "torch"),
    "dtype": ("auto", "fp32", "bf16", "fp16", "int8"),
    "preprocess": (None, "official", "fast"),
}


@dataclass(frozen=True, slots=True)
class TaggerOptions(RunnerOptions):
    """How photos are tagged; the defaults are those of `ramctl tag`."""

    labels: Words | None = None  # the only words to look for; +FILE: besides the labels
    threshold: Threshold | None = None  # None: the model's, per tag
    precision: float | None = None  # the fraction of the tags that shall be right
    choice: SelectionOptions = field(default_factory=SelectionOptions)
    thorough: bool = False  # look at parts of each photo too
    dense: bool = False  # give the scores of all labels too
    embedding: bool = False  # give a vector to search by
    boxes: bool = False  # give where the model looked for each tag
    caption: bool = False  # give a caption
    preprocess: str | None = None  # official, fast: how photos are read; None: the model's way
    runtime: str = "auto"  # or onnx, torch
    notify: Callable[[str], None] = WARN  # called with what the user should know

    def check(self) -> None:
        """UsageProblem for unknown choices and numbers that make no sense."""
        for name, known in _CHOICES.items():
            if (value := getattr(self, name)) not in known:
                choices = ", ".join(filter(None, known))
                raise UsageProblem(f"{name} {value!r} is not one of {choices}")
        numbers = {"batch": self.batch, "jobs": self.workers}
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise UsageProblem(f"{name} {value} is less than 1")
        if self.precision is not None and not 0 < self.precision < 1:
            raise UsageProblem(f"precision {self.precision:g} is not between 0 and 1")
        self.choice.check()
