"""The server's interface as OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import __version__
from .models import ServedModel

_ERRORS = {
    "400": "a query parameter or the form is wrong",
    "413": "more bytes than the server takes",
    "422": "the body is no image that can be read",
    "503": "as many images wait as may; see Retry-After",
    "504": "it took longer than the server allows",
}


def openapi(model: ServedModel, methods: Sequence[str], body: int) -> dict[str, Any]:
    """The document.

    Args:
        model: the first one that is served.
        methods: of all.
        body: bytes that an image may have.
    """
    joints = len(model.skeleton)
    person = {
        "type": "object",
        "properties": {
            "category_id": {"type": "integer"},
            "keypoints": {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 3 * joints,
                "maxItems": 3 * joints,
                "description": "x, y in pixels and score of each joint; 0 0 0 where absent",
            },
            "bbox": {"type": "array", "items": {"type": "number"}, "description": "x, y, w, h"},
            "score": {"type": "number"},
            "visibility": {
                "type": "array",
                "items": {"enum": [0, 1, 2]},
                "description": "0 absent, 1 filled in, 2 found as a peak",
            },
            "tag": {"type": "array", "items": {"type": "number"}},
            "track": {"type": "integer", "description": "in videos"},
        },
    }
    people: dict[str, Any] = {
        "type": "object",
        "required": ["image", "method", "people"],
        "properties": {
            "image": {
                "type": "object",
                "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}},
            },
            "method": {"enum": list(methods)},
            "people": {"type": "array", "items": person},
            "seconds": {"type": "object", "additionalProperties": {"type": "number"}},
            "heatmap": {"type": "string", "description": "PNG as a data address"},
            "tag_map": {"type": "string", "description": "PNG as a data address"},
        },
    }
    number = {"type": "number"}
    line = {  # of a video
        "type": "object",
        "properties": people["properties"]
        | {"frame": {"type": "integer"}, "time": number, "error": {"type": "string"}},
    }
    query = [
        _parameter("preset", {"enum": list(model.predictors)}, "test settings"),
        _parameter("method", {"enum": list(methods)}, "which of the served models"),
        _parameter("min_score", {"type": "number"}, "lowest person score"),
        _parameter("min_keypoint_score", {"type": "number"}, "lowest keypoint score"),
        _parameter("fields", {"type": "string"}, "comma-separated parts of the answer"),
        _parameter("raw", {"type": "boolean"}, "all people, without an operating point"),
    ]
    error = {"type": "object", "properties": {"error": {"type": "string"}}}
    errors = {
        status: {"description": text, "content": {"application/json": {"schema": error}}}
        for status, text in _ERRORS.items()
    }

    def post(
        text: str, kinds: Sequence[str], answer: str, schema: dict[str, Any]
    ) -> dict[str, Any]:
        content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
        found = {"description": "the people", "content": {answer: {"schema": schema}}}
        return {
            "post": {
                "summary": text,
                "parameters": query,
                "requestBody": {"required": True, "content": content},
                "responses": {"200": found, **errors},
            }
        }

    def get(text: str, kind: str) -> dict[str, Any]:
        return {
            "get": {
                "summary": text,
                "responses": {"200": {"description": text, "content": {kind: {}}}},
            }
        }

    images = ("image/jpeg", "image/png", "image/webp", "multipart/form-data")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "higherhrnet",
            "version": __version__,
            "description": f"People's keypoints ({model.skeleton.name}). An image may have "
            f"{body >> 20} MiB.",
        },
        "paths": {
            "/predict": post("People in an image", images, "application/json", people),
            "/predict/video": post(
                "People in a video, a line of JSON a frame",
                ("video/mp4",),
                "application/x-ndjson",
                line,
            ),
            "/model": get("What is served", "application/json"),
            "/healthz": get("Whether it answers", "application/json"),
            "/metrics": get("Prometheus metrics", "text/plain"),
        },
    }


def _parameter(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": text}
