"""scripts/scale_plan.py: the arithmetic by hand-computed values, and a measurement at toy size."""

import json

import flops
import pytest
import scale_plan
from scale_plan import Machines, Rate, plan, plan_stage, read_rate, stage_limits

from tests.support import DATA

EIGHT = Machines(cores=256, gpus=8, storage_bytes_s=1e9)
DETECT = Rate(core_s=0.012, gpu_s=0.004, bytes_in=330_000, bytes_out=900)


def test_each_resource_alone_needs_its_time():
    limits = stage_limits(DETECT, 4e6, EIGHT, one=False)
    # 48,000 core-seconds on 256; 16,000 GPU-seconds on 8; 1.3236 TB at 1 GB/s
    assert limits == pytest.approx({"cores": 187.5, "gpus": 2000, "storage": 1323.6})


def test_the_slowest_resource_decides_and_twice_of_it_saves_up_to_the_next():
    one = plan_stage(DETECT, 4e6, EIGHT)
    assert one.bottleneck == "gpus"
    assert one.hours == pytest.approx(2000 / 3600)
    assert one.saved_hours == pytest.approx((2000 - 1323.6) / 3600)  # not 1000: storage is next
    assert (one.bytes_in, one.bytes_out) == (1.32e12, 3.6e9)
    more = plan_stage(DETECT, 4e6, Machines(256, 16, 1e9))
    assert more.bottleneck == "storage" and more.hours == pytest.approx(1323.6 / 3600)
    assert more.saved_hours == pytest.approx((1323.6 - 1000) / 3600)


def test_a_shard_takes_one_worker_half_an_hour_and_every_worker_has_one():
    assert plan_stage(DETECT, 4e6, EIGHT).shards == 9  # 16,000 s / 1,800 s
    assert plan_stage(DETECT, 1000, EIGHT).shards == 8
    assert plan_stage(DETECT, 3, EIGHT).shards == 3
    # 14e6 x 5 ms = 70,000 core-seconds on 4 cores, without a GPU
    assert plan_stage(Rate(0.005), 14e6, Machines(4)).shards == 39
    # one GPU with 2 cores that need 3 s an image: 3 s / 2 of each, not the GPU's 1 s
    assert plan_stage(Rate(3, 1), 3600, Machines(2, 1)).shards == 3


def test_what_is_one_process_gains_nothing_from_machines():
    rates = {"parse": Rate(0.001), "apply": Rate(0.0001)}
    plans = plan(rates, 1e9, Machines(100), epochs=1)
    assert plans["parse"].hours == pytest.approx(1e4 / 3600)
    assert plans["parse"].saved_hours == pytest.approx(5e3 / 3600)
    assert plans["apply"].hours == pytest.approx(1e5 / 3600)
    assert (plans["apply"].bottleneck, plans["apply"].saved_hours) == ("one process", 0)
    assert scale_plan.next_doubling(plans) == ("cores", pytest.approx(5e3 / 3600))


def test_training_reads_the_photos_in_every_epoch_and_writes_once():
    rates = {"train": Rate(0.01, 0.002, 1e5, 10)}
    one = plan(rates, 1e6, Machines(64, 4), epochs=5)["train"]
    assert one.hours == pytest.approx(2500 / 3600)  # 5 x 1e6 x 2 ms / 4
    assert (one.bytes_in, one.bytes_out) == (5e11, 1e7)


def test_a_rate_is_read_in_milliseconds_and_bytes():
    assert read_rate("detect=12,4,330000,900") == ("detect", DETECT)
    assert read_rate("parse=5") == ("parse", Rate(0.005))
    for text in ("detect", "paint=1", "parse=fast", "parse=-1", "parse=nan"):
        with pytest.raises(ValueError):
            read_rate(text)


