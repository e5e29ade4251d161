"""tools/evaluate.py has its former options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "evaluate.py"


@pytest.mark.parametrize("joined", [False, True])
def test_the_former_name_is_the_command(joined: bool, tmp_path: Path) -> None:
    truth = {
        "images": [{"id": 1, "width": 40, "height": 30, "neg_category_ids": [], "not_exhaustive_category_ids": []}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [4, 4, 10, 10], "area": 100, "iscrowd": 0}],
        "categories": [{"id": 2, "name": "cat"}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "r.json").write_text(
        json.dumps([{"image_id": 1, "category_id": 2, "bbox": [4, 4, 10, 10], "score": 0.5}])
    )
    files = [f"--gt={tmp_path / 'gt.json'}"] if joined else ["--gt", str(tmp_path / "gt.json")]
    command = [sys.executable, str(TOOL), *files, "--results", "r.json", "--output", "metrics.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())["bbox"]
    assert metrics["AP"] == pytest.approx(100)
    assert "APr" not in metrics  # COCO's metrics, although the file has LVIS's lists
