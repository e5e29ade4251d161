"""What was published for RT-DETR, RT-DETRv2, D-FINE, and DEIM on the last two."""

from .entry import Entry, Weights

_RELEASES = "https://github.com/lyuwenyu/storage/releases/download"


def _entry(recipe: str, ap: float, source: str, file: str | None, *, release: str = "v0.1") -> Entry:
    """A model of RT-DETR's repository; ``file`` is its weights, None where they are not PyTorch's or not linked."""
    weights = None
    if file is not None:
        weights = Weights(file=f"{file}.pth", url=f"{_RELEASES}/{release}/{file}.pth", origin="rtdetr")
    return Entry(config=f"{recipe}.py", ap=ap, source=f"{source} repository", weights=weights)


def _v1(size: str, ap: float, file: str | None) -> Entry:
    return _entry(f"rt_detr/rtdetr_{size}_72ep", ap, "RT-DETR", file)


def _v2(recipe: str, ap: float, file: str, *, release: str = "v0.1") -> Entry:
    return _entry(f"rt_detr_v2/{recipe}", ap, "RT-DETRv2", file, release=release)


def _deim(recipe: str, ap: float, drive_id: str) -> Entry:
    """A model of DEIM's repository, whose files lie elsewhere."""
    weights = Weights(file=f"{recipe}.pth", url=f"https://drive.google.com/file/d/{drive_id}/view", origin="rtdetr")
    return Entry(config=f"deim/{recipe}.py", ap=ap, source="DEIM repository", weights=weights)


def _dfine(size: str, epochs: int, ap: float) -> Entry:
    file = f"dfine_{size}_coco.pth"
    url = f"https://github.com/Peterande/storage/releases/download/dfinev1.0/{file}"
    weights = Weights(file=file, url=url, origin="dfine")
    recipe = f"dfine/dfine_hgnetv2_{size}_{epochs}ep.py"
    return Entry(config=recipe, ap=ap, source="D-FINE repository", weights=weights)


def _deim_dfine(size: str, epochs: int, ap: float) -> Entry:
    """A model of DEIM's repository whose file is not linked here."""
    recipe = f"deim_dfine/deim_dfine_hgnetv2_{size}_{epochs}ep.py"
    return Entry(config=recipe, ap=ap, source="DEIM repository")


RTDETR_ENTRIES: tuple[Entry, ...] = (
    _v1("r18", 46.5, "rtdetr_r18vd_dec3_6x_coco_from_paddle"),
    _v1("r34", 48.9, "rtdetr_r34vd_dec4_6x_coco_from_paddle"),
    _v1("r50_m", 51.3, "rtdetr_r50vd_m_6x_coco_from_paddle"),
    _v1("r50", 53.1, "rtdetr_r50vd_6x_coco_from_paddle"),
    _v1("r101", 54.3, "rtdetr_r101vd_6x_coco_from_paddle"),
    _v1("hgnetv2_l", 53.0, None),
    _v1("hgnetv2_x", 54.8, None),
    _v2("rtdetrv2_r18_120ep", 48.1, "rtdetrv2_r18vd_120e_coco_rerun_48.1", release="v0.2"),
    _v2("rtdetrv2_r34_120ep", 49.9, "rtdetrv2_r34vd_120e_coco_ema"),
    _v2("rtdetrv2_r50_m_84ep", 51.9, "rtdetrv2_r50vd_m_7x_coco_ema"),
    _v2("rtdetrv2_r50_72ep", 53.4, "rtdetrv2_r50vd_6x_coco_ema"),
    _v2("rtdetrv2_r101_72ep", 54.3, "rtdetrv2_r101vd_6x_coco_from_paddle"),
    _v2("discrete/rtdetrv2_r18_dsp_36ep", 47.4, "rtdetrv2_r18vd_dsp_3x_coco"),
    _v2("discrete/rtdetrv2_r34_dsp_12ep", 49.2, "rrtdetrv2_r34vd_dsp_1x_coco"),  # they spell it so
    _v2("discrete/rtdetrv2_r50_m_dsp_36ep", 51.4, "rtdetrv2_r50vd_m_dsp_3x_coco"),
    _v2("discrete/rtdetrv2_r50_dsp_12ep", 52.9, "rtdetrv2_r50vd_dsp_1x_coco"),
    _v2("points/rtdetrv2_r18_sp1_120ep", 47.3, "rtdetrv2_r18vd_sp1_120e_coco"),
    _v2("points/rtdetrv2_r18_sp2_120ep", 47.7, "rtdetrv2_r18vd_sp2_120e_coco"),
    _v2("points/rtdetrv2_r18_sp3_120ep", 47.8, "rtdetrv2_r18vd_sp3_120e_coco"),
    _deim("deim_rtdetrv2_r18_120ep", 49.0, "153_JKff6EpFgiLKaqkJsoDcLal_0ux_F"),
    _deim("deim_rtdetrv2_r34_120ep", 50.9, "1O9RjZF6kdFWGv1Etn1Toml4r-YfdMDMM"),
    _deim("deim_rtdetrv2_r50_m_60ep", 53.2, "10dLuqdBZ6H5ip9BbBiE6S7ZcmHkRbD0E"),
    _deim("deim_rtdetrv2_r50_60ep", 54.3, "1mWknAXD5JYknUQ94WCEvPfXz13jcNOTI"),
    _deim("deim_rtdetrv2_r101_60ep", 55.5, "1BIevZijOcBO17llTyDX32F_pYppBfnzu"),
    _dfine("n", 160, 42.8),
    _dfine("s", 132, 48.5),
    _dfine("m", 132, 52.3),
    _dfine("l", 80, 54.0),
    _dfine("x", 80, 55.8),
    _deim_dfine("n", 160, 43.0),
    _deim_dfine("s", 132, 49.0),
    _deim_dfine("m", 102, 52.7),
    _deim_dfine("l", 58, 54.7),
    _deim_dfine("x", 58, 56.5),
)
"""All of them, in the order in which the recipe table shows them."""
