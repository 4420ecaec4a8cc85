#!/usr/bin/env python3
"""Runs every command on the test data and on shared photos, and keeps what it writes.

    scripts/outputs.py OUT [PACKAGE_ROOT]

Run it before and after a change of how things are built, with PACKAGE_ROOT the checkout to try,
then `diff -r BEFORE AFTER`: what the commands write must not have changed. Wall times, versions and
the wording of messages are left out of what is written.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from venv_python import ROOT, use_venv

use_venv()

from measuring import ENVIRONMENT, SHARED

FORMATS = ["text", "csv", "exiftool-csv", "coco"]
TRAIN = "--preset mini --set training.workers=0 --threads 1 --dtype fp32 --device cpu -q"
WORDS = "zebra\nhorse\nsteam locomotive\nchild\n"
TIMES = re.compile(rb'"(seconds|rate|rate_img_s|wait_share|loss|versions)":[^,}]*(\})?')


class Runner:
    """Runs commands in the output folder and notes how each ended."""

    def __init__(self, out: Path, package: Path) -> None:
        self.out = out
        own = {"PYTHONPATH": str(package), "XDG_CACHE_HOME": str(out / "cache")}
        self.environment = ENVIRONMENT | own

    def __call__(self, name: str, command: str) -> None:
        """Run `command` (a shell line in which `ramctl` is this package); stdout goes to NAME."""
        line = re.sub(r"\bramctl\b(?= )", f"{sys.executable} -m ramctl", command)
        with (self.out / name).open("wb") as stdout, (self.out / "stderr").open("ab") as stderr:
            stderr.write(f"$ {command}\n".encode())
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", line],
                stdout=stdout, stderr=stderr, cwd=self.out, env=self.environment, check=False,
            )  # fmt: skip
        with (self.out / "codes.txt").open("a") as codes:
            codes.write(f"{done.returncode} {name}\n")
        print(f"{done.returncode} {name}", file=sys.stderr)


def lay_out(out: Path) -> None:
    """Inputs: the test data, 200 shared photos by reference, a few odd ones."""
    shutil.copytree(ROOT / "tests" / "data", out, dirs_exist_ok=True)
    for photo in (out / "photos").iterdir():
        os.utime(photo, (0, 0))  # --resume knows photos by their times
    (out / "words.txt").write_text(WORDS)
    for name, number in (("flickr8k-dev", 80), ("diverse-plain", 60), ("coco-train", 60)):
        lines = (SHARED / "data/photos" / f"{name}.jsonl").read_text().splitlines()[:number]
        (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    lines = (SHARED / "data/photos/flickr8k-train.jsonl").read_text().splitlines()[:120]
    (out / "train.jsonl").write_text("\n".join(lines) + "\n")


def parse(run: Runner) -> None:
    """Captions to tags, labels, other formats."""
    run("parse.jsonl", "ramctl parse -q captions.jsonl coco-train.jsonl flickr8k-dev.jsonl")
    run("parse-closed.jsonl", "ramctl parse -q --labels mini-labels.jsonl -j 2 flickr8k-dev.jsonl")
    run("parse-explain.jsonl", "ramctl parse -q --explain captions.jsonl coco-train.jsonl")
    run("parse-ram.json", "ramctl parse -q --labels words.txt -f ram captions.jsonl")
    run("parse-group.jsonl", "ramctl parse -q --group captions.jsonl captions.jsonl")
    run("parse-bad.jsonl", r"""printf '{"captions":3}\nx\n{"captions":["a dog"],"n":1e5}\n' | """
        "ramctl parse -q --rejects parse-rejects.jsonl -o parse-bad-out.jsonl -")  # fmt: skip
    run("build.txt", "ramctl parse -q --build-labels built.jsonl --review built.tsv "
        "flickr8k-dev.jsonl coco-train.jsonl")  # fmt: skip
    for corpus in ("cc3m_val", "dense_iiw", "partiprompts", "vg_regions_factual"):
        source = SHARED / "data/text" / f"{corpus}.jsonl.gz"
        run(f"parse-{corpus}.jsonl", f"gzip -dc {source} | head -400 | ramctl parse -q -")


def tag(run: Runner) -> None:
    """Photos to tags, every format and every way of running the model."""
    root = f"--root {SHARED}/data/photos"
    some = f"{root} flickr8k-dev.jsonl diverse-plain.jsonl coco-train.jsonl"
    run("tag.jsonl", f"ramctl tag -q {some}")
    run("tag-dense.jsonl", f"ramctl tag -q --dense --dtype fp32 {some}")
    run("tag-torch.jsonl", f"ramctl tag -q --dense --runtime torch -j 2 {root} diverse-plain.jsonl")
    run("tag-bf16.jsonl", "ramctl tag -q --dense --runtime torch --dtype bf16 photos/*.jpg")
    run("tag-looks.jsonl", f"ramctl tag -q --boxes --caption {root} diverse-plain.jsonl")
    run("tag-words.jsonl", "ramctl tag -q --labels +words.txt --threshold 0.2 photos/*.jpg")
    run("tag-choice.txt", "ramctl tag -q -f text --top 5 --leaf --exclude words.txt photos/*.jpg")
    run("tag-two.jsonl", "ramctl tag -q --runtime torch --device cpu,cpu -b 2 photos/*.jpg")
    run("tag-odd.jsonl", f"ramctl tag -q -R {SHARED}/data/photos/odd {SHARED}/data/photos/fullsize "
        "/nowhere.jpg --rejects tag-rejects.jsonl")  # fmt: skip
    for form in FORMATS:
        run(f"tag.{form}", f"ramctl tag -q photos/*.jpg | ramctl export -q -f {form}")
    run(
        "tag-xmp.jsonl",
        "cp -r photos beside && ramctl tag -q -R beside | ramctl export -q --xmp --txt -f jsonl",
    )
    run(
        "tag-gallery.jsonl",
        "ramctl tag -q photos/*.jpg | ramctl export -q --gallery page.html -f jsonl",
    )
    run("tag-resume.jsonl", "ramctl tag -q photos/[a-k]*.jpg -o resumed.jsonl && "
        "ramctl tag -q -R photos -o resumed.jsonl --resume")  # fmt: skip


def engine(run: Runner) -> None:
    """Generation and cleaning with the embedded model."""
    root = f"--root {SHARED}/data/photos"
    run("g-in.jsonl", "ramctl parse -q coco-train.jsonl")
    run("generate.jsonl", f"ramctl generate -q {root} --captions 2 g-in.jsonl")
    run("generate-nucleus.jsonl", f"ramctl generate -q {root} --decode nucleus:0.9 --seed 3 "
        "--threshold 0.4 g-in.jsonl")  # fmt: skip
    run("clean.jsonl", f"ramctl clean -q {root} --min-regions 2 --review clean.html --stats "
        "clean-stats.json generate.jsonl")  # fmt: skip
    run("clean-scores.jsonl", f"ramctl clean -q {root} --threshold 0.3 --min-regions 2 "
        "generate.jsonl")  # fmt: skip
    stages = (f"ramctl clean -q --work w --stage {stage}" for stage in ("cluster", "apply"))
    first = f"ramctl clean -q {root} --work w --stage detect --kinds all generate.jsonl"
    run("clean-staged.jsonl", " && ".join([first, *stages]))


def train(run: Runner) -> None:
    """Training, fine-tuning, evaluation, conversion."""
    root = f"--root {SHARED}/data/photos"
    run("t.jsonl", "ramctl parse -q train.jsonl")
    run("train.txt", f"ramctl train {TRAIN} {root} t.jsonl --out m --steps 6 --events ev.jsonl")
    run("train-tiny.txt", f"ramctl train {root} t.jsonl --out tiny --preset tiny --steps 4 -q "
        "--dtype fp32 --val t.jsonl --distill none --threads 1")  # fmt: skip
    run("train-stages.txt", f"ramctl train {TRAIN} {root} t.jsonl --out stages --steps 2 "
        "--set training.backbone_lr_factor=0.1 --set training.frozen_stages=4 "
        "--set training.sampled_labels=50")  # fmt: skip
    run("finetune.txt", f"ramctl finetune {root} t.jsonl --model m/ --out f --steps 2 -q "
        "--labels +words.txt --dtype fp32 --threads 1")  # fmt: skip
    run("tag-trained.jsonl", "ramctl tag -q --model f/ --dense photos/*.jpg")
    run("evaluate.json", "ramctl tag -q --dense photos/*.jpg | ramctl eval - --truth truth.jsonl "
        "--ci --calibrate thresholds.jsonl --report classes.tsv")  # fmt: skip
    for form in ("table", "csv", "md"):
        run(f"evaluate.{form}", "ramctl eval tag.jsonl tag-dense.jsonl "
            f"--truth {SHARED}/data/eval/flickr8k_dev.jsonl -f {form}")  # fmt: skip
    for kind, arch in (("ram", "ram"), ("ram_plus", "ram-plus"), ("tag2text", "tag2text")):
        convert(run, kind, arch)


def convert(run: Runner, kind: str, arch: str) -> None:
    """One of the authors' tiny checkpoints: bundle, graph, card, tags."""
    parity = SHARED / "parity"
    facts = json.loads((parity / f"{kind}_tiny.json").read_text())
    official = SHARED / "labels/ram/tag2text_ori_tag_list.txt"
    tags = facts.get("tag_list") or official.read_text("utf-8").splitlines()
    (run.out / f"{kind}.txt").write_text("\n".join(tags) + "\n")
    run(f"convert-{kind}.txt", f"ramctl convert -q {parity}/{kind}_tiny.safetensors --arch {arch} "
        f"--tags {kind}.txt --vocab {parity}/tiny_vocab.txt --out {kind}")  # fmt: skip
    run(f"info-{kind}.txt", f"ramctl convert --info {kind}/")
    run(f"tag-{kind}.jsonl", f"ramctl tag -q --model {kind}/ --dense --boxes photos/*.jpg")
    run(f"onnx-{kind}.txt", f"ramctl convert -q {kind}/ --to onnx --out {kind}-onnx")
    run(f"tag-onnx-{kind}.jsonl", f"ramctl tag -q --model {kind}-onnx/ --dense photos/*.jpg")


