"""Modules beside a config file and classes in it: found, saved, and found again from another folder."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import OmegaConf
from torch import nn

from hdetr_d2 import compat
from hdetr_d2.own_code import IMPORT_PATHS, OwnCodeError

LOAD = """
import sys
from detectron2.config import instantiate
from hdetr_d2 import compat
print(type(instantiate(compat.load_config(sys.argv[1]).part)).__name__)
"""


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path


def loaded_elsewhere(saved: Path) -> str:
    """What another process, which knows nothing of the config file, builds from a saved config."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(saved)], capture_output=True, text=True, cwd=saved.parent, check=True
    )
    return done.stdout.strip()


def test_a_module_beside_the_config_is_found_and_again_once_the_config_is_saved_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "run").mkdir()
    write(tmp_path / "mine" / "hdetr_own_parts.py", "class Part:\n    pass\n")
    config = write(
        tmp_path / "mine" / "config.py",
        """
        from detectron2.config import LazyCall as L
        from hdetr_own_parts import Part
        part = L(Part)()
        """,
    )
    cfg = compat.load_config(config)
    compat.save_config(cfg, tmp_path / "run" / "config.yaml")
    again = compat.load_config(tmp_path / "run" / "config.yaml")
    assert again[IMPORT_PATHS] == [str(tmp_path / "mine")]
    assert loaded_elsewhere(tmp_path / "run" / "config.yaml") == "Part"
    compat.save_config(again, tmp_path / "run" / "again.yaml")
    assert compat.load_config(tmp_path / "run" / "again.yaml") == again
    assert IMPORT_PATHS not in cfg


def test_a_class_of_the_config_file_is_saved_by_file_and_name(tmp_path: Path) -> None:
    config = write(
        tmp_path / "config.py",
        """
        from detectron2.config import LazyCall as L

        class Base:
            def name(self):
                return "base"

        class Part(Base):
            def __init__(self, *, size):
                self.size = size

        def other(*, size):
            return Base() if size else None

        part = L(Part)(size=3)
        more = dict(parts=[L(other)(size=1), L(Base)()])
        """,
    )
    (tmp_path / "run").mkdir()
    saved = tmp_path / "run" / "config.yaml"
    compat.save_config(compat.load_config(config), saved)
    assert f"{config}:Part" in saved.read_text()
    again = compat.load_config(saved)
    part, (other, base) = instantiate(again.part), instantiate(again.more.parts)
    assert (part.size, part.name()) == (3, "base")
    assert type(other) is type(base)  # one run of the file, not one for each class
    assert isinstance(part, type(base))
    assert loaded_elsewhere(saved) == "Part"
    compat.save_config(again, saved)
    assert instantiate(compat.load_config(saved).part).size == 3
    config.write_text("x = 1")
    with pytest.raises(OwnCodeError, match=r"config\.py does not define"):
        compat.load_config(saved)
    config.unlink()
    with pytest.raises(OwnCodeError, match="not there"):
        compat.load_config(saved)


@pytest.mark.parametrize(
    "line",
    ["part = dict(value=Empty)", "part = dict(value=function)", "part = L(Empty)()"],
    ids=["a class as a value", "a function as a value", "a class without a function"],
)
def test_what_no_name_leads_to_is_refused_with_its_key(tmp_path: Path, line: str) -> None:
    config = write(
        tmp_path / "config.py",
        f"""
        from detectron2.config import LazyCall as L

        class Empty:
            pass

        def function():
            return 1

        {line}
        """,
    )
    with pytest.raises(OwnCodeError, match=r"part\.(value|_target_)'.*in a module beside"):
        compat.save_config(compat.load_config(config), tmp_path / "saved.yaml")
    assert not (tmp_path / "saved.yaml").exists()


def test_a_config_of_the_package_alone_is_saved_without_folders(tmp_path: Path) -> None:
    cfg = OmegaConf.create({}, flags={"allow_objects": True})
    cfg.part = L(nn.Linear)(in_features=1, out_features=2)
    compat.save_config(cfg, tmp_path / "config.yaml")
    assert compat.load_config(tmp_path / "config.yaml") == {
        "part": {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 2}
    }
