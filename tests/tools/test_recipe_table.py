"""docs/recipes.md is what the configs and the published entries say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from hdetr_d2.model_zoo import entries

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipe_table", ROOT / "tools" / "recipe_table.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells_of(tool: ModuleType, name: str) -> dict[str, str]:
    return dict(zip(tool.COLUMNS, tool.row(entries()[name])))


def test_the_committed_table_is_what_the_tool_writes(tool: ModuleType) -> None:
    document = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert tool.with_tables(document) == document


def test_every_entry_has_one_row_whose_link_leads_to_its_config(tool: ModuleType) -> None:
    document = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name, entry in entries().items():
        assert document.count(f"| [{name}](../configs/{entry.config}) |") == 1
        assert (ROOT / "docs" / ".." / "configs" / entry.config).is_file()


def test_a_stale_table_is_replaced_and_the_text_around_it_kept(tool: ModuleType) -> None:
    written = tool.with_tables(f"before\n{tool.BEGIN}old\n{tool.END}after\n")
    assert written.startswith(f"before\n{tool.BEGIN}")
    assert written.endswith(f"{tool.END}after\n")
    assert "\nold\n" not in written


@pytest.mark.parametrize(
    "document", ["no marks\n", "only the first\n<!-- tables: written by tools/recipe_table.py -->\n"]
)
def test_a_document_without_a_place_for_the_tables_is_refused(tool: ModuleType, document: str) -> None:
    with pytest.raises(ValueError, match="lacks the line"):
        tool.with_tables(document)


def test_a_row_says_what_the_config_says(tool: ModuleType) -> None:
    cells = cells_of(tool, "h_deformable_detr_swin_large_n900_wd005_top300_36ep")
    assert cells["backbone"] == "swin_large_patch4_window7_224.ms_in22k, drop path 0.5, weight decay 0.05"
    tricks = "FFN 2048, dropout 0, two stages, refinement, mixed selection, look forward twice"
    assert cells["model"] == f"4 levels, {tricks}"
    assert cells["supervision"] == "branch, K 6, T 1500, lambda 1"
    assert (cells["epochs"], cells["queries"], cells["AP"]) == (
        "36 (drop 30), batch 16",
        "900, 300 detections",
        "57.9",
    )
    assert cells["command"].endswith("model.backbone.pretrained=true`")
    assert cells_of(tool, "hybrid_epoch_r50_24ep")["supervision"] == "epoch, K 10, rho 0.67"
    assert cells_of(tool, "hybrid_layer_r50_24ep")["supervision"] == "layer, K 10, 4 layers"
    plain = cells_of(tool, "deformable_detr_r50_50ep")
    assert (plain["model"], plain["supervision"]) == ("4 levels, FFN 1024, dropout 0.1", "one-to-one")
    assert plain["epochs"] == "50 (drop 40), batch 32"
    r101 = cells_of(tool, "h_deformable_detr_r101_12ep")
    assert r101["AP"] == r101["weights"] == ""
    assert r101["command"].endswith(" train.init_checkpoint=resnet101.pth`")
    assert plain["command"].endswith("/torchvision/R-50.pkl`")
