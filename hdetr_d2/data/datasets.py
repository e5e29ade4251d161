"""From a json and an image folder to Detectron2's dataset dicts and catalogs."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from hdetr_d2.annotations import (
    AnnotationFile,
    CheckedAnnotations,
    DatasetError,
    DatasetInfo,
    check_annotations,
    class_frequencies,
    declared_groups,
    read_annotation_file,
    read_dataset_info,
    require_invalid,
    resolve_path,
    shown,
)

from .by_path import use_paths
from .generated import ensure_generated
from .image_files import check_images, locate_images, require_image_entries
from .registered import files_of_registered

HEADER_SECONDS = 60.0
"""For so long image files are looked into when a dataset is loaded, with ``check_files="auto"``: on a local disk enough
for 200,000. What is not reached is looked at when it is decoded."""
HEADER_LIMIT_OF_DROP = 20_000
"""Where faulty images are left out, all files are looked into, or of more images than this none: every process must
leave out the same ones."""

logger = logging.getLogger(__name__)


def load_dataset_dicts(
    *,
    json_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str] | None,
    names: Sequence[str] | None = None,
    invalid: str = "error",
    training: bool = True,
    filter_empty: bool = False,
    check_files: str = "auto",
) -> list[dict[str, Any]]:
    """Reads and validates a COCO- or LVIS-format json.

    Args:
        json_file, image_root: as given or below ``$DETECTRON2_DATASETS``. ``image_root=None`` looks at no file (for
            work on annotations alone).
        names: class names in the order of the category ids, in place of those in the file.
        invalid: what becomes of faulty annotations, and in training of missing or mismatching image files: "error" or
            "drop".
        training: in evaluation every image must be there whatever ``invalid`` says, since the metrics would otherwise
            be taken over fewer images than the file has without a sign of it.
        filter_empty: leaves out images without annotations; the DETR recipes keep them.
        check_files: "exists", "headers" (also that files are whole and of the size that the json says), "auto" (headers
            for ``HEADER_SECONDS``; with "drop", of at most ``HEADER_LIMIT_OF_DROP`` images) or "none". Sizes are
            compared again when an image is decoded.

    Returns:
        Detectron2's standard dicts: file_name, image_id, height, width, annotations (bbox XYXY_ABS pixels inside the
        image, category_id contiguous from 0, iscrowd, id; what "ignore" marks is a crowd too: not trained on), for
        LVIS also neg_category_ids and not_exhaustive_category_ids (contiguous).

    Raises:
        DatasetError: the file cannot be used; see the message.
    """
    require_invalid(invalid)
    if check_files not in ("auto", "exists", "headers", "none"):
        raise DatasetError(f'check_files must be "auto", "exists", "headers" or "none", got {check_files!r}')
    table = read_annotation_file(json_file)
    class_names(table, names)
    checked = check_annotations(table, invalid=invalid)
    require_image_entries(table)
    usable = np.ones(len(table.image_ids), dtype=bool)
    if image_root is None:
        paths = [candidates[0] for candidates in table.image_names]
    else:
        paths, found = locate_images(table, resolve_path(image_root))
        if check_files != "none":
            drop = training and invalid == "drop"
            seconds = _seconds_for_headers(check_files, len(paths), drop=drop)
            usable = check_images(table, paths, found, seconds=seconds, drop=drop)
    records = _records(table, checked, paths, usable)
    if filter_empty:
        records = [r for r in records if any(not a["iscrowd"] for a in r["annotations"])]
    if not records:
        raise DatasetError(
            f"{table.path}: no image with annotations is left; dataset.filter_empty=False keeps empty ones"
        )
    logger.info("%s: %d images, %d annotations", table.path, len(records), sum(len(r["annotations"]) for r in records))
    return records


def _seconds_for_headers(check_files: str, count: int, *, drop: bool) -> float:
    """How long to look into ``count`` image files; see ``check_images``."""
    if check_files == "auto":
        return HEADER_SECONDS if not drop else math.inf if count <= HEADER_LIMIT_OF_DROP else 0.0
    return math.inf if check_files == "headers" else 0.0


def class_names(table: AnnotationFile, names: Sequence[str] | None) -> list[str]:
    """The given names if they fit the file's categories, else those of the file.

    Raises:
        DatasetError: another number of names than of categories.
    """
    if names is None:
        return list(table.categories.names)
    if len(names) != len(table.categories.ids):
        raise DatasetError(
            f"{table.path}: dataset.names has {len(names)} names, the file {len(table.categories.ids)} categories; "
            "give one name for each category in the order of their ids, or leave names out"
        )
    return [str(name) for name in names]


def _records(
    table: AnnotationFile, checked: CheckedAnnotations, paths: Sequence[str], usable: np.ndarray
) -> list[dict[str, Any]]:
    annotations: list[list[dict[str, Any]]] = [[] for _ in paths]
    for image_row, box, category, identity, crowd in zip(
        checked.image_rows.tolist(),
        checked.boxes.tolist(),
        checked.classes.tolist(),
        table.annotation_ids[checked.rows].tolist(),
        (table.annotation_crowd | table.annotation_ignored)[checked.rows].tolist(),
    ):
        annotations[image_row].append(
            {
                "id": identity,
                "bbox": box,
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": category,
                "iscrowd": int(crowd),
            }
        )
    contiguous = {identity: index for index, identity in enumerate(table.categories.ids)}
    records = []
    for row in np.flatnonzero(usable).tolist():
        record: dict[str, Any] = {
            "file_name": paths[row],
            "image_id": int(table.image_ids[row]),
            "height": int(table.image_sizes[row, 0]),
            "width": int(table.image_sizes[row, 1]),
            "annotations": annotations[row],
        }
        for key, lists in (
            ("not_exhaustive_category_ids", table.image_not_exhaustive),
            ("neg_category_ids", table.image_negative),
        ):
            if lists is not None:
                record[key] = [contiguous[identity] for identity in lists[row] if identity in contiguous]
        records.append(record)
    return records


@dataclass(frozen=True)
class _Registration:
    """How a name was registered; also the function that Detectron2's catalog calls."""

    json_file: str
    image_root: str
    format: str
    names: tuple[str, ...] | None
    invalid: str
    training: bool
    filter_empty: bool
    check_files: str
    frequency_json: str | None

    def __call__(self) -> list[dict[str, Any]]:
        return load_dataset_dicts(
            json_file=self.json_file,
            image_root=self.image_root,
            names=self.names,
            invalid=self.invalid,
            training=self.training,
            filter_empty=self.filter_empty,
            check_files=self.check_files,
        )


