"""Files of Hugging Face's hub, as ``hf://owner/repository[@revision][/file]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .download import DownloadError

HUB = "hf://"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Where models of transformers are, the better one first."""
CONFIG = "config.json"


@dataclass(frozen=True)
class HubAddress:
    """What an address names.

    Args:
        repository: "owner/name".
        revision: a branch, tag or commit; None is the main branch.
        file: None is the weights of a model of transformers.
    """

    repository: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def of(cls, address: str) -> HubAddress:
        """Read an address.

        Raises:
            DownloadError: it is none.
        """
        parts = address.removeprefix(HUB).strip("/").split("/", 2)
        if len(parts) < 2 or not all(parts):
            raise DownloadError(f"{address}: is no model of the hub; write {HUB}owner/repository")
        owner, name, *rest = parts
        name, _, revision = name.partition("@")
        return cls(f"{owner}/{name}", revision or None, rest[0] if rest else None)

    @property
    def page(self) -> str:
        """Where people find it."""
        return f"https://huggingface.co/{self.repository}"


def file_of_hub(address: str) -> Path:
    """The file that an address names, from the hub's cache or downloaded.

    Raises:
        DownloadError: no connection, no such model, or none of transformers.
    """
    wanted = HubAddress.of(address)
    return _first(address, wanted, WEIGHTS if wanted.file is None else (wanted.file,))


def config_of_hub(address: str) -> Path | None:
    """The config.json beside the weights of a model of transformers; None where the repository has none."""
    wanted = HubAddress.of(address)
    try:
        return _first(address, wanted, (CONFIG,))
    except _NoSuchFileError:
        return None


class _NoSuchFileError(DownloadError):
    """The repository is there, and the file is not in it."""


def _first(address: str, wanted: HubAddress, names: Sequence[str]) -> Path:
    """The first of some files that the repository has."""
    for name in names:
        try:
            with _told(address, wanted, name):
                return _fetch(wanted, name)
        except _NoSuchFileError:
            continue
    raise _NoSuchFileError(f"{address}: the repository has no {' or '.join(names)}; name its file: {address}/FILE")


def _fetch(wanted: HubAddress, name: str) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    held = try_to_load_from_cache(wanted.repository, name, revision=wanted.revision)
    if isinstance(held, str):
        return Path(held)
    # asked once and first: without a connection, the download repeats itself and its warnings for half a minute
    get_hf_file_metadata(hf_hub_url(wanted.repository, name, revision=wanted.revision))
    return Path(hf_hub_download(wanted.repository, name, revision=wanted.revision))


@contextmanager
def _told(address: str, wanted: HubAddress, name: str) -> Iterator[None]:
    """What goes wrong, in one line."""
    try:
        from huggingface_hub import errors
    except ImportError as error:
        raise DownloadError(
            f"{address}: needs the package huggingface_hub (pip install huggingface_hub); or download {name} from "
            f"{wanted.page} and name its path"
        ) from error
    by_hand = f"download {name} from {wanted.page} elsewhere and name its path"
    try:
        yield
    except errors.HFValidationError as error:
        raise DownloadError(f"{address}: is no model of the hub ({error}); write {HUB}owner/repository") from error
    except errors.LocalEntryNotFoundError as error:
        raise DownloadError(f"{address}: is not in the hub's cache and there is no connection; {by_hand}") from error
    except errors.EntryNotFoundError as error:
        raise _NoSuchFileError(f"{address}: has no {name}") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise DownloadError(
            f"{address}: there is no such model on the hub, or it is not public; see {wanted.page}"
        ) from error
    except Exception as error:  # the hub's client lets those of its network library pass
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DownloadError(f"{address}: cannot be had from the hub ({first}); {by_hand}") from error
