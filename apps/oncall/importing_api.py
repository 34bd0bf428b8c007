"""The API of importing another product's configuration: parse, one verb, answer."""

import base64
import binascii

from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.api import Exact, Needs
from apps.accounts.permissions import Right, principal_of
from apps.oncall.importers import LARGEST, kinds
from apps.oncall.importing import import_configuration


class ConfigurationInput(Exact):
    """The file, as its text or, where it is an archive, in Base64."""

    kind = serializers.ChoiceField(choices=kinds())
    text = serializers.CharField(required=False, max_length=LARGEST, trim_whitespace=False)
    base64 = serializers.CharField(required=False, max_length=LARGEST * 4 // 3 + 4)
    dry_run = serializers.BooleanField(default=False, help_text="Only say what would become of it.")

    def validate(self, attrs: dict[str, object]) -> dict[str, object]:
        """Take one of the two."""
        if ("text" in attrs) == ("base64" in attrs):
            raise serializers.ValidationError("Give either text or base64.")
        try:
            packed = attrs.get("base64")
            content = base64.b64decode(str(packed), validate=True) if packed is not None else None
        except (binascii.Error, ValueError):
            raise serializers.ValidationError({"base64": "This is no Base64."}) from None
        text = str(attrs.get("text", ""))
        return {**attrs, "content": content if content is not None else text.encode("utf-8", "replace")}


class ConfigurationImportViewSet(viewsets.ViewSet):
    """Configurations of other products."""

    permission_classes = (Needs(Right.ADMINISTER),)

    @extend_schema(operation_id="configuration_import", request=ConfigurationInput, responses=OpenApiTypes.OBJECT)
    def create(self, request: Request) -> Response:
        """Take over an alertmanager.yml, or an export of Grafana OnCall or Opsgenie; answer with the report."""
        form = ConfigurationInput(data=request.data)
        form.is_valid(raise_exception=True)
        given = form.validated_data
        report = import_configuration(
            by=principal_of(request),
            kind=given["kind"],
            content=given["content"],
            dry_run=given["dry_run"],
            now=timezone.now(),
        )
        return Response(report.as_dict())
