"""Content-Security-Policy: strict for the portal's own pages, `unsafe-eval` for the admin's Alpine components only."""

from typing import Any

from csp.constants import NONE, SELF, UNSAFE_EVAL, UNSAFE_INLINE
from csp.middleware import CSPMiddleware
from django.http import HttpRequest
from django.http.response import HttpResponseBase

DIRECTIVES: dict[str, Any] = {
    "default-src": [SELF],
    "script-src": [SELF],
    "style-src": [SELF],
    "img-src": [SELF, "data:"],
    "font-src": [SELF],
    "connect-src": [SELF],
    "object-src": [NONE],
    "base-uri": [NONE],
    "form-action": [SELF],
    "frame-ancestors": [NONE],
}
# unfold's Alpine evaluates attribute expressions and sets style attributes; nothing else on the portal may.
ADMIN: dict[str, Any] = {
    **DIRECTIVES,
    "script-src": [SELF, UNSAFE_EVAL],
    "style-src": [SELF, UNSAFE_INLINE],
}


class ContentSecurityPolicy(CSPMiddleware):
    """Sends the policy of the part of the site that answered."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if not hasattr(response, "_csp_config"):
            response._csp_config = ADMIN if request.path.startswith("/admin/") else DIRECTIVES  # type: ignore[attr-defined]
        return super().process_response(request, response)
