"""A trained or exported model as an HTTP endpoint and a page."""

from .run import ServeError, Serving, serve

__all__ = ["ServeError", "Serving", "serve"]