def register_dataset(
    *,
    name: str,
    json_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    format: str = "coco",
    names: Sequence[str] | None = None,
    invalid: str = "error",
    training: bool = True,
    filter_empty: bool = False,
    check_files: str = "auto",
    frequency_json: str | os.PathLike[str] | None = None,
) -> None:
    """Puts a dataset into Detectron2's DatasetCatalog and MetadataCatalog; doing it again changes nothing.

    Metadata: thing_classes, thing_dataset_id_to_contiguous_id, json_file, image_root, evaluator_type (the format),
    invalid, and for LVIS, where they can be told, class_image_count (as Detectron2 has it) and thing_frequencies ("r",
    "c", "f"), by contiguous class id. A name that was registered here with another file is replaced.
    Arguments that are not explained here are those of ``load_dataset_dicts``.

    Args:
        name: the name in the catalogs.
        format: "coco" or "lvis".
        frequency_json: for a split that is not trained on, the training file, which tells how frequent classes are
            where ``json_file`` itself does not; need not be there.

    Raises:
        DatasetError: unknown format, unreadable file, or the name belongs to a dataset that was not registered here.
    """
    if format not in ("coco", "lvis"):
        raise DatasetError(f'dataset.format must be "coco" or "lvis", got {format!r}')
    registration = _Registration(
        json_file=resolve_path(json_file),
        image_root=resolve_path(image_root),
        format=format,
        names=None if names is None else tuple(names),
        invalid=invalid,
        training=training,
        filter_empty=filter_empty,
        check_files=check_files,
        frequency_json=None if frequency_json is None else os.fspath(frequency_json),
    )
    table = read_annotation_file(json_file)
    metadata = _metadata(table, class_names(table, names), registration)
    if name in DatasetCatalog:
        current = DatasetCatalog[name]
        if not isinstance(current, _Registration):
            raise DatasetError(f'the dataset name "{name}" is taken by another one in the catalog; set dataset.name')
        if current == registration and MetadataCatalog.get(name).as_dict() == {"name": name, **metadata}:
            return
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, registration)
    MetadataCatalog.get(name).set(**metadata)


def _metadata(table: AnnotationFile, names: list[str], registration: _Registration) -> dict[str, Any]:
    identities = table.categories.ids
    metadata: dict[str, Any] = {
        "thing_classes": names,
        "thing_dataset_id_to_contiguous_id": {identity: index for index, identity in enumerate(identities)},
        "json_file": registration.json_file,
        "image_root": registration.image_root,
        "evaluator_type": registration.format,
        "invalid": registration.invalid,  # the evaluator drops what the loader drops
    }
    if registration.format == "lvis":
        metadata.update(_frequency_metadata(table, registration))
    return metadata


def _frequency_metadata(table: AnnotationFile, registration: _Registration) -> dict[str, Any]:
    groups, counts = declared_groups(table), table.categories.image_counts
    source = table if registration.training else _training_file(table, registration) if groups is None else None
    if source is not None:
        frequencies = class_frequencies(source)
        groups, counts = frequencies.groups, frequencies.image_counts
    metadata: dict[str, Any] = {}
    if groups is not None:
        metadata["thing_frequencies"] = list(groups)
    if counts is not None:
        pairs = zip(table.categories.ids, counts)
        metadata["class_image_count"] = [{"id": identity, "image_count": count} for identity, count in pairs]
    return metadata


