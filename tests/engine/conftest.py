import pytest

from tests.engine.toy import write_dataset


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that point the toy config at 12 training and 5 validation images."""
    folder = tmp_path_factory.mktemp("toy_data")
    write_dataset(folder / "train", 12, seed=0)
    write_dataset(folder / "val", 5, seed=1)
    return [
        f"dataset.{split}.{key}={folder / split / file}"
        for split in ("train", "val")
        for key, file in (("json", "annotations.json"), ("images", "images"))
    ]
