"""`--ray`: shards on workers give what one process gives; what is complete is left alone.

What Ray itself does is tested where it is installed; elsewhere a stand-in, which runs each worker
in this process, shows what we ask of it.
"""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from ramctl.cli import main
from ramctl.errors import RunProblem
from ramctl.parsing import parse_run as parsing
from ramctl.records.ray_engine import engine_settings, resources
from tests.support import DATA


class StandIn:
    """As much of Ray as is used: tasks run in this process, and each may fail."""

    def __init__(self) -> None:
        self.exceptions = SimpleNamespace(RayError=ChildProcessError)
        self.asked: dict[str, object] = {}
        self.done: list[str] = []
        self.dies_at: set[str] = set()

    def init(self, **arguments):
        if arguments["address"] != "local":
            raise ConnectionError("nobody is there\nat all")
        self.asked |= arguments

    def shutdown(self):
        self.asked["ended"] = True

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": False, "Resources": {}}]

    def remote(self, **needs):
        self.asked |= needs
        return lambda task: SimpleNamespace(remote=partial(partial, self._do, task))

    def _do(self, task, run, folder, parameters):
        name = parameters["output"].name
        if name in self.dies_at:
            raise ChildProcessError("The task died")
        self.done.append(name)
        return task(run, folder, parameters)

    def wait(self, references):
        assert references  # else it would wait for ever
        return references[:1], references[1:]

    def get(self, reference):
        return reference()


@pytest.fixture
def stand_in(monkeypatch) -> StandIn:
    ray = StandIn()
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


@pytest.fixture
def shards(tmp_path, monkeypatch) -> list[str]:
    """Three shards, with rejects in two of them; the last one has none and no record either."""
    monkeypatch.chdir(tmp_path)
    lines = (DATA / "captions.jsonl").read_text().splitlines()
    contents = [[*lines[:3], "{oops"], ['{"image":"none.jpg"}', *lines[3:5]], []]
    for number, content in enumerate(contents):
        Path(f"in{number}.jsonl").write_text("".join(line + "\n" for line in content))
    return [f"in{number}.jsonl" for number in range(len(contents))]


def run(*arguments: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    assert ended.value.code == code


def one_process(*arguments: object, shards: list[str]) -> tuple[list[bytes], list[bytes]]:
    """Outputs and rejects of each shard by the command without Ray."""
    for name in shards:
        run(*arguments, name, "-o", f"own-{name}", "--rejects", f"rejected-{name}", "-q",
            code=0 if name == "in2.jsonl" else 3)  # fmt: skip
    return tuple([Path(f"{kind}-{name}").read_bytes() for name in shards]
                 for kind in ("own", "rejected"))  # fmt: skip


def by_ray(shards: list[str]) -> tuple[list[bytes], list[bytes]]:
    """Outputs and rejects that are in the folder; no other name is in sight."""
    assert {path.name for path in Path("out").glob("[!.]*")} == {"rejects", *shards}
    return tuple([(folder / name).read_bytes() for name in shards]
                 for folder in (Path("out"), Path("out/rejects")))  # fmt: skip


def test_shards_give_what_one_process_gives_and_a_second_run_does_what_is_missing(
    shards, stand_in, capfd
):
    expected = one_process("parse", shards=shards)
    capfd.readouterr()
    run("parse", *shards, "--ray", "local", "-o", "out", code=3)
    assert by_ray(shards) == expected
    said = capfd.readouterr().err
    assert "ramctl parse: 7 in, 5 out, 2 rejected" in said and "1 cores and 0 GPUs a file" in said
    assert stand_in.asked["ended"] and stand_in.asked["num_gpus"] == 0
    made = {path: path.stat().st_ino for path in Path("out").glob("*.jsonl")}
    run("parse", *shards, "--ray", "local", "-o", "out", code=3)
    assert "2 in, 0 out, 2 rejected, 5 done before" in capfd.readouterr().err
    assert {path: path.stat().st_ino for path in made} == made
    Path("out/in1.jsonl").unlink()
    run("parse", *shards, "--ray", "local", "-o", "out", code=3)
    assert by_ray(shards) == expected


def test_parquet_is_written_and_is_made_once(tmp_path, monkeypatch, stand_in, tiny_bundle):
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    from pyarrow import parquet

    monkeypatch.chdir(tmp_path)
    photos = sorted(map(str, (DATA / "photos").glob("*.jpg")))[:3]
    for number, names in enumerate((photos[:2], photos[2:])):
        Path(f"in{number}.jsonl").write_text("".join(f'{{"image":"{n}"}}\n' for n in names))
    words = ["tag", "in0.jsonl", "in1.jsonl", "--model", tiny_bundle, "-f", "parquet"]
    run(*words, "--ray", "local", "-o", "out")
    tables = [parquet.read_table(f"out/in{number}.parquet") for number in (0, 1)]
    assert [table["image"].to_pylist() for table in tables] == [photos[:2], photos[2:]]
    Path("out/in0.parquet").unlink()
    made = Path("out/in1.parquet").stat().st_ino
    run(*words, "--ray", "local", "-o", "out")
    assert parquet.read_table("out/in0.parquet") == tables[0]
    assert Path("out/in1.parquet").stat().st_ino == made


def test_an_output_in_the_place_of_an_input_is_refused(shards, stand_in, capfd):
    before = [Path(name).read_bytes() for name in shards]
    Path("link").symlink_to(".")
    Path("rejects").mkdir()
    Path("rejects/in0.jsonl").write_text("")
    for name, folder in (("in0.jsonl", "."), ("in0.jsonl", "link"), ("rejects/in0.jsonl", ".")):
        run("parse", name, "--ray", "local", "-o", folder, code=2)
        said = capfd.readouterr().err
        assert f"{name} is an input" in said and said.count("\n") == 1
    assert [Path(name).read_bytes() for name in shards] == before and not stand_in.done


def test_what_a_dead_worker_left_is_continued(shards, stand_in, capfd):
    expected = one_process("parse", shards=shards)
    stand_in.dies_at = {"in0.jsonl", "in2.jsonl"}
    run("parse", *shards, "--ray", "local", "-o", "out", code=1)
    assert stand_in.done == ["in1.jsonl"]
    said = capfd.readouterr().err
    assert said.count("a worker failed: The task died") == 2
    stand_in.dies_at = set()
    run("parse", *shards, "--ray", "local", "-o", "out", code=3)
    assert by_ray(shards) == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["parse", "in0.jsonl"], "--ray needs -o DIR"),
        (["parse", "-", "-o", "out"], "not standard input"),
        (["parse", "in0.jsonl", "sub/in0.jsonl", "-o", "out"], "would become one output"),
        (["parse", "in0.jsonl", "-o", "out", "--shard", "1/2"], "--shard does not go with --ray"),
        (["parse", "in0.jsonl", "-o", "out", "--group"], "--group does not go with --ray"),
        (["parse", "in0.jsonl", "-o", "out", "--rejects", "r"], "--rejects does not go with"),
        (["tag", "photo.jpg", "-o", "out"], "photo.jpg is none of these"),
    ],
)
def test_what_cannot_be_shared_is_wrong_usage_in_one_line(shards, stand_in, capfd, arguments, says):
    Path("sub").mkdir()
    Path("sub/in0.jsonl").write_text("")
    Path("photo.jpg").write_text("")
    run(*arguments, "--ray", "local", code=2)
    said = capfd.readouterr().err
    assert says in said and said.count("\n") == 1


