"""A contact's settings on their way in and out: validated by the channel's form, secrets apart and never shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError

from apps.core.secrets import MASK, merged
from apps.notifications.channels import Channel


@dataclass(frozen=True)
class Settings:
    """Cleaned settings as JSON: what may be shown, and what may not."""

    config: dict[str, Any]
    secrets: dict[str, Any]


def clean(channel: type[Channel], data: Mapping[str, Any], stored: Mapping[str, Any]) -> Settings:
    """Return the settings that `data` asks for; `ValidationError` names the fields that are wrong.

    A secret that is absent, blank or masked keeps its `stored` value, one that is None is removed.
    """
    form = channel.Config()
    secret = channel.secrets()
    if unknown := sorted(set(data) - set(form.fields)):
        known = ", ".join(form.fields)
        raise ValidationError({unknown[0]: f"A contact of kind {channel.kind} has no such setting; it has {known}."})
    values = {name: value for name, value in data.items() if name not in secret}
    kept, given = ({name: held[name] for name in secret if name in held} for held in (stored, data))
    form = channel.Config(values | merged(kept, given))
    if not form.is_valid():
        raise ValidationError(form.errors.as_data())
    return Settings(
        config={name: value for name, value in form.cleaned_data.items() if name not in secret},
        secrets={name: value for name, value in form.cleaned_data.items() if name in secret and value},
    )


def shown(channel: type[Channel], config: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for an answer or a form: secrets as a mask where there is one, else blank."""
    masked = {name: MASK if stored.get(name) else "" for name in sorted(channel.secrets())}
    return {**config, **masked}
