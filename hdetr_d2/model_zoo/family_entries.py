"""What was published for DETR and its descendants, Deformable DETR and RT-DETR apart, which have lists of their own."""

from .entry import Entry, Weights

_DETR = "https://dl.fbaipublicfiles.com/detr"
_MR_DETR = "https://huggingface.co/allencbzhang/Mr.DETR/resolve/main"


def _of(repository: str, folder: str, recipe: str, ap: float | None) -> Entry:
    """A model whose repository offers folders of files, or none."""
    source = f"{repository} repository" + (", script only" if ap is None else "")
    return Entry(config=f"{folder}/{recipe}.py", ap=ap, source=source)


def _detr(recipe: str, ap: float, file: str) -> Entry:
    """A model of DETR's repository."""
    weights = Weights(file=f"{file}.pth", url=f"{_DETR}/{file}.pth", origin="detr")
    return Entry(config=f"detr/{recipe}_500ep.py", ap=ap, source="DETR repository", weights=weights)


def _mr_detr(recipe: str, ap: float, file: str) -> Entry:
    """A model of Mr. DETR's repository; its authors average three checkpoints of the last epochs."""
    weights = Weights(file=f"MrDETR_{file}.pth", url=f"{_MR_DETR}/MrDETR_{file}.pth", origin="mr_detr")
    return Entry(config=f"mr_detr/mr_detr_{recipe}.py", ap=ap, source="Mr. DETR repository", weights=weights)


_DINO = {  # AP after 12, 24 and 36 epochs
    "4scale_r50": {12: 49.0, 24: 50.4, 36: 50.9},
    "5scale_r50": {12: 49.4, 24: 51.3, 36: 51.2},
    "4scale_swin_large": {12: 56.8, 36: 58.0},
    "5scale_swin_large": {12: 57.3, 36: 58.5},
}

FAMILY_ENTRIES: tuple[Entry, ...] = (
    _of("DETR", "detr", "detr_r50_150ep", 39.5),
    _of("DETR", "detr", "detr_r50_300ep", None),
    _detr("detr_r50", 42.0, "detr-r50-e632da11"),
    _detr("detr_dc5_r50", 43.3, "detr-r50-dc5-f0fb7ef5"),
    _detr("detr_r101", 43.5, "detr-r101-2c7b67e5"),
    _detr("detr_dc5_r101", 44.9, "detr-r101-dc5-a2e86def"),
    _of("Conditional DETR", "conditional_detr", "conditional_detr_r50_50ep", 41.0),
    _of("Conditional DETR", "conditional_detr", "conditional_detr_dc5_r50_50ep", 43.7),
    _of("Conditional DETR", "conditional_detr", "conditional_detr_r101_50ep", 42.8),
    _of("Conditional DETR", "conditional_detr", "conditional_detr_dc5_r101_50ep", 45.0),
    _of("detrex", "group_detr", "group_detr_r50_50ep", None),
    _of("DAB-DETR", "dab_detr", "dab_detr_r50_50ep", 42.2),
    _of("DAB-DETR", "dab_detr", "dab_detr_3patterns_r50_50ep", 42.6),
    _of("DAB-DETR", "dab_detr", "dab_detr_dc5_r50_50ep", 44.5),
    _of("DAB-DETR", "dab_detr", "dab_detr_dc5_3patterns_r50_50ep", 45.7),
    _of("DAB-DETR", "dab_deformable_detr", "dab_deformable_detr_r50_50ep", 48.7),
    _of("DN-DETR", "dn_detr", "dn_detr_r50_50ep", 44.4),
    _of("DN-DETR", "dn_detr", "dn_detr_dc5_r50_50ep", 46.3),
    _of("DN-DETR", "dn_deformable_detr", "dn_deformable_detr_r50_50ep", 49.5),
    *(
        _of("DINO", "dino", f"dino_{model}_{epochs}ep", ap)
        for model, published in _DINO.items()
        for epochs, ap in published.items()
    ),
    _of("DAC-DETR", "dac_detr", "dac_detr_r50_12ep", 50.9),
    _of("DAC-DETR", "dac_detr", "dac_detr_r50_24ep", 52.1),
    _of("DAC-DETR", "dac_detr", "dac_detr_swin_large_12ep", 58.1),
    _of("DAC-DETR", "dac_detr", "dac_detr_swin_large_24ep", 59.3),
    _of("Relation-DETR", "relation_detr", "relation_detr_r50_12ep", 51.7),
    _of("Relation-DETR", "relation_detr", "relation_detr_r50_24ep", 52.1),
    _of("Relation-DETR", "relation_detr", "relation_detr_swin_large_12ep", 57.8),
    _of("Relation-DETR", "relation_detr", "relation_detr_swin_large_24ep", 58.1),
    _of("MS-DETR", "ms_detr", "ms_detr_two_stage_r50_12ep", 47.6),
    _of("MS-DETR", "ms_detr", "ms_detr_r50_12ep", 48.8),
    _of("MS-DETR", "ms_detr", "ms_detr_n900_r50_12ep", 50.0),
    _mr_detr("r50_12ep", 49.5, "deformable_r50_12ep_300q"),
    _mr_detr("n900_r50_12ep", 50.7, "deformbale_r50_12ep_900q"),  # they spell it so
    _mr_detr("n900_r50_24ep", 51.4, "deformable_r50_24ep_900q"),
    _mr_detr("dino_r50_12ep", 50.9, "dino_r50_12ep_900q"),
    _mr_detr("align_r50_12ep", 51.4, "align_r50_12ep_900q"),
    _mr_detr("align_r50_24ep", 52.3, "align_r50_24ep_900q"),
    # Weights were released, but for Detectron2's Swin and not for timm's.
    _of("Mr. DETR", "mr_detr", "mr_detr_align_swin_large_12ep", 58.4),
)
"""All of them, in the order in which the recipe table shows them."""
