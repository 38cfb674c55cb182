"""Two runs that are equal pass; one that is slower in one case fails, whatever the machine."""

import copy
import json
from pathlib import Path
from typing import Any

import compare_runs
import pytest

NAMES = ["six completions", "stage decode", "sampler"]
Run = dict[str, Any]


@pytest.fixture
def run() -> Run:
    """Three cases as pytest-benchmark writes them; the last has no yardstick of its own."""
    peaks = {"threads": 2, "operations": {"fp32": 500.0}, "copy": 40.0}
    paired = {
        "peaks": peaks,
        "yardstick": "reference loop",
        "of_yardstick": 0.4,
        "of_yardstick_quartiles": [0.4, 0.42, 0.5],
    }
    return {
        "benchmarks": [
            {
                "fullname": name,
                "stats": {"min": 0.1, "median": 0.11},
                "extra_info": {} if name == "sampler" else copy.deepcopy(paired),
            }
            for name in NAMES
        ]
    }


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def to_file(name: str, content: Run) -> str:
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name)

    return to_file


def slowed(run: Run, place: int, factor: float) -> Run:
    changed = copy.deepcopy(run)
    entry = changed["benchmarks"][place]
    for part in entry["stats"]:
        entry["stats"][part] *= factor
    about = entry["extra_info"]
    if "yardstick" in about:
        about["of_yardstick"] *= factor
        about["of_yardstick_quartiles"] = [factor * x for x in about["of_yardstick_quartiles"]]
    return changed


def test_equal_runs_pass(run: Run, write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_runs.main([write("a", run), write("b", run)]) == 0
    assert capsys.readouterr().out == (
        "3 cases compared: 0 slower and 0 faster by more than 15 %\n"
    )


@pytest.mark.parametrize("place", range(len(NAMES)))
def test_a_case_that_became_slower_fails(
    run: Run, write: Any, capsys: pytest.CaptureFixture[str], place: int
) -> None:
    assert compare_runs.main([write("a", run), write("b", slowed(run, place, 1.14))]) == 0
    assert compare_runs.main([write("a", run), write("c", slowed(run, place, 1.16))]) == 1
    assert f"slower: {NAMES[place]}: x 1.16 (minimum x 1.16)" in capsys.readouterr().out
    assert compare_runs.main([write("a", run), write("d", slowed(run, place, 0.5))]) == 0
    assert f"faster: {NAMES[place]}: x 0.50" in capsys.readouterr().out


def test_a_machine_of_half_the_speed_changes_nothing(run: Run, write: Any) -> None:
    other = slowed(run, 2, 2)  # twice the time where the peak is half
    for entry in other["benchmarks"]:
        entry["extra_info"].get("peaks", {"operations": {}})["operations"]["fp32"] = 250.0
        entry["stats"]["min"] *= 1 if entry["fullname"] == "sampler" else 2
    assert compare_runs.main([write("a", run), write("b", other)]) == 0


def test_what_disturbs_the_median_alone_is_no_regression(run: Run, write: Any) -> None:
    other = slowed(run, 0, 1)
    other["benchmarks"][0]["extra_info"]["of_yardstick_quartiles"][1] *= 1.5
    assert compare_runs.main([write("a", run), write("b", other)]) == 0


def test_a_case_that_is_gone_is_no_pass(run: Run, write: Any) -> None:
    fewer = {"benchmarks": run["benchmarks"][1:]}
    with pytest.raises(SystemExit, match="six completions is not in the new run"):
        compare_runs.main([write("a", run), write("b", fewer)])
    assert compare_runs.main([write("c", fewer), write("d", run)]) == 0  # a new one is


def test_runs_with_other_yardsticks_are_not_compared(run: Run, write: Any) -> None:
    other = slowed(run, 0, 1)
    other["benchmarks"][0]["extra_info"]["yardstick"] = "fp32 product"
    with pytest.raises(SystemExit, match="must be compared with reference loop, got fp32 product"):
        compare_runs.main([write("a", run), write("b", other)])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmarks": []}'])
def test_a_file_that_is_no_run_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SystemExit, match=r"a\.json is no run of the latency suite"):
        compare_runs.read(tmp_path / "a.json")
