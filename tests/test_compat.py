"""hdetr_d2.compat: what it must hold on every Detectron2 that the package supports."""

import builtins
import importlib
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.utils import comm
from omegaconf import OmegaConf
from torch import nn

from hdetr_d2 import compat


def test_the_description_agrees_with_what_the_installed_detectron2_can_do() -> None:
    info = compat.detectron2_info()
    extension = importlib.import_module("detectron2._C") if _has_extension_module() else None
    assert info.version == importlib.import_module("detectron2").__version__
    assert info.compiled == (extension is not None and not extension.__file__.endswith(".py"))
    assert ("without its own operators" in str(info)) == (not info.compiled)


def _has_extension_module() -> bool:
    try:
        importlib.import_module("detectron2._C")
    except ImportError:
        return False
    return True


def test_a_config_that_raises_leaves_the_import_statement_alone(tmp_path: Path) -> None:
    config = tmp_path / "broken.py"
    config.write_text("raise RuntimeError('broken on purpose')")
    before = builtins.__import__
    with pytest.raises(RuntimeError, match="broken on purpose"):
        compat.load_config(config)
    assert builtins.__import__ is before


def test_a_saved_config_loads_with_its_interpolations_and_instantiates(tmp_path: Path) -> None:
    cfg = OmegaConf.create({"width": 3, "sizes": [1, 2]}, flags={"allow_objects": True})
    cfg.model = L(nn.Linear)(in_features="${width}", out_features=2, bias=False)
    compat.save_config(cfg, tmp_path / "config.yaml")
    loaded = compat.load_config(tmp_path / "config.yaml")
    loaded.width = 5
    assert instantiate(loaded.model).weight.shape == (2, 5)
    assert loaded.sizes == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def _local_function() -> object:
    def inner() -> None: ...

    return inner


@pytest.mark.parametrize("unnameable", [lambda: 0, _local_function()], ids=["lambda", "local function"])
@pytest.mark.parametrize("as_target", [True, False])
def test_what_could_not_be_loaded_again_is_not_saved_and_is_named(
    unnameable: object, as_target: bool, tmp_path: Path
) -> None:
    cfg = OmegaConf.create({"train": {}}, flags={"allow_objects": True})
    cfg.train.hooks = [L(unnameable)() if as_target else {"when": unnameable}]
    with pytest.raises(ValueError, match=r"train\.hooks\.0\.(_target_|when)"):
        compat.save_config(cfg, tmp_path / "config.yaml")
    assert list(tmp_path.iterdir()) == []


class _Unloadable:
    """Pickles, but does not come back."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return int, ("not a number",)


def test_a_config_that_saves_but_does_not_load_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    compat.save_config(OmegaConf.create({"x": 1}), path)
    cfg = OmegaConf.create({"x": 2}, flags={"allow_objects": True})
    cfg.value = _Unloadable()
    with pytest.raises(ValueError, match="cannot be loaded again"):
        compat.save_config(cfg, path)
    assert compat.load_config(path).x == 1
    assert list(tmp_path.iterdir()) == [path]


def _report_local_ranks(rank: int, world_size: int, address: str, folder: str) -> None:
    reports = []
    for round_number, per_machine in enumerate((1, 2)):  # twice, because one process may run two jobs
        init_method = f"{address}{round_number}"
        dist.init_process_group("gloo", init_method=init_method, rank=rank, world_size=world_size)
        compat.create_local_process_group(per_machine)
        reports.append(f"{comm.get_local_rank()}/{comm.get_local_size()}")
        assert comm.all_gather(rank) == [0, 1]
        compat.destroy_process_group()
    Path(folder, str(rank)).write_text(" ".join(reports))


def test_local_ranks_are_known_in_processes_that_detectron2_did_not_launch(tmp_path: Path) -> None:
    mp.spawn(_report_local_ranks, args=(2, f"file://{tmp_path}/rendezvous", str(tmp_path)), nprocs=2)
    assert (tmp_path / "0").read_text() == "0/1 0/2"
    assert (tmp_path / "1").read_text() == "0/1 1/2"


def test_processes_that_do_not_divide_into_machines_are_refused() -> None:
    with pytest.raises(ValueError, match="1 processes cannot be 2 on each machine"):
        compat.create_local_process_group(2)
