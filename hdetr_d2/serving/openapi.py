"""The endpoint's description, as OpenAPI has it."""

from __future__ import annotations

from typing import Any

from hdetr_d2 import __version__

from .reading import Limits


def describe(limits: Limits) -> dict[str, Any]:
    """The document of ``/openapi.json``."""
    refusals = {
        "400": "The body is empty or ends early.",
        "408": f"The body was not there after {limits.upload_seconds:g} seconds.",
        "413": f"More than {limits.bytes:,} bytes or {limits.pixels:,} pixels.",
        "415": "The body is no image.",
        "422": "A parameter is not known, given twice, or no number in its range.",
        "503": "Too many requests wait.",
        "504": f"There was no answer within {limits.seconds:g} seconds.",
    }
    detect = {
        "summary": "Detect in an image",
        "parameters": [
            _parameter("threshold", "Leave out detections with a lower score; without it each class has its own."),
            _parameter("suppress", "Class-wise non-maximum suppression at this IoU; without it none."),
        ],
        "requestBody": {
            "required": True,
            "description": "The bytes of an image file.",
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        },
        "responses": {
            "200": _json("Detections, best first.", "#/components/schemas/Found"),
            **{code: _json(text, "#/components/schemas/Error") for code, text in refusals.items()},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "hdetr_d2", "version": __version__},
        "paths": {
            "/detect": {"post": detect},
            "/model": {"get": {"summary": "The model's classes", "responses": {"200": {"description": "json"}}}},
            "/health": {"get": {"summary": "Whether it runs", "responses": {"200": {"description": "json"}}}},
        },
        "components": {"schemas": _SCHEMAS},
    }


_NUMBER = {"type": "number"}
_SCHEMAS: dict[str, Any] = {
    "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
    "Detection": {
        "type": "object",
        "required": ["label", "category_id", "score", "box"],
        "properties": {
            "label": {"type": "string"},
            "category_id": {"type": "integer"},
            "score": _NUMBER,
            "box": {
                "type": "array",
                "items": _NUMBER,
                "minItems": 4,
                "maxItems": 4,
                "description": "Left, top, right and bottom in pixels of the image, turned as its EXIF says.",
            },
        },
    },
    "Found": {
        "type": "object",
        "required": ["width", "height", "detections", "seconds"],
        "properties": {
            "width": {"type": "integer"},
            "height": {"type": "integer"},
            "seconds": _NUMBER,
            "detections": {"type": "array", "items": {"$ref": "#/components/schemas/Detection"}},
        },
    },
}


def _parameter(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "number", "minimum": 0, "maximum": 1}
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _json(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": {"$ref": schema}}}}
