"""Two versions side by side, from the manifests of committed bundles and made ones."""

import json
import zipfile
from pathlib import Path
from typing import Any

from cloud.comparing import Comparison, Row, compare, flat

MODELS = Path(__file__).parents[2] / "models"


def test_committed_versions_compare_by_class_thresholds_and_guarantee() -> None:
    found = _of("phone_glass/phone_glass-1.0.0", "phone_glass/phone_glass-1.2.0")
    rows = _rows(found)
    assert not found.same_data
    assert "export.heldout.recall.scratch" in rows["Per class"]
    assert rows["Thresholds"]["pass_max"].difference is not None
    assert rows["Guarantee"]["alpha_escape"].same
    assert rows["Files"]["tflite, bytes"].difference == 136
    assert rows["Input"]["width"].same
    assert rows["Lineage"]["code"].first is not None


def test_labels_that_moved_came_or_went_are_seen() -> None:
    first, second = ({"labels": labels} for labels in (["good", "scratch", "dent"], ["good", "dent", "crack"]))
    rows = _rows(compare(first, second, (1, 1)))["Labels"]
    assert {name: (row.first, row.second) for name, row in rows.items()} == {
        "good": (0, 0), "scratch": (1, None), "dent": (2, 1), "crack": (None, 2),
    }  # fmt: skip


def test_figures_stand_where_they_belong_and_none_is_left_out() -> None:
    metrics = {
        "by_class": {"crack": 0.9},
        "slices": {"dim": {"recall": {"value": 0.8, "low": 0.7, "high": 0.9}}},
        "speeds": {"onnx": {"p50_ms": 1.5}},
        "accuracy": 0.97,
        "curve": list(range(99)),
    }
    rows = _rows(compare({"metrics": metrics}, {"metrics": {}}, (1, 2)))
    assert rows["Per class"]["by_class.crack"].first == 0.9
    assert rows["Per slice"]["slices.dim.recall, interval"].first == "0.7 to 0.9"
    assert rows["Latency and memory"]["speeds.onnx.p50_ms"].first == 1.5
    assert rows["Other figures"]["accuracy"].second is None
    stated = sum(title in ("Per class", "Per slice", "Latency and memory", "Other figures") and len(found)
                 for title, found in rows.items())  # fmt: skip
    assert stated == len(dict(flat(metrics)))


def test_audits_compare_limit_by_limit_and_data_by_digest() -> None:
    def manifest(*, passed: bool) -> dict[str, Any]:
        limit = {"limit": "recall of crack: at least 0.9", "passed": passed, "value": 0.91}
        return {"audit": {"passed": passed, "limits": [limit]}, "lineage": {"dataset_digest": "ab"}}

    found = compare(manifest(passed=True), manifest(passed=False), (1, 1))
    assert found.same_data
    row = _rows(found)["Audit"]["recall of crack: at least 0.9"]
    assert (row.first, row.second, row.same) == ("passed, 0.91", "failed, 0.91", False)


def test_empty_manifests_compare_without_an_error() -> None:
    assert [section.title for section in compare({}, {}, (1, 1)).sections] == ["Files"]


def _of(first: str, second: str) -> Comparison:
    paths = [MODELS / f"{name}.lsb" for name in (first, second)]
    manifests = [json.loads(zipfile.ZipFile(path).read("manifest.json")) for path in paths]
    return compare(manifests[0], manifests[1], (paths[0].stat().st_size, paths[1].stat().st_size))


def _rows(found: Comparison) -> dict[str, dict[str, Row]]:
    return {section.title: {row.what: row for row in section.rows} for section in found.sections}
