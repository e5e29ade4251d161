"""Errors of configs and runs that the user can mend."""

from hdetr_d2.errors import UserError


class ConfigError(UserError, ValueError):
    """A config or an override that cannot be used; the message names the key and what to do."""


class ResumeError(UserError, RuntimeError):
    """A checkpoint that this run cannot continue; the message names what differs and what to do."""


class DivergedError(UserError, FloatingPointError):
    """A model whose losses, weights or outputs are no finite numbers; the message names where, and what helps."""
