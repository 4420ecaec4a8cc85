"""What an objective is, and what a forward pass gives it."""

from dataclasses import dataclass

from torch import Tensor, nn

from ramctl.model.ram import RAM, RamOutput
from ramctl.training.data.batches import Batch


@dataclass(frozen=True, slots=True)
class SampledLabels:
    """The labels of one pass, and the weight that makes each stand for those left out."""

    ids: Tensor  # (n,)
    weights: Tensor  # (n,)


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward pass. B photos, E text width, K classes of the backbone."""

    batch: Batch
    sampled: SampledLabels | None  # None: all labels
    output: RamOutput
    # What the backbone's own classifier said before training: the class names' embeddings, mixed
    # by its probabilities (B, E), and its logits (B, K).
    former: tuple[Tensor, Tensor] | None


class Objective(nn.Module):
    """A loss as a sum and a count, so that its mean does not depend on how a batch is split.

    The constructor raises UsageProblem when the model cannot be trained so. `names` are those of
    the sums, as logs show them.
    """

    def __init__(self, *names: str, weight: float) -> None:
        super().__init__()
        self.names = names
        self.weight = weight

    def count(self, batch: Batch) -> float:
        """What the sums run over: photos, unless an objective counts otherwise."""
        return float(batch.n_photos)

    def sums(self, model: RAM, forward: Forward) -> dict[str, Tensor]:
        """The sums of a batch by name; a name may be missing when the batch has none of it."""
        raise NotImplementedError
