"""Names of folders, files and hub repositories."""

from itertools import repeat

import pytest

from ramctl.checkpoints.bundle import resolve_model
from ramctl.errors import RunProblem, UsageProblem
from ramctl.pretrained.hub import local_path
from ramctl.records.remote import exists, facts_of, read_url
from tests.pretrained.conftest import CONTENT, INFO
from tests.web_server import SHORT


def test_a_hub_that_fails_twice_is_asked_again(hub):
    hub.faults[f"{INFO}/revision/main"] = iter([500, 403])
    assert (local_path("hf://owner/name") / "w.bin").read_bytes() == CONTENT


def test_a_file_that_the_hub_cuts_off_is_whole(hub):
    hub.faults["/owner/name/resolve/main/w.bin"] = iter([None, SHORT])
    assert local_path("hf://owner/name:w.bin").read_bytes() == CONTENT


def test_a_hub_that_stays_away_is_told_from_one_that_has_no_such_file(hub):
    hub.faults[f"{INFO}/revision/main"] = repeat(403)
    with pytest.raises(RunProblem, match=r"^hf://owner/name: failed 4 times"):
        local_path("hf://owner/name")
    with pytest.raises(RunProblem, match=r"^hf://owner/name:no\.bin: no such file"):
        local_path("hf://owner/name:no.bin")


def test_what_is_no_bundle_at_the_hub_is_not_downloaded(hub):
    with pytest.raises(RunProblem, match=r"hf://owner/name:bundle\.json: no such file"):
        resolve_model("hf://owner/name")
    assert not any("w.bin" in asked for asked in hub.asked)


def test_photos_at_a_hub_are_missing_where_it_says_so(hub):
    assert read_url("hf://owner/name/w.bin", 1 << 20) == CONTENT
    assert facts_of("hf://owner/name/w.bin") == (len(CONTENT), repr((len(CONTENT), "1" * 40)))
    assert not exists("hf://owner/name/no.jpg")


def test_photos_at_a_hub_that_is_away_are_not_missing(hub):
    for fault in (500, 401, 403):
        hub.faults[INFO] = repeat(fault)
        with pytest.raises(RunProblem, match=r"hf://owner/name/w\.bin: failed 4 times"):
            exists("hf://owner/name/w.bin")


@pytest.mark.parametrize("name", ["hf://clip", "hf://a/b/c", "hf:///b"])
def test_a_hub_name_needs_an_owner_and_a_name(name):
    with pytest.raises(UsageProblem, match="hf://owner/name"):
        local_path(name)


@pytest.mark.parametrize(
    ("resolve", "name"),
    [
        (local_path, "hf://owner/name"),
        (local_path, "hf://owner/name:file.bin"),
        (resolve_model, "hf://owner/name"),
    ],
)
def test_a_hub_that_does_not_answer_is_one_line(resolve, name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RunProblem, match=f"{name}.*: cannot be downloaded") as problem:
        resolve(name)
    assert "\n" not in str(problem.value)


def test_a_hub_without_a_connection_is_one_line(hub, monkeypatch, capfd):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    template = "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(RunProblem, match=r"^hf://owner/name:w\.bin: the hub cannot be reached"):
        local_path("hf://owner/name:w.bin")
    assert capfd.readouterr().err == ""
