"""`clean` as a whole: every line comes out, tags go only with a reason, work can be split."""

import json


def lines(rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(done) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_x(ramctl, engine_bundle, photo_records):
    rows = photo_records * 4
    done = ramctl("clean", "--model", engine_bundle, "--min-regions", 5, stdin=lines(rows))
    print(done.stderr.decode())
    out = read(done)
    print(out[:3])
    assert 0
