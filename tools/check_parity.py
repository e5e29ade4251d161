"""Compare this project's models with outputs of the authors' code: python tools/check_parity.py FILE.npz [...].

A file holds weights, inputs, outputs, losses and gradient norms of one small model; the keys are in docs/parity.md.
One line a quantity is printed with the largest difference. Exits 1 where one is above its tolerance, 2 where a file
holds a model that is not supported.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import parity_dense_o2o
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from parity_common import Check, GivenFeatures, NotSupportedError, Theirs, evaluation_checks, load, training_checks
from parity_family import check_family
from parity_rtdetr import MODELS as RTDETR_MODELS
from parity_rtdetr import check_rtdetr
from torch import Tensor

from hdetr_d2.checkpoint.names.deformable_detr import AuthorsLayout, from_authors, to_authors
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR, TwoStageQueries
from hdetr_d2.supervision import HybridBranch


def build_model(config: Mapping[str, Any]) -> DETR:
    """The model that ``config.json`` describes, from the same configuration files that training uses."""
    model = get_config("common/models/deformable_detr.py").model
    model.num_classes = config["num_classes"]
    model.num_detections = config["topk"]
    model.backbone = L(GivenFeatures)(channels=config["channels"])
    model.neck.in_channels = config["channels"]
    model.neck.in_features = [f"res{i + 3}" for i in range(len(config["channels"]))]
    transformer = model.transformer
    transformer.encoder.num_layers = config["enc_layers"]
    transformer.encoder.layer.update(hidden_dim=config["ffn"], dropout=0.0)
    transformer.decoder.update(
        num_layers=config["dec_layers"],
        refine=config["with_box_refine"],
        look_forward_twice=config["look_forward_twice"] and config["with_box_refine"],
    )
    transformer.query_source.num_queries = config["num_queries_one2one"]
    transformer.heads.update(shared=not config["with_box_refine"])
    if config["two_stage"]:
        transformer.query_source = L(TwoStageQueries)(
            num_queries=config["num_queries_one2one"],
            embed_dim="${..embed_dim}",
            mixed=config["mixed_selection"],
        )
        transformer.heads.update(encoder="own" if config["with_box_refine"] else "shared", initial_size=False)
    if config["num_queries_one2many"]:
        model.supervision = L(HybridBranch)(
            num_queries=config["num_queries_one2many"],
            k=config["k_one2many"],
            weight=config["lambda_one2many"],
        )
    return instantiate(model)


def check(path: Path) -> Iterator[Check]:
    """All checks of one file.

    Raises:
        NotSupportedError: for a model that this project does not have.
    """
    data, config = load(path)
    if config.get("model") == "deim_dense_o2o":
        yield from (Check(*result) for result in parity_dense_o2o.check(path))
    elif config.get("model") in RTDETR_MODELS:
        yield from check_rtdetr(data, config)
    elif "model" in config:
        yield from check_family(data, config)
    else:
        yield from check_h_detr(data, config)


def check_h_detr(data: Mapping[str, Tensor], config: Mapping[str, Any]) -> Iterator[Check]:
    """All checks of one (H-)Deformable-DETR."""
    state = {key.removeprefix("sd/"): value for key, value in data.items() if key.startswith("sd/")}
    model = build_model(config)
    model.load_state_dict(from_authors(state, num_queries=config["num_queries_one2one"]))
    features = {f"res{i + 3}": data[f"in/feat{i}"] for i in range(len(config["channels"]))}
    sizes = [(int(height), int(width)) for height, width in data["in/image_sizes"]]
    inputs = (features, tuple(data["in/mask"].shape[-2:]), sizes)
    layout = AuthorsLayout.of(state)
    yield from training_checks(model, data, inputs, Theirs(gradients=partial(to_authors, layout=layout)))
    yield from evaluation_checks(model, data, inputs)


def main() -> int:
    """Run all files; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npz")
    failed = unsupported = False
    for path in parser.parse_args().files:
        print(path)
        try:
            for result in check(path):
                print(f"  {result}")
                failed |= not result.passed
        except NotSupportedError as error:
            print(f"  not supported: {error}")
            unsupported = True
    return 1 if failed else 2 if unsupported else 0


if __name__ == "__main__":
    sys.exit(main())
