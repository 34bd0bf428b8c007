"""Puts the lanes into the OpenAPI document, from the table that serves them; `SPECTACULAR_SETTINGS` names this hook."""

import re
from typing import Any, Final

from apps.core.lanes import READ, Lane, Parameter
from apps.metrics import envelope
from monitoring_portal.fastlane import ROUTES

ENVELOPE: Final = "PrometheusAnswer"
ERROR: Final = "PrometheusError"
PLAIN: Final = "Refusal"
SCHEMAS: Final[dict[str, Any]] = {
    ENVELOPE: {
        "type": "object",
        "description": "A success in Prometheus' envelope.",
        "properties": {
            "status": {"type": "string", "enum": ["success"]},
            "data": {"description": "What was asked for; numbers of samples are texts, times are seconds."},
            "warnings": {"type": "array", "items": {"type": "string"}},
            "infos": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["status", "data"],
    },
    ERROR: {
        "type": "object",
        "description": "An error in Prometheus' envelope.",
        "properties": {
            "status": {"type": "string", "enum": ["error"]},
            "errorType": {"type": "string", "enum": list(envelope.STATUS)},
            "error": {"type": "string"},
        },
        "required": ["status", "errorType", "error"],
    },
    PLAIN: {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
}
SECURITY: Final[list[dict[str, list[str]]]] = [{"token": []}, {"tokenAsPassword": []}, {"tokenInHeader": []}]
SCHEMES: Final[dict[str, Any]] = {
    "token": {"type": "http", "scheme": "bearer"},
    "tokenAsPassword": {"type": "http", "scheme": "basic", "description": "Any user name; the token as password."},
    "tokenInHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
REFUSALS: Final = {
    400: "The request is wrong (bad_data).",
    401: "Nobody known asks.",
    403: "The caller lacks the right.",
    413: "The body is too large.",
    422: "The query cannot be evaluated, or is over its budget (execution).",
    429: "Too many wrong tokens from this address.",
    499: "The client left (canceled).",
    500: "The portal failed; its log says why (internal).",
    503: "The query took too long (timeout), or the store cannot be read now (unavailable).",
}


def with_lanes(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Add the lanes' paths, and what they refer to, to a document."""
    parts = result.setdefault("components", {})
    parts["schemas"] = dict(sorted({**parts.get("schemas", {}), **SCHEMAS}.items()))
    parts["securitySchemes"] = {**parts.get("securitySchemes", {}), **SCHEMES}
    added = {re.sub(r"<(\w+)(?:\.\.\.)?>", r"{\1}", written): _path(written, lane) for written, lane in ROUTES.items()}
    result["paths"] = dict(sorted({**result.get("paths", {}), **added}.items()))
    return result


def _path(written: str, lane: Lane) -> dict[str, Any]:
    captured = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"<(\w+)(?:\.\.\.)?>", written)
    ]
    return {
        method.lower(): _operation(written, lane, method, captured)
        for method in sorted(lane.methods)
        if method != "HEAD"
    }


def _operation(written: str, lane: Lane, method: str, captured: list[dict[str, Any]]) -> dict[str, Any]:
    prometheus = lane.refuse is envelope.refuse
    name = re.sub(r"\W+", "_", written).strip("_")
    operation: dict[str, Any] = {
        "operationId": f"{name}_{method.lower()}",
        "summary": lane.summary,
        "tags": [_tag(written)],
        "security": [] if lane.right is None else SECURITY,
        "responses": _responses(lane, prometheus),
    }
    if method == "POST" and lane.writes is None:
        form: dict[str, Any] = {"type": "object", "properties": {one.name: _schema(one) for one in lane.parameters}}
        if required := [one.name for one in lane.parameters if one.required]:
            form["required"] = required
        operation["parameters"] = captured
        operation["requestBody"] = {"content": {"application/x-www-form-urlencoded": {"schema": form}}}
    else:
        operation["parameters"] = captured + [
            {
                "name": one.name,
                "in": "query",
                "required": one.required,
                "description": one.help,
                "schema": _schema(one),
            }
            for one in lane.parameters
            if method in READ or lane.writes is None
        ]
    return operation


def _tag(written: str) -> str:
    if written.startswith("/api/v1/"):
        return "prometheus"
    if "/api/v2/" in written:
        return "alertmanager"
    return "monitoring" if written.startswith("/api/") else "portal"


def _schema(one: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": one.type}
    if one.choices:
        schema["enum"] = list(one.choices)
    if one.example:
        schema["example"] = one.example
    return {"type": "array", "items": schema} if one.many else schema


def _responses(lane: Lane, prometheus: bool) -> dict[str, Any]:
    def said(words: str, schema: str) -> dict[str, Any]:
        return {
            "description": words,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
        }

    if not prometheus:
        found: dict[str, Any] = {"200": {"description": lane.summary or "The answer.", "content": {"text/plain": {}}}}
        refusals = (401, 403, 500, 503) if lane.right is not None else (503,)
        return found | {str(code): said(REFUSALS[code], PLAIN) for code in refusals}
    return {"200": said(lane.summary, ENVELOPE)} | {str(code): said(words, ERROR) for code, words in REFUSALS.items()}
