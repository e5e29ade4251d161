"""Write the tables of docs/recipes.md from the configs and what was published for them: python tools/recipe_table.py

With --check nothing is written, and the exit status is 1 where the file is not what would be written.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from omegaconf import DictConfig

from hdetr_d2.model_zoo import Entry, entries, get_config

DOCUMENT = Path(__file__).parents[1] / "docs" / "recipes.md"
BEGIN, END = "<!-- tables: written by tools/recipe_table.py -->\n", "<!-- end of tables -->\n"
FOLDERS = {
    "deformable_detr": "Deformable DETR, and Deformable DETR++ with all of H-DETR's tricks",
    "deformable_detr/baselines": "H-DETR's baselines: the wide FFN and no other trick",
    "deformable_detr/ablations": "Tricks one after the other",
    "h_deformable_detr": "H-Deformable-DETR",
    "h_deformable_detr/swin": "H-Deformable-DETR with Swin backbones",
    "h_deformable_detr/schemes": "Hybrid branch, epoch and layer without tricks",
    "h_deformable_detr/ablations": "K, T and lambda of the hybrid branch",
    "detr": "DETR",
    "conditional_detr": "Conditional DETR",
    "group_detr": "Group DETR",
    "dab_detr": "DAB-DETR",
    "dab_deformable_detr": "DAB-Deformable-DETR",
    "dn_detr": "DN-DETR",
    "dn_deformable_detr": "DN-Deformable-DETR",
    "dino": "DINO",
    "dac_detr": "DAC-DETR",
    "relation_detr": "Relation-DETR",
    "ms_detr": "MS-DETR",
    "mr_detr": "Mr. DETR",
    "rt_detr": "RT-DETR",
    "rt_detr_v2": "RT-DETRv2",
    "rt_detr_v2/discrete": "RT-DETRv2 with discrete sampling, fine-tuned",
    "rt_detr_v2/points": "RT-DETRv2 with fewer sampling points",
    "deim": "DEIM on RT-DETRv2",
    "dfine": "D-FINE",
    "deim_dfine": "DEIM on D-FINE",
    "lvis": "LVIS v1, with federated loss and repeat-factor sampling",
    "lvis/small": "LVIS v1 on one GPU of 24 GB",
}
COLUMNS = ("recipe", "backbone", "model", "supervision", "epochs", "queries", "AP", "source", "weights", "command")


def class_name(node: DictConfig) -> str:
    """Of what a node of a config calls."""
    target = node._target_
    return target.rpartition(".")[2] if isinstance(target, str) else target.__name__


def backbone_of(config: DictConfig) -> str:
    """Name, and what of drop path and weight decay the recipes vary with it."""
    backbone = config.model.backbone
    if "name" not in backbone:
        dilated = class_name(backbone.stages) == "dilated_stages"
        return f"ResNet-{backbone.stages.depth}{', dilated' if dilated else ''}"
    if "model_args" not in backbone:
        return backbone.name
    return (
        f"{backbone.name}, drop path {backbone.model_args.drop_path_rate}, weight decay {config.optimizer.weight_decay}"
    )


def pretraining_of(config: DictConfig) -> str:
    """The override that starts from the backbone's ImageNet weights."""
    backbone = config.model.backbone
    if "name" in backbone:
        return "model.backbone.pretrained=true"
    depth = backbone.stages.depth
    if depth == 50:
        return "train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl"
    # Detectron2 offers no deeper one in torchvision's layout; the document says how to make the file.
    return f"train.init_checkpoint=resnet{depth}.pth"


def model_of(config: DictConfig) -> str:
    """What tells a model of the family from the others."""
    transformer = config.model.transformer
    source = transformer.query_source
    layer = (transformer.encoder or transformer.decoder).layer  # RT-DETR's neck is its encoder
    parts = [
        f"{transformer.num_levels} level{'s' * (transformer.num_levels > 1)}",
        f"FFN {layer.hidden_dim}",
        f"dropout {layer.dropout:g}",
    ]
    if "Deformable" not in class_name(transformer.decoder.layer):
        parts.append("dense attention")
    if source.get("num_patterns"):
        parts.append(f"{source.num_patterns} patterns")
    if class_name(source) == "TwoStageQueries":
        parts.append("two stages")
    if transformer.decoder.refine:
        parts.append("refinement")
    if source.get("mixed"):
        parts.append("mixed selection")
    if source.get("distinct") is not None:
        parts.append(f"distinct queries ({source.distinct:g})")
    if transformer.decoder.look_forward_twice:
        parts.append("look forward twice")
    points = transformer.decoder.layer.get("num_points", 4)
    if points != 4:
        parts.append(f"{', '.join(map(str, points))} points")
    if transformer.decoder.get("refinement") is not None:
        parts.append("distributions of edges")
    if transformer.decoder.layer.get("sampling", "bilinear") != "bilinear":
        parts.append(f"{transformer.decoder.layer.sampling} sampling")
    if transformer.get("denoising") is not None:
        parts.append("denoising")
    loss = config.model.criterion.classification
    if class_name(loss) == "IoUAwareBCE":
        parts.append("IoU-aware loss")
    if class_name(loss) == "MatchabilityAwareLoss":
        parts.append("matchability-aware loss")
    if class_name(loss) == "FederatedLoss":
        parts.append(f"federated loss of {loss.num_chosen} classes")
    return ", ".join(parts)


