"""Errors that are the user's to solve: shown as one message, without a traceback, by ``train_net.py``."""


class ConfigError(ValueError):
    """A config or an override that cannot be used; the message names the key and what to do."""


class ResumeError(RuntimeError):
    """A checkpoint that this run cannot continue; the message names what differs and what to do."""
