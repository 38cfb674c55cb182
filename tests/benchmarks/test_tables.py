"""The tables of docs/benchmarks.md are made of a run's numbers, each in its place."""

from typing import Any

import tables

PEAKS = {"threads": 2, "operations": {"fp32": 500.0, "bf16": 1060.4}, "copy": 44.6}


def entry(group: str, milliseconds: float, **about: Any) -> dict[str, Any]:
    seconds = milliseconds / 1000
    stats = {"median": seconds, "q1": 0.9 * seconds, "q3": 1.2 * seconds, "min": 0.8 * seconds}
    return {"group": group, "stats": stats, "extra_info": {"peaks": PEAKS, **about}}


def test_every_number_stands_in_its_place() -> None:
    ours = {"case": "picme_rt, openvino fp32", "network": "picme"}
    first = {
        "python": 8.2, "imports": 50.0, "load": 70.0, "first": 12.0, "total": 140.2,
        "peak_bytes": 98_000_000,
    }  # fmt: skip
    run = {
        "machine_info": {"cpu": {"brand_raw": "A CPU"}},
        "benchmarks": [
            entry("six completions, picme", 100, **ours, of_yardstick_quartiles=[0.4, 0.5, 0.8]),
            entry(
                "six completions, picme", 200, case="reference loop", network="picme",
                of_yardstick_quartiles=[1.0, 1.0, 1.0],
            ),
            entry("k = 50, picme", 700, **ours),
            entry("stage decode, picme", 80, **ours),
            entry("stage pre, picme", 1.5, **ours),
            entry(
                "decode of the whole square, picme", 80, **ours,
                gmac=3.07, gops=300.0, share_of_peak=0.6,
            ),
            entry("first result", 400, case="openvino fp32", first_result=first),
            {"group": "sampler", "stats": {}, "extra_info": {}},  # has tables of its own
        ],
    }  # fmt: skip
    lines = list(tables.markdown(run))
    assert lines[0] == ("A CPU, 2 cores; at its best fp32 500, bf16 1060 GOP/s, a copy 44.6 GB/s.")
    for line in (
        "| picme | picme_rt, openvino fp32 | 100 (90 to 120), 80 | 2.00 (1.25 to 2.50) |",
        "| picme | reference loop | 200 (180 to 240), 160 | 1.00 (1.00 to 1.00) |",
        "| picme | picme_rt, openvino fp32 |  | 100 | 700 |  |  |  |  |",
        "| picme | picme_rt, openvino fp32 | 1.5 |  |  | 80 |  |",
        "| picme | picme_rt, openvino fp32 | 3.07 | 300 | 60 % |",
        "| openvino fp32 | 8 | 50 | 70 | 12 | 140 | 98 |",
    ):
        assert lines.count(line) == 1, "\n".join(lines)
