"""tools/install_detectron2.py, as far as it can be tested without a network and without an installation."""

import hashlib
import importlib.util
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[2] / "tools" / "install_detectron2.py"


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_detectron2", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def substitution(installer: ModuleType, count: int) -> object:
    return installer.Substitution(
        name="old name", reason="it is old", files="src/**/*.py", pattern=r"^old\b", replacement="new", count=count
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "a.py").write_text("old = 1\nolder = 2\nx = old\n")
    (tmp_path / "src" / "deep" / "b.py").write_text("old = 3\nold = 4\n")
    (tmp_path / "src" / "c.txt").write_text("old\n")
    return tmp_path


def test_a_substitution_changes_every_match_in_its_files_and_nothing_else(installer: ModuleType, source: Path) -> None:
    substitution(installer, count=3).apply(source)
    assert (source / "src" / "a.py").read_text() == "new = 1\nolder = 2\nx = old\n"
    assert (source / "src" / "deep" / "b.py").read_text() == "new = 3\nnew = 4\n"
    assert (source / "src" / "c.txt").read_text() == "old\n"


@pytest.mark.parametrize("count", [2, 4])
def test_a_substitution_that_matches_another_number_of_times_changes_nothing(
    installer: ModuleType, source: Path, count: int
) -> None:
    before = (source / "src" / "a.py").read_text()
    with pytest.raises(installer.InstallError, match=f"'old name'.* matched 3 times instead of {count}"):
        substitution(installer, count).apply(source)
    assert (source / "src" / "a.py").read_text() == before


def test_every_substitution_has_its_own_name_and_a_reason(installer: ModuleType) -> None:
    assert len({each.name for each in installer.SUBSTITUTIONS}) == len(installer.SUBSTITUTIONS)
    assert all(each.reason and each.count > 0 for each in installer.SUBSTITUTIONS)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("NumPy aliases", "x = np.zeros(3, dtype=np.bool)", "x = np.zeros(3, dtype=bool)"),
        ("NumPy aliases", "np.bool_, np.float32, np.int64", "np.bool_, np.float32, np.int64"),
        ("Pillow filter", "interp=Image.LINEAR", "interp=Image.BILINEAR"),
        (
            "sampling from a set",
            "cur_idx = self._rng.sample(self._fallback_candidates, k=1)[0]",
            "cur_idx = self._rng.sample(list(self._fallback_candidates), k=1)[0]",
        ),
        ("unused requirements", '  "yacs",\n        "black==21.4b2",\n  "tqdm",\n', '  "yacs",\n  "tqdm",\n'),
        ("unused requirements", '        "future",  # used by caffe2\n', ""),
        (
            "model zoo configs",
            'glob.glob("configs/**/*.yaml", recursive=True)',
            'glob.glob("configs/**/*.yaml", root_dir="detectron2/model_zoo", recursive=True)',
        ),
        (
            "optional formatter",
            "  import black\n\n  cfg = 1\n",
            "  try:\n      import black\n  except ImportError:\n      black = None\n\n  cfg = 1\n",
        ),
        (
            "resource path",
            'f = pkg_resources.resource_filename(\n    "detectron2.model_zoo", os.path.join("configs", path)\n)',
            'f = str(importlib.resources.files("detectron2.model_zoo").joinpath("configs", path))',
        ),
    ],
)
def test_substitutions_do_what_they_say(installer: ModuleType, name: str, before: str, after: str) -> None:
    (found,) = [each for each in installer.SUBSTITUTIONS if each.name == name]
    assert re.sub(found.pattern, found.replacement, before, flags=re.MULTILINE) == after


def archive_with(path: Path, name: str, text: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    return path


def test_an_archive_with_another_checksum_is_refused(installer: ModuleType, tmp_path: Path) -> None:
    archive = archive_with(tmp_path / "a.tar.gz", "package-0.6/setup.py", "print('hello')")
    with pytest.raises(installer.InstallError, match=r"a\.tar\.gz has sha256 .* instead of"):
        installer.unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unpacking_gives_the_folder_of_setup_py(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_with(tmp_path / "a.tar.gz", "package-0.6/setup.py", "print('hello')")
    monkeypatch.setattr(installer, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    assert installer.unpack(archive, tmp_path / "out") == tmp_path / "out" / "package-0.6"


def test_the_stand_in_for_the_extension_says_what_is_missing(installer: ModuleType) -> None:
    stand_in = ModuleType("_C")
    exec(installer.NEW_FILES["detectron2/_C.py"], stand_in.__dict__)
    assert not stand_in.has_cuda()
    assert "not compiled" in stand_in.get_compiler_version()
    with pytest.raises(RuntimeError, match=r"detectron2\._C\.nms_rotated .* does not have"):
        stand_in.nms_rotated  # noqa: B018
    assert not hasattr(stand_in, "__wrapped__")


@pytest.mark.parametrize(
    ("failure", "refused"),
    [
        ("ModuleNotFoundError: No module named 'fvcore.common'", True),
        ("ModuleNotFoundError: No module named 'detectron2'", False),
        ("ModuleNotFoundError: No module named 'detectron2._C'", False),
        ("ModuleNotFoundError: No module named 'pkg_resources'", False),
        ("ModuleNotFoundError: No module named 'caffe2.proto'", False),
        ("AttributeError: module 'PIL.Image' has no attribute 'LINEAR'", False),
    ],
)
def test_a_missing_requirement_is_not_taken_for_a_broken_detectron2(
    installer: ModuleType, failure: str, refused: bool
) -> None:
    if refused:
        with pytest.raises(installer.InstallError, match=r"fvcore\.common"):
            installer.refuse_missing_requirement(failure)
    else:
        installer.refuse_missing_requirement(failure)


def test_nothing_is_done_where_detectron2_works() -> None:
    import detectron2

    done = subprocess.run([sys.executable, PROGRAM], text=True, capture_output=True, check=True)
    assert done.stdout == f"detectron2 {detectron2.__version__} at {detectron2.__path__[0]}\n"
