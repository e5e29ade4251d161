"""Random overrides through all that is checked before a run: python benchmarks/random_overrides.py N SECONDS SEED

Each try is a recipe with one or two overrides: values of every type, misspelt keys, cycles, broken grammar, names of
classes. An outcome is "usable" or "told", one line that names a key; else it is printed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import OmegaConf

from hdetr_d2.engine.config import load
from hdetr_d2.engine.overrides import apply_overrides
from hdetr_d2.engine.validation import validate
from hdetr_d2.errors import UserError

RECIPES = (
    "quickstart/h_deformable_detr_generated.py",
    "quickstart/family/dino_generated.py",
    "quickstart/family/deim_rtdetrv2_generated.py",
    "quickstart/lvis/federated_hybrid.py",
)
VALUES = (
    "null", "None", "~", "-1", "0", "1", "2", "1.5", "-0.5", "1e9", "1e308", "inf", "nan", "-inf", "true", "no", "off",
    "yes", "abc", "'1'", "''", "", "[]", "[1,2]", "[1,[2]]", "{}", "{a:1}", "[-1]", "${train.seed}", "${nothing.here}",
    "${self}", "${", "'${'", "é", "'a b'", "a (1) & b's #,~[x]=y.json", "~/x", "1_000", "0x10", "[null]", "???",
    "[a,b]", "10000", "-1e-30", "3000000000", "99999999999999999999", "{a: {b: [1, {c: nan}]}}", "[" * 200,
    "OneToOne", "HybridLayer", "SGD", "torch.nn.Linear", "os.path.join", "no.such.Module", "{_target_: OneToOne}",
    "{_target_: 5}",
)  # fmt: skip
GRAMMAR = (
    "{key}", "{key}=", "={key}", "{key}==1", "{key}=1,2", "~{key}", "+{key}=1", "++{key}=1", "{key}=[1,", "{key}={{a:",
    '{key}="', "{key}=range(1,3)", "{key}=choice(a,b)", "", " ", "--", "=", "~", "+", "+=1", ".=1", "{key}.=1",
    ".{key}=1", "{key}..x=1", "{key}.0=1", "{key}.-1=1", "{key}.99=1", "+{key}.99=1", "{key}[0]=1", "{key}={key}",
    "{key}@x=1", "{key}._target_=OneToOne", "{key}._target_=null", "{key}.zzz=1", "{key} = 1", "a b=1", "{key}=\n1",
)  # fmt: skip


def keys_of(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything below a plain node."""
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        key = f"{where}.{name}" if where else str(name)
        yield key, value
        if isinstance(value, (dict, list)):
            yield from keys_of(value, key)


def misspelt(key: str, rng: random.Random) -> str:
    """The key with a slip."""
    at = rng.randrange(len(key))
    return rng.choice(
        [
            key[:at] + key[at + 1 :],
            f"{key[:at]}x{key[at:]}",
            f"{key}s",
            key.upper(),
            key.replace(".", "..", 1),
            key.replace("_", "-"),
            f"{key}.zzz",
            f"zzz.{key}",
            key.replace(".", "/"),
        ]
    )


def draw(keys: Sequence[tuple[str, Any]], rng: random.Random) -> list[str]:
    """One or two overrides."""
    (key, _), (other, _) = rng.choice(keys), rng.choice(keys)
    kind = rng.random()
    if kind < 0.55:
        return [f"{key}={rng.choice(VALUES)}"]
    if kind < 0.7:
        return [f"{key}={rng.choice(VALUES)}", f"{other}={rng.choice(VALUES)}"]
    if kind < 0.8:
        return [f"{misspelt(key, rng)}={rng.choice(VALUES)}"]
    if kind < 0.87:
        return [f"{key}=${{{other}}}", f"{other}=${{{key}}}"]
    return [rng.choice(GRAMMAR).format(key=key)]


def outcome(base: Any, overrides: Sequence[str]) -> str:
    """Either "usable", or "told", or what went wrong."""
    cfg = OmegaConf.create(OmegaConf.to_container(base, resolve=False), flags={"allow_objects": True})
    try:
        apply_overrides(cfg, overrides)
        validate(cfg, overrides)
    except UserError as error:
        keys = [text.partition("=")[0].strip("+~ ") for text in overrides]
        return "told" if any(key in str(error) for key in keys) else f"the message names no key: {error}"
    except Exception:
        return traceback.format_exc()
    return "usable"


def try_overrides(count: int, seconds: float, seed: int) -> Iterator[tuple[str, list[str], str]]:
    """(recipe, overrides, outcome) of each try."""
    rng = random.Random(seed)
    bases = {name: load(name) for name in RECIPES}
    keys = {name: list(keys_of(OmegaConf.to_container(cfg, resolve=False))) for name, cfg in bases.items()}
    end = time.monotonic() + seconds
    for _ in range(count):
        if time.monotonic() > end:
            return
        recipe = rng.choice(RECIPES)
        overrides = draw(keys[recipe], rng)
        yield recipe, overrides, outcome(bases[recipe], overrides)


def main() -> int:
    """Try, count and print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("seed", type=int)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    for recipe, overrides, result in try_overrides(args.count, args.seconds, args.seed):
        known = result if result in ("usable", "told") else "other"
        counts[known] += 1
        if known == "other":
            print(f"{recipe} {overrides}\n{result}", flush=True)
    print(dict(counts))
    return int(counts["other"] > 0)


if __name__ == "__main__":
    sys.exit(main())
