"""Options of ``config.json``: what every kind of file says of itself, read into typed fields.

A kind's class names every option that its files may have. An option that is not among them is refused, and so is a
value of another type. Options that say how a file was made and not what is in it are in ``DESCRIPTIVE``; a class adds
its own in ``no_effect``, with the reason.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import msgspec

from .errors import NotSupportedError, ParityError

DESCRIPTIVE = {
    "seed": "the state that weights and inputs were drawn from; both are in the file",
    "noise_seed": "the state that noise was drawn from; the draws are in the file",
    "code": "the commit of the authors' code",
    "torchvision": "the version that made the file",
    "stability": "figures of the maker's own checks",
    "fp64_diff": "figures of the maker's own checks",
    "gt_near": "where objects were put; they are in the file",
    "head_noise": "how weights were drawn; they are in the file",
    "qpos_gain": "how weights were drawn; they are in the file",
}
"""Options that say how a file was made, and why nothing here depends on them."""

PARTS = ("levels", "denoised")
"""Fields that hold options which stand among the others in a file."""

Activation = Literal["relu", "gelu", "silu", "swish", "selu", "prelu", "leaky_relu", "hardsigmoid"]
Pair = tuple[float, float]


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options of a file, or of a part of them."""

    no_effect: ClassVar[Mapping[str, str]] = {}
    """Options that the authors' code reads but that change nothing in a file, and why."""

    parts: ClassVar[Mapping[str, type["Options"]]] = {}
    """Fields of ``PARTS`` that files of the kind have."""

    def must_be(self, **expected: object) -> None:
        """Refuse options whose only value here is the expected one.

        Raises:
            NotSupportedError: naming the first with another value.
        """
        for name, value in expected.items():
            if getattr(self, name) != value:
                raise NotSupportedError(f"{name} {json.dumps(getattr(self, name))}; it can only be {json.dumps(value)}")

    def must_agree(self, **pairs: tuple[object, object]) -> None:
        """Refuse a file that says one thing twice and differently.

        Args:
            pairs: by the name of an option, its value and what other options say that it is; None is silence.

        Raises:
            ParityError: naming the first option that is contradicted.
        """
        for name, (one, other) in pairs.items():
            if one is not None and other is not None and one != other:
                raise ParityError(f"config.json contradicts itself: {name} is {one}, by other options {other}")


OptionsT = TypeVar("OptionsT", bound=Options)


def parse(config: bytes) -> dict[str, Any]:
    """A ``config.json`` as it is.

    Raises:
        ParityError: it is no JSON object.
    """
    try:
        options = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise ParityError(f"config.json is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise ParityError(f"config.json is {type(options).__name__}, where an object of options is expected")
    return options


def decode(kind: type[OptionsT], raw: Mapping[str, Any]) -> OptionsT:
    """Options of a file of some kind.

    Raises:
        ParityError: an option is unknown, missing or of another type, naming it.
    """
    ignored = DESCRIPTIVE.keys() | kind.no_effect.keys()
    read = {key: value for key, value in raw.items() if key not in ignored}
    for name in PARTS:
        if name in read:
            raise ParityError(f"config.json: this tool does not know the option `{name}`")
    for name, part in kind.parts.items():
        read[name] = {key: read.pop(key) for key in part.__struct_fields__ if key in read}
    try:
        return msgspec.convert(read, kind)
    except msgspec.ValidationError as error:
        raise ParityError(f"config.json: {_readable(str(error))}") from error


def _readable(message: str) -> str:
    """Msgspec's message in the words of the file."""
    message = message.replace("Object contains unknown field", "this tool does not know the option")
    return message.replace("Object missing required field", "there is no option").replace(" - at `$.", " - of option `")
