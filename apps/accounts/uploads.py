"""A file on its way through a page that tells first what it would do: uploaded once, carried by the form until then."""

import base64
import binascii
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminFileFieldWidget

LARGEST: Final = 2 * 2**20


class UploadForm(forms.Form):
    """A file; `content` carries it, in Base64, from the report to the import. Its bytes are `cleaned_data["bytes"]`."""

    too_large = "More than 2 MB."
    file = forms.FileField(required=False, widget=UnfoldAdminFileFieldWidget)
    content = forms.CharField(required=False, strip=False, max_length=LARGEST * 4 // 3 + 4, widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if (file := values.get("file")) is not None:
            if file.size > LARGEST:
                raise ValidationError({"file": self.too_large})
            values["content"] = base64.b64encode(file.read()).decode()
        if not values.get("content") and not self.errors:
            raise ValidationError("Choose a file.")
        try:
            values["bytes"] = base64.b64decode(values.get("content", ""), validate=True)
        except (binascii.Error, ValueError):
            raise ValidationError("Choose the file once more.") from None
        return {**values, "file": None}
