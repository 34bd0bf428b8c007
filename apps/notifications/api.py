"""The API of contacts and deliveries under /api/v1/portal/: one verb, one answer. Secrets go in, never come out."""

from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import mixins, pagination, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from apps.accounts.api import Exact, Needs
from apps.accounts.models import Calendar, User
from apps.accounts.permissions import Right, principal_of
from apps.core.secrets import readable
from apps.notifications import configuration, people_api, services, trying, wording
from apps.notifications.channels import kinds
from apps.notifications.message import SEVERITIES
from apps.notifications.models import Contact, Delivery, MessageTemplate, template_kinds, template_severities
from apps.notifications.wording import MOST_SOURCE, Wording


@extend_schema_field(OpenApiTypes.NUMBER)
class After(serializers.FloatField):
    """Seconds after a step asked for the contact's person; null: it stands not in that list."""

    def to_internal_value(self, data: Any) -> Any:
        """Return a span."""
        seconds = super().to_internal_value(data)
        if not 0 <= seconds <= people_api.LONGEST:
            raise serializers.ValidationError("From 0 to 86400 seconds.")
        return people_api.span(seconds)

    def to_representation(self, value: Any) -> Any:
        """Return seconds."""
        return people_api.seconds(value)


class ContactSerializer(serializers.ModelSerializer[Contact]):
    """A contact as it is shown: secrets as a mask where there is one."""

    owner = serializers.SlugRelatedField[User](slug_field="username", read_only=True)
    failover = serializers.SlugRelatedField[Contact](slug_field="name", read_only=True)
    calendar = serializers.SlugRelatedField[Calendar](slug_field="name", read_only=True)
    default_after = After(read_only=True)
    important_after = After(read_only=True)
    settings = serializers.SerializerMethodField()

    class Meta:
        model = Contact
        fields = (
            "id", "name", "kind", "settings", "enabled", "is_fallback", "owner", "rate_limit", "failover", "calendar",
            "at_once_from", "default_after", "important_after", "origin",
            "problem", "problem_at", "last_ok_at",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(OpenApiTypes.OBJECT)
    def get_settings(self, contact: Contact) -> dict[str, Any]:
        """Return what the channel's form holds."""
        try:
            return configuration.shown(contact.channel, contact.config, readable(contact))
        except LookupError:
            return dict(contact.config)


class ContactInput(Exact):
    """What may be sent. In `settings` a secret that is left out, blank or masked stays; null removes it."""

    name = serializers.CharField(max_length=100)
    kind = serializers.ChoiceField(choices=kinds())
    settings = serializers.DictField(required=False)
    enabled = serializers.BooleanField(required=False)
    is_fallback = serializers.BooleanField(required=False)
    rate_limit = serializers.CharField(max_length=100, required=False, allow_blank=True)
    owner = serializers.SlugRelatedField[User](
        slug_field="username", queryset=User.objects.all(), required=False, allow_null=True
    )
    failover = serializers.SlugRelatedField[Contact](
        slug_field="name", queryset=Contact.objects.all(), required=False, allow_null=True
    )
    calendar = serializers.SlugRelatedField[Calendar](
        slug_field="name", queryset=Calendar.objects.all(), required=False, allow_null=True
    )
    at_once_from = serializers.ChoiceField(choices=SEVERITIES, required=False)
    default_after = After(required=False, allow_null=True)
    important_after = After(required=False, allow_null=True)

    @property
    def options(self) -> dict[str, Any]:
        """What was sent of who stands in for it and when it is told."""
        return {name: self.validated_data[name] for name in services.OPTIONS if name in self.validated_data}


class DeliverySerializer(serializers.ModelSerializer[Delivery]):
    """One message to one contact: who was told what, when, by which provider id."""

    class Meta:
        model = Delivery
        fields = (
            "id", "key", "contact", "contact_name", "kind", "purpose", "state", "message", "created_at", "due_at",
            "attempts", "finished_at", "error", "provider_id", "carrier", "held_for", "stands_in_for", "receipt",
            "receipt_at", "receipt_text", "recipients",
        )  # fmt: skip
        read_only_fields = fields


class ContactViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Contact]):
    """Contacts: configured channels that messages go to."""

    queryset = Contact.objects.select_related("owner", "failover", "calendar").order_by("name")
    serializer_class = ContactSerializer
    permission_classes = (Needs(Right.READ, Right.ADMINISTER),)

    @extend_schema(request=ContactInput, responses={201: ContactSerializer})
    def create(self, request: Request) -> Response:
        """Make a contact."""
        form = ContactInput(data=request.data)
        form.is_valid(raise_exception=True)
        values = form.validated_data
        contact = services.save_contact(
            by=principal_of(request),
            now=timezone.now(),
            name=values["name"],
            kind=values["kind"],
            values=values.get("settings", {}),
            enabled=values.get("enabled", True),
            is_fallback=values.get("is_fallback", False),
            owner=values.get("owner"),
            rate_limit=values.get("rate_limit", ""),
            options=form.options,
        )
        return Response(self.get_serializer(contact).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=ContactInput, responses=ContactSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent; settings are merged with those it has."""
        contact = self.get_object()
        form = ContactInput(data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        values = form.validated_data
        contact = services.save_contact(
            by=principal_of(request),
            now=timezone.now(),
            contact=contact,
            name=values.get("name", contact.name),
            kind=values.get("kind", contact.kind),
            values={**contact.config, **values.get("settings", {})},
            enabled=values.get("enabled", contact.enabled),
            is_fallback=values.get("is_fallback", contact.is_fallback),
            owner=values.get("owner", contact.owner),
            rate_limit=values.get("rate_limit", contact.rate_limit),
            options=form.options,
        )
        return Response(self.get_serializer(contact).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a contact that no policy, route or rule names; the record of what it was told stays."""
        services.delete_contact(by=principal_of(request), contact=self.get_object(), now=timezone.now())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=None, responses={202: DeliverySerializer})
    @action(detail=True, methods=["post"], permission_classes=[Needs(Right.OPERATE)])
    def test(self, request: Request, pk: str) -> Response:
        """Send a test message; what becomes of it stands on the delivery within seconds."""
        delivery = services.send_test(by=principal_of(request), contact=self.get_object(), now=timezone.now())
        return Response(DeliverySerializer(delivery).data, status=status.HTTP_202_ACCEPTED)


