"""What was published for the recipes: box AP on the validation set, where it stands, and the authors' weights."""

from .entry import Entry, Weights
from .family_entries import FAMILY_ENTRIES
from .rtdetr_entries import RTDETR_ENTRIES

RELEASE = "https://github.com/HDETR/H-Deformable-DETR/releases/download/v0.1"


_REPOSITORY = "H-DETR repository"
_SCRIPT = "H-DETR repository, script only"


def _deformable(recipe: str, ap: float, file: str, drive_id: str) -> Entry:
    """A model of Deformable DETR's repository."""
    url = f"https://drive.google.com/file/d/{drive_id}/view"
    weights = Weights(file=f"{file}-checkpoint.pth", url=url)
    config = f"deformable_detr/{recipe}_r50_50ep.py"
    return Entry(config=config, ap=ap, source="Deformable DETR repository", weights=weights)


def _paper(folder: str, recipe: str, ap: float, table: int) -> Entry:
    """A row of H-DETR's paper for which no weights were released."""
    return Entry(config=f"{folder}/{recipe}.py", ap=ap, source=f"H-DETR, table {table}")


def _released(
    recipe: str, ap: float, source: str, prefix: str, *, middle: str = "", folder: str = "h_deformable_detr"
) -> Entry:
    """A model of H-DETR's release v0.1.

    Args:
        recipe: the config's name, which ends in its epochs, such as "12ep".
        ap, source: as in ``Entry``.
        prefix: what the file's name says of the backbone, before the supervision.
        middle: what it says of supervision and tricks.
        folder: of the config.
    """
    epochs = recipe.rsplit("_", 1)[1].removesuffix("ep")
    model = "deformable_detr_plus_iterative_bbox_refinement_plus_plus_two_stage"
    file = f"{prefix}{middle}_{model}_{epochs}eps.pth"
    weights = Weights(file=file, url=f"{RELEASE}/{file}")
    return Entry(config=f"{folder}/{recipe}.py", ap=ap, source=source, weights=weights)


def _baseline(backbone: str, epochs: int, ap: float, prefix: str) -> Entry:
    """H-DETR's two-stage Deformable DETR without tricks."""
    recipe = f"deformable_detr_two_stage_ffn2048_{backbone}_{epochs}ep"
    return _released(recipe, ap, _REPOSITORY, prefix, folder="deformable_detr/baselines")


def _plus_plus(backbone: str, epochs: int, ap: float, prefix: str) -> Entry:
    """Deformable DETR with all tricks."""
    recipe = f"deformable_detr_plus_plus_{backbone}_{epochs}ep"
    return _released(recipe, ap, "H-DETR, table 1", prefix, middle="_dp0_mqs_lft", folder="deformable_detr")


def _hybrid(recipe: str, ap: float, source: str, prefix: str, *, queries: str = "") -> Entry:
    """H-Deformable-DETR; ``queries`` is what the file's name adds for other than 300 of them."""
    folder = "h_deformable_detr/swin" if "swin" in recipe else "h_deformable_detr"
    middle = f"_hybrid_branch_lambda1_group6_t1500{queries}_dp0_mqs_lft"
    return _released(f"h_deformable_detr_{recipe}", ap, source, prefix, middle=middle, folder=folder)


def _script(folder: str, recipe: str) -> Entry:
    """A recipe that the authors give a script for, without a result."""
    return Entry(config=f"{folder}/{recipe}.py", ap=None, source=_SCRIPT)


def _ours(folder: str, recipe: str) -> Entry:
    """A recipe of ours for COCO, which nobody has trained."""
    return Entry(config=f"{folder}/{recipe}.py", ap=None, source="ours, not trained")


def _lvis(recipe: str, ap: float | None, source: str) -> Entry:
    """A model for LVIS; nobody says which of two FFN widths its result belongs to, so that two recipes have it."""
    return Entry(config=f"lvis/{recipe}.py", ap=ap, source=source, num_classes=1203)