def _training_file(table: AnnotationFile, registration: _Registration) -> AnnotationFile | None:
    """The training file of a split that does not say itself how frequent classes are; None where it is not there."""
    if registration.frequency_json is None:
        return None
    try:
        training = read_annotation_file(registration.frequency_json)
    except DatasetError as error:
        logger.warning("%s: classes are in no frequency group (%s)", table.path, error)
        return None
    if training.categories.ids != table.categories.ids:
        raise DatasetError(
            f"{training.path} and {table.path} list different categories; put the same list of categories into both"
        )
    return training


def get_dataset(*, name: str, num_classes: int | None = None, **source: Any) -> list[dict[str, Any]]:
    """Registers a dataset and loads it; what configs use as ``dataset`` of a loader.

    Args:
        name: the name in the catalogs.
        num_classes: the class count of the model; checked against the file.
        source: the other arguments of ``register_dataset``.

    Raises:
        DatasetError: see ``load_dataset_dicts``; also another number of categories than ``num_classes``.
    """
    register_dataset(name=name, **source)
    found = len(MetadataCatalog.get(name).thing_classes)
    if num_classes is not None and found != num_classes:
        raise DatasetError(
            f"{MetadataCatalog.get(name).json_file}: has {found} categories, the config says dataset.num_classes="
            f"{num_classes}; leave num_classes out to have it read from the training file"
        )
    return DatasetCatalog.get(name)


def resolve_dataset(dataset: MutableMapping[str, Any], *, folder: str | os.PathLike[str] | None = None) -> DatasetInfo:
    """Fills what a ``dataset`` node of a config leaves open: generated files, num_classes.

    Args:
        dataset: the node (dict or DictConfig), changed in place: ``train``/``val`` files of a generated dataset are
            put in, drawing it first if necessary; ``num_classes`` is read from the training file, or, where that is
            missing (evaluation on another machine), from the validation file. ``image_counts``, where the node has
            that key, is filled with the training images of each class; only training needs it. A split with a
            ``name`` is that dataset of Detectron2's catalogs, one with a ``path`` is recognised by its files.
        folder: gets the json of splits with a ``path``; None is one in the cache.

    Returns:
        The information of the training file (of the validation file where that is missing).

    Raises:
        DatasetError: no file is there, or training and validation list different categories.
    """
    if dataset.get("generate") is not None:
        files = ensure_generated(**dict(dataset["generate"]))
        for split in ("train", "val"):
            dataset[split]["json"] = str(files.json(split))
            dataset[split]["images"] = str(files.images(split))
    use_paths(dataset, folder)
    for split in ("train", "val"):
        _use_registered(dataset[split])
    infos: dict[str, DatasetInfo] = {}
    errors: list[DatasetError] = []
    for split in ("train", "val"):
        json_file = dataset[split]["json"]
        try:
            if json_file is None:
                raise DatasetError(
                    f"dataset.{split}.json is not set; give dataset.{split}=PATH, or dataset.{split}.json=... and "
                    ".images=..."
                )
            resolve_path(json_file)
        except DatasetError as error:
            errors.append(error)
            continue
        infos[split] = read_dataset_info(json_file)
    if not infos:
        raise errors[0]
    if len(infos) == 2:
        _require_equal_categories(dataset, infos["train"], infos["val"])
    info = infos.get("train") or infos["val"]
    if dataset.get("num_classes") is None:
        dataset["num_classes"] = info.num_classes
    if "image_counts" in dataset and dataset["image_counts"] is None and "train" in infos:
        dataset["image_counts"] = list(infos["train"].image_counts)
    return info


def _use_registered(split: MutableMapping[str, Any]) -> None:
    """Fill in the files of a split that is named as Detectron2's catalogs have it."""
    name = split.get("name")
    if name is None or (name not in DatasetCatalog and split.get("json") is not None):  # as a saved config has it
        return
    split["json"], split["images"] = files_of_registered(name)


def _require_equal_categories(dataset: MutableMapping[str, Any], train: DatasetInfo, val: DatasetInfo) -> None:
    """The position in the sorted table is the class of the model, so both files must list the same."""
    of_train, of_val = dict(zip(train.category_ids, train.names)), dict(zip(val.category_ids, val.names))
    if of_train.keys() == of_val.keys() and (dataset.get("names") is not None or of_train == of_val):
        return
    difference = sorted(of_train.items() ^ of_val.items())[:3]
    raise DatasetError(
        f"{dataset['train']['json']} and {dataset['val']['json']} list different categories (such as "
        f"{shown(difference)}); put the same list of categories into both"
    )
