"""Files of weights from elsewhere: who may download them, how they come, and whether they are what they were.

Which models were published is the model zoo's knowledge, and what is in the files is the checkpoint part's.
"""

from .checksums import ChecksumError, sha256_of, verify
from .consent import DOWNLOAD, allow_downloads, may_download
from .download import DownloadError, download
from .places import AddressError, is_address, local_file

__all__ = [
    "DOWNLOAD",
    "AddressError",
    "ChecksumError",
    "DownloadError",
    "allow_downloads",
    "download",
    "is_address",
    "local_file",
    "may_download",
    "sha256_of",
    "verify",
]