def test_the_plan_is_printed_for_the_papers_sizes_and_a_billion(capsys):
    arguments = ["--gpus", "8", "--cores", "256", "--rate", "parse=0.5,0,300,600"]
    assert scale_plan.main([*arguments, "--rate", "detect=12,4,330000,900"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if " images, " in line] == [
        "4,000,000", "14,000,000", "1,000,000,000",
    ]  # fmt: skip
    assert lines[3].split() == (
        ["detect", "0.556", "1.32", "TB", "3.6", "GB", "9", "gpus", "(0.188", "h)"]
    )
    assert "twice the gpus saves 0.188" in lines[4]


def test_a_stage_that_needs_a_gpu_is_named_in_one_line(capsys):
    assert scale_plan.main(["--cores", "4", "--rate", "detect=12,4"]) == 1
    said = capsys.readouterr()
    assert said.err == "scale_plan.py: detect needs GPUs: give --gpus, or a rate without them\n"
    assert said.out == ""
    with pytest.raises(SystemExit) as ended:
        scale_plan.main(["--cores", "4"])
    assert ended.value.code == 2


@pytest.mark.slow
def test_a_few_records_give_rates_of_all_stages(tmp_path, tiny_bundle, capsys):
    lines = (DATA / "captions.jsonl").read_text().splitlines(keepends=True)[:4]
    (tmp_path / "sample.jsonl").write_text("".join(lines))
    saved = tmp_path / "rates.json"
    sample = ["--sample", str(tmp_path / "sample.jsonl"), "--root", str(DATA)]
    model = ["--model", str(tiny_bundle), "--preset", "tiny", "--save", str(saved)]
    assert scale_plan.main(["--cores", "4", *sample, *model]) == 0
    rates = json.loads(saved.read_text())
    assert list(rates) == list(scale_plan.STAGES)
    photo_bytes = sum((DATA / json.loads(line)["image"]).stat().st_size for line in lines) / 4
    assert rates["train"]["bytes_in"] == photo_bytes and rates["train"]["core_s"] > 0
    assert rates["generate"]["bytes_in"] > photo_bytes > rates["parse"]["bytes_in"] > 0
    first = capsys.readouterr().out
    assert scale_plan.main(["--cores", "4", "--rates", str(saved)]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.slow
def test_gpus_take_the_products_of_the_model_and_cores_the_decoding(tmp_path):
    # Swin-B takes 15.4 G multiply-adds at 224 px (Liu et al. 2021, table 1): with one label there
    # is little beside it. Backward takes twice as much as forward.
    preset = tmp_path / "swin.toml"
    preset.write_text('base = "ram-swin-b"\n[model]\ncaptioning = false\n')
    gflop = flops.count(str(preset), 8)
    assert gflop["tag"] == gflop["detect"] == gflop["generate"]
    assert 2 * 15.4 < gflop["tag"] < 2 * 15.4 * 1.06
    assert gflop["train"] == pytest.approx(3 * gflop["tag"] + flops.CLIP_B16, rel=0.03)
    arguments = ["--cores", "64", "--gpus", "8", "--tflops", "100", "--preset", str(preset)]
    given = scale_plan.read_arguments([*arguments, "--labels", "8", "--rate", "parse=1"])
    rates = scale_plan.rates_at(100, flops.count(str(preset), 8), {}, given)
    assert rates["train"].core_s == 0.01
    assert rates["train"].gpu_s == pytest.approx(gflop["train"] / 1e5)
    assert list(rates) == ["parse", "train", "generate", "detect", "tag"]


def test_the_range_of_a_gpu_is_what_was_published_for_swin():
    lowest = 2155 / 8 * 3 * 2 * 15.47 / 1e3 / scale_plan.GPUS["a100"]  # Swin-B in training
    highest = 503 * 2 * 34.53 / 1e3 / scale_plan.GPUS["rtx3090"]  # Swin-L in tagging
    assert (round(lowest, 2), round(highest, 2)) == scale_plan.SHARES


def test_a_gpu_that_is_not_there_is_estimated_with_a_range(monkeypatch, capsys):
    monkeypatch.setattr(flops, "count", lambda preset, labels: {"train": 300.0, "tag": 100.0})
    arguments = ["--cores", "64", "--gpus", "8", "--gpu", "a100", "--images", "1e6"]
    assert scale_plan.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "An estimate, nothing was measured: mini on a100 at 25 to 153 of its 312 TFLOP/s.",
        "Images a second of one GPU: train 83 to 510, tag 250 to 1,529.",
    ]
    assert [line for line in lines if line.startswith("At ")] == [
        "At 25 TFLOP/s:", "At 153 TFLOP/s:",
    ]  # fmt: skip
    hours = [float(line.split()[1]) for line in lines if line.startswith("tag ")]
    assert hours == [pytest.approx(1e6 / 249.6 / 8 / 3600, rel=0.01), pytest.approx(0.0434)]
    with pytest.raises(SystemExit):
        scale_plan.main([*arguments, "--tflops", "100"])


@pytest.mark.slow
def test_labels_by_description_are_counted_too(capsys):
    gpu = ["--cores", "64", "--gpus", "8", "--gpu", "h100", "--labels", "4"]
    assert scale_plan.main([*gpu, "--preset", "ram-plus-swin-l"]) == 0
    assert "ram-plus-swin-l on h100 at 79 to 485 of its 989" in capsys.readouterr().out
    gflop = flops.count("ram-plus-swin-l", 4)
    assert gflop["train"] > 3 * gflop["tag"] > 0


def test_a_preset_that_cannot_be_built_is_one_line(capsys):
    assert scale_plan.main(["--cores", "4", "--tflops", "100", "--preset", "nowhere.toml"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