def supervision_of(config: DictConfig) -> str:
    """The scheme with its settings."""
    scheme = config.model.supervision
    kind = class_name(scheme)
    if kind == "HybridBranch":
        of_proposals = ", proposals too" if scheme.get("encoder") == "one2many" else ""
        return f"branch, K {scheme.k}, T {scheme.num_queries}, lambda {scheme.weight:g}{of_proposals}"
    if kind == "HybridProposals":
        return f"proposals, K {scheme.k}"
    if kind == "HybridEpoch":
        return f"epoch, K {scheme.k}, rho {scheme.rho:.2f}"
    if kind == "HybridLayer":
        return f"layer, K {scheme.k}, {scheme.num_one2many_layers} layers"
    if kind == "GroupwiseOneToOne":
        return f"one-to-one in {scheme.num_groups} groups"
    if kind == "AuxiliaryOneToMany":
        routes = ", ".join(scheme.get("routes") or {})
        return f"one-to-many, K {scheme.matcher.k}, on {f'routes {routes}' if routes else 'taps'}"
    return {"OneToOne": "one-to-one"}[kind]


def length_of(config: DictConfig) -> str:
    """Epochs and the images of a step."""
    schedule = config.schedule
    drops = ", ".join(str(epoch) for epoch in schedule.drop_epochs)
    cosine = "cosine {} to {}".format(*schedule.cosine_epochs) if schedule.cosine_epochs else "constant"
    text = f"{schedule.epochs} ({f'drop {drops}' if drops else cosine}), batch {config.train.batch_size}"
    return text + (f" in {config.train.accumulate} parts" if config.train.accumulate > 1 else "")


def row(entry: Entry) -> tuple[str, ...]:
    """A line of the table, one cell a column."""
    config = get_config(entry.config)
    gpus = 1 if config.train.accumulate > 1 else 8
    queries = str(config.model.transformer.query_source.num_queries)
    if config.model.num_detections != 100:
        queries += f", {config.model.num_detections} detections"
    return (
        f"[{entry.name}](../configs/{entry.config})",
        backbone_of(config),
        model_of(config),
        supervision_of(config),
        length_of(config),
        queries,
        "" if entry.ap is None else f"{entry.ap:.1f}",
        entry.source,
        f"[file]({entry.weights.url})" if entry.weights else "",
        f"`python train_net.py --config-file {entry.name} --num-gpus {gpus} {pretraining_of(config)}`",
    )


def tables() -> Iterator[str]:
    """Lines: a heading and a table for each folder of recipes."""
    folder = ""
    for entry in entries().values():
        if str(PurePosixPath(entry.config).parent) != folder:
            folder = str(PurePosixPath(entry.config).parent)
            yield from ("", f"### {FOLDERS[folder]}", "")
            yield from ("| " + " | ".join(COLUMNS) + " |", "| " + " | ".join("---" for _ in COLUMNS) + " |")
        yield "| " + " | ".join(row(entry)) + " |"
    yield ""


def with_tables(document: str) -> str:
    """The document with its tables as they should be.

    Raises:
        ValueError: it does not say where they begin and end.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document lacks the line {BEGIN.strip()} or {END.strip()}")
    return before + BEGIN + "\n".join(tables()) + "\n" + END + after


def main() -> int:
    """Write or check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the file is up to date")
    args = parser.parse_args()
    current = DOCUMENT.read_text(encoding="utf-8")
    wanted = with_tables(current)
    if args.check:
        if current != wanted:
            print(f"{DOCUMENT} is not up to date; run python tools/recipe_table.py", file=sys.stderr)
        return int(current != wanted)
    DOCUMENT.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
