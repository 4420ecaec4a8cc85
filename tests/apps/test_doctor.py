"""`ramctl doctor`: what it finds on a machine."""

import pytest

from ramctl.checkpoints.bundle import embedded_bundle
from ramctl.records.extras import EXTRAS, Extra, pip_line


@pytest.fixture
def found(tmp_path, monkeypatch, command):
    """Runs `ramctl doctor` beside a good and a damaged model: pairs of a name and a text."""
    (tmp_path / "models" / "broken").mkdir(parents=True)
    (tmp_path / "models" / "broken" / "bundle.json").write_text("{")
    (tmp_path / "models" / "mine").symlink_to(embedded_bundle())
    monkeypatch.setenv("RAMCTL_MODELS", str(tmp_path / "models"))

    def run() -> list[list[str]]:
        done = command("doctor")
        assert done.stderr == b""
        return [line.split(maxsplit=1) for line in done.stdout.decode().splitlines()]

    return run


def test_models_devices_extras_and_the_endpoint_are_found(found, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "garbage")
    rows = found()
    assert rows[0][0] == "ramctl"
    mini, broken, mine = (text for name, text in rows if name == "model")
    assert mini.startswith("mini: 3599 labels, 31.") and "onnxruntime int8, on the CPU" in mini
    assert broken.startswith("broken: ") and "bundle.json" in broken
    assert mine.startswith("mine: 3599 labels")
    assert ["device", "cpu ("] in [[name, text[:5]] for name, text in rows]
    lines = dict(rows)
    assert lines["onnxruntime"][0].isdigit()
    if not EXTRAS["caption"].missing:
        assert lines["endpoint"] == "garbage: not a URL such as http://localhost:11434/v1"
    monkeypatch.setattr(Extra, "missing", property(lambda extra: ["x"]))
    lines = dict(found())
    for name in EXTRAS:
        assert lines[f"[{name}]"].startswith(f"no: {pip_line(name)} (")


def test_the_weights_that_training_reads_are_found(found, tmp_path, monkeypatch):
    for module in EXTRAS["mini"].modules:
        (tmp_path / "packages" / module).mkdir(parents=True)
        (tmp_path / "packages" / module / "__init__.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    assert dict(found())["[mini]"].startswith("yes (")
