"""The prediction server's OpenAPI document, made from the decision's own model: pure."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from edge.wire.rows import DecisionRow

if TYPE_CHECKING:
    from edge.sources.settings import HttpSettings

DECIDE, BATCH, HEALTH, OPENAPI = "/v1/decide", "/v1/batch", "/healthz", "/openapi.json"
RECEIVED = "received"
"""Member that an answer has beyond the recorded decision, where a mask or a crop changed what was sent."""


def document(settings: "HttpSettings") -> dict[str, Any]:
    """Return the document (OpenAPI 3.1) of a server with these settings."""
    schema = DecisionRow.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    schema["properties"][RECEIVED] = _RECEIVED
    schemas: dict[str, Any] = {**schema.pop("$defs", {}), "DecisionRow": schema, "Error": _ERROR, "Health": _HEALTH}
    secured: list[dict[str, list[str]]] = [{"token": []}] if settings.token is not None else []
    result: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Lineside prediction server", "version": version("lineside")},
        "paths": {
            DECIDE: {"post": {**_decide(settings), "security": secured}},
            BATCH: {"post": {**_batch(settings), "security": secured}},
            HEALTH: {"get": _health()},
            OPENAPI: {"get": {"summary": "This document", "operationId": "openapi", "responses": {"200": _JSON}}},
        },
        "components": {"schemas": schemas},
    }
    if secured:
        result["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return result


def _decide(settings: "HttpSettings") -> dict[str, Any]:
    binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    kinds = (
        "image/jpeg",
        "image/png",
        "image/bmp",
        "image/webp",
        "image/tiff",
        "audio/wav",
        "application/octet-stream",
    )
    return {
        "summary": "Decide on one picture or sound",
        "operationId": "decide",
        "description": f"At most {settings.max_bytes:,} bytes; an answer within {settings.answer_s:g} s. An input that "
        "cannot be judged is deferred with the reason bad_input, and recorded like any other.",
        "parameters": [
            {"name": "name", "in": "query", "schema": {"type": "string"}, "description": "the sender's name for it"}
        ],
        "requestBody": {"required": True, "content": dict.fromkeys(kinds, binary)},
        "responses": {"200": _answer("The decision, which is on record", "DecisionRow"), **_refusals()},
    }


def _batch(settings: "HttpSettings") -> dict[str, Any]:
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": settings.max_batch}
    form = {"schema": {"type": "object", "properties": {"file": files}}}
    one = {"oneOf": [{"$ref": "#/components/schemas/DecisionRow"}, {"$ref": "#/components/schemas/Error"}]}
    answer = {"type": "object", "properties": {"decisions": {"type": "array", "items": one}}, "required": ["decisions"]}
    return {
        "summary": "Decide on several, in their order; taken whole or not at all",
        "operationId": "batch",
        "requestBody": {"required": True, "content": {"multipart/form-data": form}},
        "responses": {
            "200": {"description": "One decision per file", "content": {"application/json": {"schema": answer}}},
            **_refusals(),
            "400": _answer("The form cannot be read, or holds no file", "Error"),
            "415": _answer("It is no form", "Error"),
        },
    }


def _health() -> dict[str, Any]:
    return {
        "summary": "Whether inputs are being decided",
        "operationId": "health",
        "responses": {"200": _answer("Ready", "Health"), "503": _answer("Stuck or stopping", "Health")},
    }


def _refusals() -> dict[str, Any]:
    later = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    busy = {**_answer("No room: try again after Retry-After seconds", "Error"), "headers": later}
    ending = {**_answer("Stopping, or not recorded", "Error"), "headers": later}
    return {
        "401": _answer("The token is missing or wrong", "Error"),
        "403": _answer("A page of another site, and no token", "Error"),
        "408": _answer("It took too long to arrive", "Error"),
        "413": _answer("It is too large", "Error"),
        "429": busy,
        "503": ending,
        "504": _answer("No decision in time", "Error"),
    }


def _answer(words: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": words, "content": content}


_RECEIVED = {
    "type": "string",
    "description": "SHA-256 of what was sent, where a mask or a crop changed it; else `input.digest` is it",
}
_JSON: dict[str, Any] = {"description": "JSON", "content": {"application/json": {"schema": {"type": "object"}}}}
_ERROR: dict[str, Any] = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
_HEALTH: dict[str, Any] = {
    "type": "object",
    "properties": {"ready": {"type": "boolean"}, "waiting": {"type": "integer"}, "stopping": {"type": "boolean"}},
    "required": ["ready", "waiting", "stopping"],
}