class MessageTemplateSerializer(serializers.ModelSerializer[MessageTemplate]):
    """A message template; `kind` and `severity` are empty where it is for every one."""

    class Meta:
        model = MessageTemplate
        fields = ("id", "name", "kind", "severity", "title", "body", "document", "enabled", "problem", "problem_at")
        read_only_fields = fields


class TemplateDraft(Exact):
    """A template's texts as they are written right now."""

    kind = serializers.ChoiceField(choices=template_kinds(), required=False, allow_blank=True)
    title = serializers.CharField(max_length=MOST_SOURCE, required=False, allow_blank=True)
    body = serializers.CharField(max_length=MOST_SOURCE, required=False, allow_blank=True)
    document = serializers.CharField(max_length=MOST_SOURCE, required=False, allow_blank=True)


class MessageTemplateInput(TemplateDraft):
    """What may be sent of a template."""

    name = serializers.CharField(max_length=100)
    severity = serializers.ChoiceField(choices=template_severities(), required=False, allow_blank=True)
    enabled = serializers.BooleanField(required=False)


class TemplatePreviewInput(TemplateDraft):
    """A draft, and of what: `alert` is a key of examples/, empty for the built-in example."""

    alert = serializers.CharField(max_length=100, required=False, allow_blank=True)
    is_over = serializers.BooleanField(required=False)


class MessageTemplateViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[MessageTemplate]
):
    """Message templates: people's own words, by channel and severity."""

    queryset = MessageTemplate.objects.order_by("kind", "severity", "name")
    serializer_class = MessageTemplateSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)

    @extend_schema(request=MessageTemplateInput, responses={201: MessageTemplateSerializer})
    def create(self, request: Request) -> Response:
        """Make a template; what could not be told is refused with a sentence for each field."""
        form = MessageTemplateInput(data=request.data)
        form.is_valid(raise_exception=True)
        values = form.validated_data
        template = services.save_message_template(by=principal_of(request), now=timezone.now(), values=values)
        return Response(self.get_serializer(template).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=MessageTemplateInput, responses=MessageTemplateSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent; saving forgets the problem."""
        template = self.get_object()
        form = MessageTemplateInput(data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        template = services.save_message_template(
            by=principal_of(request), now=timezone.now(), template=template, values=form.validated_data
        )
        return Response(self.get_serializer(template).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a template."""
        services.delete_message_template(by=principal_of(request), template=self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=TemplatePreviewInput, responses=OpenApiTypes.OBJECT)
    @action(detail=False, methods=["post"], permission_classes=[Needs(Right.EDIT)])
    def preview(self, request: Request) -> Response:
        """Show a draft as its channels would, of a past alert; nothing is saved or sent."""
        form = TemplatePreviewInput(data=request.data)
        form.is_valid(raise_exception=True)
        asked = form.validated_data
        scope = principal_of(request).scope
        message = trying.example(asked.get("alert", ""), scope, is_over=asked.get("is_over", False))
        if message is None:
            raise ValidationError({"alert": "There is no such alert: choose one of message-templates/examples/."})
        return Response(trying.preview(_wording(asked), message))

    @extend_schema(request=TemplateDraft, responses=OpenApiTypes.OBJECT)
    @action(detail=False, methods=["post"], permission_classes=[Needs(Right.EDIT)])
    def lint(self, request: Request) -> Response:
        """Say what is wrong with a draft (`faults`, by field) and what its readers will miss (`lint`)."""
        form = TemplateDraft(data=request.data)
        form.is_valid(raise_exception=True)
        draft = _wording(form.validated_data)
        return Response({"faults": wording.faults(draft), "lint": wording.lint(draft)})

    @extend_schema(responses=OpenApiTypes.OBJECT)
    @action(detail=False, methods=["get"], permission_classes=[Needs(Right.EDIT)], pagination_class=None)
    def examples(self, request: Request) -> Response:
        """List past alerts and incidents to try a template with."""
        found = trying.examples(principal_of(request).scope)
        return Response([{"key": key, "label": label} for key, label in found])


def _wording(values: dict[str, Any]) -> Wording:
    return Wording(**{name: values.get(name, "") for name in ("title", "body", "document", "kind")})


class NewestFirst(pagination.CursorPagination):
    """Pages of a table that only grows, without counting it."""

    ordering = "-id"
    page_size = 100
    page_size_query_param = "limit"
    max_page_size = 1000


FILTERS = ("contact", "state", "purpose", "kind")


@extend_schema(parameters=[OpenApiParameter(name, str) for name in FILTERS])
class DeliveryViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Delivery]):
    """The delivery log, newest first; filters are exact."""

    queryset = Delivery.objects.all()
    serializer_class = DeliverySerializer
    permission_classes = (Needs(Right.READ),)
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Delivery]:
        """Return what was asked for; who sees only some labels sees no messages, which may be about any."""
        if principal_of(self.request).scope.matchers:
            return super().get_queryset().none()
        asked = {name: self.request.query_params[name] for name in FILTERS if name in self.request.query_params}
        try:
            return super().get_queryset().filter(**asked)
        except ValueError:
            raise ValidationError({"contact": "Give the number of the contact."}) from None


def register(router: BaseRouter) -> None:
    """Add this room's endpoints to /api/v1/portal/."""
    router.register("contacts", ContactViewSet, basename="contact")
    router.register("message-templates", MessageTemplateViewSet, basename="message-template")
    router.register("deliveries", DeliveryViewSet, basename="delivery")
    people_api.register(router)