def test_what_is_not_there_is_said_in_one_line(shards, stand_in, capfd, monkeypatch):
    run("parse", "nowhere.jsonl", "--ray", "local", "-o", "out", code=2)
    assert capfd.readouterr().err == "ramctl parse: nowhere.jsonl: no such file\n"
    run("parse", *shards, "--ray", "far:1", "-o", "out", code=1)
    assert capfd.readouterr().err == "ramctl parse: --ray far:1: nobody is there\n"
    monkeypatch.setitem(sys.modules, "ray", None)
    run("parse", *shards, "--ray", "local", "-o", "out", code=1)
    said = capfd.readouterr().err
    assert said == "ramctl parse: --ray needs the extra ray: pip install 'ramctl[ray]'\n"
    assert not Path("out").exists()
    Path("out").mkdir()
    run("parse", *shards, "-o", "out", code=2)
    assert "-o out is a folder" in capfd.readouterr().err


def test_tasks_share_the_cores_of_a_machine_and_have_a_gpu_each():
    machines = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 32.0, "GPU": 2.0}, {"CPU": 64.0}]
    assert resources({"workers": None}, machines) == (1, 0)
    assert resources({"workers": 2}, machines) == (2, 0)
    assert resources({"workers": 128}, machines) == (64, 0)  # no machine has more: it would wait
    tag = {"device": None, "workers": None}
    assert resources(tag, machines) == (8, 1)
    assert engine_settings(tag, 8, 1) == {"device": "cuda", "workers": 8}
    on_cpu = {"device": "cpu", "workers": 2}
    assert resources(on_cpu, machines) == (2, 0)
    assert engine_settings(on_cpu, 2, 0) == on_cpu
    assert engine_settings(tag | {"device": "cuda:0,1"}, 8, 1)["device"] == "cuda"
    assert engine_settings({"workers": 2}, 2, 0) == {}


def test_a_shard_that_fails_leaves_the_others(shards, stand_in, capfd, monkeypatch):
    ours = parsing.run

    def failing(options):
        if "in1.jsonl" in options.inputs:
            raise RunProblem("no space")
        return ours(options)

    monkeypatch.setattr(parsing, "run", failing)
    run("parse", *shards, "--ray", "local", "-o", "out", code=1)
    assert capfd.readouterr().err.splitlines() == [
        "ramctl parse: no space",
        "ramctl parse: 1 of 3 files failed: run the same command again",
    ]
    assert Path("out/in0.jsonl").exists() and not Path("out/in1.jsonl").exists()


@pytest.fixture
def real_ray(monkeypatch):
    pytest.importorskip("ray", reason="needs Ray (extra [ray])")
    # A busy machine takes longer than Ray expects.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "300000")


@pytest.mark.slow
def test_two_workers_give_what_one_process_gives(shards, real_ray):
    expected = one_process("tag", "--root", DATA, shards=shards)
    for _ in range(2):
        run("tag", "--root", DATA, *shards, "--ray", "local", "-o", "out", code=3)
        assert by_ray(shards) == expected
