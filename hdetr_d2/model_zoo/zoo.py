"""Finding and loading the packaged configs."""

import difflib
import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ..compat import load_config

_CONFIGS = Path(__file__).parent / "configs"
_COMMON = "common"  # the parts that configs are composed of; not loadable recipes


def config_names() -> list[str]:
    """Names of all recipes, sorted, as :func:`get_config` takes them: paths relative to ``configs/``, with ``/``."""
    names = (path.relative_to(_CONFIGS) for path in _CONFIGS.rglob("*.py"))
    return sorted(name.as_posix() for name in names if name.parts[0] != _COMMON)


def config_path(name: str) -> str:
    """The file of a config.

    Args:
        name: path relative to ``configs/``, for example "h_deformable_detr/h_deformable_detr_r50_12ep.py", or the
            file's name without ending, "h_deformable_detr_r50_12ep"; of the path, too, the ending may be left out.

    Raises:
        FileNotFoundError: there is no such config; the message has the nearest names, or those of the same folder.
    """
    for path in (_CONFIGS / name, _CONFIGS / f"{name}.py"):
        if os.path.isfile(path):  # Path.is_file raises on a name too long
            return str(path)
    named = [other for other in config_names() if Path(other).stem == name]
    if len(named) == 1:
        return str(_CONFIGS / named[0])
    raise FileNotFoundError(f"no config '{name[:200]}'; {_others(name)}")


def _others(name: str) -> str:
    """What to say after "no such config". Names are compared without their folders, which are what people forget."""
    names = config_names()
    stems = {Path(other).stem.lower(): other for other in names}
    near = [stems[stem] for stem in difflib.get_close_matches(Path(name[-200:]).stem.lower(), stems, n=3)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    siblings = [other for other in names if Path(other).parent == Path(name).parent]
    if siblings:
        return f"beside it there is {', '.join(siblings)}"
    return f"hdetr-d2 configs list shows all {len(names)}"


def get_config(name: str) -> DictConfig:
    """Load a config, not resolved, so that what it interpolates can still be changed.

    Args:
        name: as for :func:`config_path`.
    """
    return load_recipe(config_path(name))


def load_recipe(path: str) -> DictConfig:
    """Load a config file, of this package or the user's own.

    Where it is silent about ``train.output_dir``, that is ``output/`` and the file's name without ending.
    """
    config = load_config(path)
    if OmegaConf.is_dict(config.get("train")) and config.train.get("output_dir", "") is None:
        config.train.output_dir = f"output/{Path(path).stem}"
    return config
