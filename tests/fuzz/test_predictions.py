"""Damaged exports of other programs, read as `eval` reads them."""

import pytest

from ramctl.evaluation.predictions import Cut, read_table
from tests.fuzz.damage import survive
from tests.fuzz.test_records import classes, in_file, intake
from tests.readers.test_predictions import DATA, READ

FORMS = {name: form for name, (form, _) in READ.items() if (DATA / name).is_file()}
FORMS |= {"fiftyone/samples.json": "fiftyone"}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("is_named", [True, False])
def test_predictions_of_other_systems(name, is_named, tmp_path):
    form = FORMS[name] if is_named else None

    def read(path) -> None:
        read_table(str(path), classes(), Cut.parse(None), intake(), form=form)

    place = tmp_path / (DATA / name).name
    survive(in_file(place, read), [(DATA / name).read_bytes()], f"{name} {is_named}")