def settle(out: Path) -> None:
    """Take out what differs from run to run: times, versions, wording, this folder's name.

    Weights and arrays are replaced by their hashes; the order of keys in bundle.json is free.
    """
    here = str(out).encode()
    for path in sorted(out.rglob("*")):
        if not path.is_file():
            continue
        if path.suffix in (".safetensors", ".onnx", ".npy", ".npz"):
            path.write_text(hashlib.sha256(path.read_bytes()).hexdigest() + "\n")
            continue
        if path.name == "bundle.json":
            facts = json.loads(path.read_bytes())
            facts["files"] = sorted(facts["files"])
            path.write_text(json.dumps(facts, indent=1, sort_keys=True))
        if path.suffix not in (".json", ".jsonl", ".tsv", ".txt", ".md"):
            continue
        content = TIMES.sub(rb"\2", path.read_bytes()).replace(here, b"OUT")
        content = re.sub(rb'"message":"[^"]*"', b'"message":""', content)
        content = re.sub(rb'"sha256": ?"[0-9a-f]+",\s*"bytes": ?[0-9]+', b"", content)
        path.write_bytes(content)
    for name in ("cache", "w"):
        shutil.rmtree(out / name, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("package_root", nargs="?", type=Path, default=ROOT, help="the checkout")
    given = parser.parse_args()
    out, package = given.out.resolve(), given.package_root.resolve()
    out.mkdir(parents=True)
    lay_out(out)
    shutil.copy(package / "ramctl/bundles/mini/labels.jsonl", out / "mini-labels.jsonl")
    run = Runner(out, package)
    for part in (parse, tag, engine, train):
        part(run)
    settle(out)


if __name__ == "__main__":
    main()
