"""Damaged lists of tags, read as `eval` reads them."""

import pytest

from ramctl.evaluation.predictions import Cut, read_table
from tests.fuzz.damage import survive
from tests.fuzz.test_records import classes, in_file, intake
from tests.readers.test_predictions import DATA


@pytest.mark.parametrize("form", ["list", None])
def test_predictions_of_other_systems(form, tmp_path):
    def read(path) -> None:
        read_table(str(path), classes(), Cut.parse(None), intake(), form=form)

    survive(
        in_file(tmp_path / "pred.txt", read), [(DATA / "ram" / "pred.txt").read_bytes()], str(form)
    )