_FFN = "deformable_detr_two_stage_ffn2048"
_ABLATIONS = "h_deformable_detr/ablations"
_SWIN = "h_deformable_detr/swin"
_SCHEMES = {  # table 6: AP after 12, 24 and 36 epochs
    "branch": (45.9, 47.6, 48.0),
    "epoch": (45.5, 47.0, 47.9),
    "layer": (45.6, 47.9, 48.0),
}
_K = {1: 46.4, 2: 46.7, 3: 48.1, 4: 48.4, 5: 48.3, 7: 48.5, 8: 48.6}
_T = {300: 47.8, 600: 48.3, 900: 48.4, 1200: 48.4, 1800: 48.6}
_LVIS = {  # without and with the hybrid branch
    "r50_24ep": ((32.2, 33.5), "H-DETR, table 2"),
    "swin_base_48ep": ((44.6, 46.0), "H-DETR LVIS repository"),
    "swin_large_48ep": ((47.0, 47.9), "H-DETR, table 2"),
}
_LAMBDA = {"01": 47.8, "02": 48.0, "05": 48.4, "2": 48.5, "5": 48.3}

ENTRIES: tuple[Entry, ...] = (
    _deformable(
        "deformable_detr_single_scale", 39.4, "r50_deformable_detr_single_scale", "1WEjQ9_FgfI5sw5OZZ4ix-OKk-IJ_-SDU"
    ),
    _deformable(
        "deformable_detr_single_scale_dc5",
        41.5,
        "r50_deformable_detr_single_scale_dc5",
        "1m_TgMjzH7D44fbA-c_jiBZ-xf-odxGdk",
    ),
    _deformable("deformable_detr", 44.5, "r50_deformable_detr", "1nDWZWHuRwtwGden77NLM9JoWe-YisJnA"),
    _deformable(
        "deformable_detr_refine",
        46.2,
        "r50_deformable_detr_plus_iterative_bbox_refinement",
        "1JYKyRYzUH7uo9eVfDaVCiaIGZb5YTCuI",
    ),
    _deformable(
        "deformable_detr_two_stage",
        46.9,
        "r50_deformable_detr_plus_iterative_bbox_refinement_plus_plus_two_stage",
        "15I03A7hNTpwuLNdfuEmW9_taZMNVssEp",
    ),
    _baseline("r50", 12, 43.7, "r50"),
    _paper("deformable_detr/baselines", f"{_FFN}_r50_24ep", 46.4, 6),
    _baseline("r50", 36, 46.8, "r50"),
    _baseline("swin_tiny", 12, 45.3, "swin_tiny"),  # 46.0 in a second run
    _baseline("swin_tiny", 36, 49.0, "swin_tiny"),  # 49.6 in a second run
    _baseline("swin_large", 12, 51.0, "swin_large"),
    _baseline("swin_large", 36, 53.7, "drop_path0.5_swin_large"),
    _paper("deformable_detr/baselines", f"{_FFN}_n1800_r50_12ep", 44.1, 6),
    _paper("deformable_detr/baselines", f"{_FFN}_n1800_r50_24ep", 46.6, 6),
    _paper("deformable_detr/baselines", f"{_FFN}_n1800_r50_36ep", 47.1, 6),
    _paper("deformable_detr/ablations", "deformable_detr_two_stage_r50_12ep", 43.3, 8),
    _paper("deformable_detr/ablations", f"{_FFN}_dp0_r50_12ep", 44.3, 8),
    _paper("deformable_detr/ablations", f"{_FFN}_dp0_mqs_r50_12ep", 46.3, 8),
    _plus_plus("r50", 12, 47.0, "r50"),
    _plus_plus("r50", 36, 49.0, "r50"),
    _plus_plus("swin_tiny", 12, 49.3, "swin_tiny"),
    _plus_plus("swin_tiny", 36, 51.8, "swin_tiny"),
    _plus_plus("swin_large", 12, 54.5, "swin_large"),
    _plus_plus("swin_large", 36, 56.3, "drop_path0.5_swin_large"),
    _ours("deformable_detr", "deformable_detr_plus_plus_r50_12ep_distinct"),
    _hybrid("r50_12ep", 48.7, "H-DETR, table 1", "r50"),
    _paper("h_deformable_detr", "h_deformable_detr_r50_24ep", 49.9, 13),
    _hybrid("r50_36ep", 50.0, "H-DETR, table 1", "r50"),
    _script("h_deformable_detr", "h_deformable_detr_r101_12ep"),
    _script("h_deformable_detr", "h_deformable_detr_r101_36ep"),
    _ours("h_deformable_detr", "hybrid_proposals_r50_12ep_distinct"),
    _ours("h_deformable_detr", "h_deformable_detr_r50_12ep_distinct"),
    _hybrid("swin_tiny_12ep", 50.6, "H-DETR, table 1", "swin_tiny"),
    _hybrid("swin_tiny_36ep", 53.2, "H-DETR, table 1", "swin_tiny"),
    _hybrid("swin_tiny_wd005_12ep", 51.2, _REPOSITORY, "decay0.05_swin_tiny"),
    _hybrid("swin_tiny_wd005_36ep", 53.7, _REPOSITORY, "decay0.05_swin_tiny"),
    _script(_SWIN, "h_deformable_detr_swin_small_12ep"),
    _script(_SWIN, "h_deformable_detr_swin_small_36ep"),
    _script(_SWIN, "h_deformable_detr_swin_small_22k_12ep"),
    _script(_SWIN, "h_deformable_detr_swin_small_22k_36ep"),
    _hybrid("swin_large_12ep", 55.9, "H-DETR, table 1", "swin_large"),
    _hybrid("swin_large_36ep", 57.1, "H-DETR, table 1", "drop_path0.5_swin_large"),
    _hybrid("swin_large_n900_12ep", 56.1, _REPOSITORY, "swin_large", queries="_n900"),
    _hybrid("swin_large_n900_36ep", 57.4, _REPOSITORY, "drop_path0.5_swin_large", queries="_n900"),
    _hybrid("swin_large_n900_top300_36ep", 57.6, _REPOSITORY, "drop_path0.5_swin_large", queries="_n900"),
    _hybrid("swin_large_n900_wd005_36ep", 57.8, _REPOSITORY, "decay0.05_drop_path0.5_swin_large", queries="_n900"),
    _hybrid(
        "swin_large_n900_wd005_top300_36ep", 57.9, _REPOSITORY, "decay0.05_drop_path0.5_swin_large", queries="_n900"
    ),
    *(
        _paper("h_deformable_detr/schemes", f"hybrid_{scheme}_r50_{epochs}ep", ap, 6)
        for scheme, published in _SCHEMES.items()
        for epochs, ap in zip((12, 24, 36), published)
    ),
    *(_paper(_ABLATIONS, f"h_deformable_detr_k{k}_r50_12ep", ap, 9) for k, ap in _K.items()),
    *(_paper(_ABLATIONS, f"h_deformable_detr_t{t}_r50_12ep", ap, 10) for t, ap in _T.items()),
    *(_paper(_ABLATIONS, f"h_deformable_detr_lambda{name}_r50_12ep", ap, 16) for name, ap in _LAMBDA.items()),
    *FAMILY_ENTRIES,
    *RTDETR_ENTRIES,
    *(
        _lvis(f"{model}_lvis_{width}{recipe}", aps[number], source)
        for recipe, (aps, source) in _LVIS.items()
        for width in ("", "ffn1024_")
        for number, model in enumerate(("deformable_detr_plus_plus", "h_deformable_detr"))
    ),
    _lvis("deformable_detr_plus_plus_lvis_r50_24ep_distinct", None, "ours, not trained"),
    _lvis("hybrid_proposals_lvis_r50_24ep_distinct", None, "ours, not trained"),
    _lvis("h_deformable_detr_lvis_r50_24ep_distinct", None, "ours, not trained"),
    _lvis("h_deformable_detr_lvis_by_frequency_r50_24ep", None, "ours, not trained"),
    _lvis("small/deformable_detr_plus_plus_lvis_24gb_r50_24ep", None, "ours, not trained"),
    _lvis("small/h_deformable_detr_lvis_24gb_r50_24ep", None, "ours, not trained"),
    _lvis("small/h_deformable_detr_lvis_24gb_short_r50_12ep", None, "ours, not trained"),
)
"""All of them, in the order in which the recipe table shows them."""


def entries() -> dict[str, Entry]:
    """Every published model, by name, such as "h_deformable_detr_r50_12ep"."""
    return {entry.name: entry for entry in ENTRIES}
