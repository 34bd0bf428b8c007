"""The API of how people are told, under /api/v1/portal/people/: their lists, their quiet hours, a test."""

from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from apps.accounts.api import Exact, Needs
from apps.accounts.models import User
from apps.accounts.permissions import Right, principal_of
from apps.notifications import personal
from apps.notifications.message import SEVERITIES
from apps.notifications.models import Contact, QuietHours

LONGEST = timedelta(days=1).total_seconds()


class QuietHoursSerializer(Exact, serializers.ModelSerializer[QuietHours]):
    """When a person is not to be disturbed; no hours: never."""

    hours = serializers.CharField(max_length=2000, allow_blank=True)
    zone = serializers.CharField(max_length=64, required=False)
    disturbed_from = serializers.ChoiceField(choices=SEVERITIES, required=False)

    class Meta:
        model = QuietHours
        fields = ("hours", "zone", "disturbed_from")


class PlaceSerializer(Exact):
    """Where a contact stands in its person's lists, in seconds after a step asked for the person; null: not at all."""

    contact = serializers.SlugRelatedField[Contact](slug_field="name", queryset=Contact.objects.all())
    default = serializers.FloatField(allow_null=True, min_value=0, max_value=LONGEST)
    important = serializers.FloatField(allow_null=True, min_value=0, max_value=LONGEST)


class PersonSerializer(serializers.ModelSerializer[User]):
    """A person and how they are told."""

    contacts = serializers.SerializerMethodField()
    quiet_hours = serializers.SerializerMethodField()

    class Meta:
        model = User
        fields = ("id", "username", "is_active", "contacts", "quiet_hours")
        read_only_fields = fields

    @extend_schema_field(OpenApiTypes.OBJECT)
    def get_contacts(self, person: User) -> list[dict[str, Any]]:
        """Return where each contact stands in the two lists."""
        return [
            {
                "contact": contact.name,
                "kind": contact.kind,
                "enabled": contact.enabled,
                "default": seconds(contact.default_after),
                "important": seconds(contact.important_after),
            }
            for contact in person.contacts.all()
        ]

    @extend_schema_field(QuietHoursSerializer(allow_null=True))
    def get_quiet_hours(self, person: User) -> dict[str, Any] | None:
        """Return them, or null."""
        quiet = getattr(person, "quiet_hours", None)
        return None if quiet is None else dict(QuietHoursSerializer(quiet).data)


class TestSerializer(Exact):
    """What a test is asked for."""

    __test__ = False

    send = serializers.BooleanField(required=False, help_text="Send to the first contact of each list; else only say.")
    severity = serializers.ChoiceField(choices=SEVERITIES, required=False, help_text="warning without it.")


class PeopleViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[User]):
    """How people are told: everybody may change and test it for themselves, who administers for everybody."""

    queryset = User.objects.select_related("quiet_hours").prefetch_related("contacts").order_by("username")
    serializer_class = PersonSerializer
    permission_classes = (Needs(Right.READ, Right.READ),)

    def get_queryset(self) -> QuerySet[User]:
        """Return everybody; who sees only some labels sees nobody."""
        found = super().get_queryset()
        return found.none() if principal_of(self.request).scope.matchers else found

    @extend_schema(request=QuietHoursSerializer, responses=PersonSerializer)
    @action(detail=True, methods=["put"], url_path="quiet-hours")
    def quiet_hours(self, request: Request, pk: str) -> Response:
        """Say when the person is not to be disturbed; empty hours: never."""
        person = self.get_object()
        form = QuietHoursSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        now = timezone.now()
        personal.save_quiet_hours(by=principal_of(request), person=person, now=now, **form.validated_data)
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(request=PlaceSerializer(many=True), responses=PersonSerializer)
    @action(detail=True, methods=["put"])
    def order(self, request: Request, pk: str) -> Response:
        """Put the person's contacts in order; those that are left out stay as they are."""
        person = self.get_object()
        form = PlaceSerializer(data=request.data, many=True)
        form.is_valid(raise_exception=True)
        places = {row["contact"].pk: (span(row["default"]), span(row["important"])) for row in form.validated_data}
        personal.save_order(by=principal_of(request), person=person, order=places, now=timezone.now())
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(request=TestSerializer, responses={200: OpenApiTypes.OBJECT, 202: OpenApiTypes.OBJECT})
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:
        """Say how the person would be told now by each list; with `send` a test goes to the first contact of each."""
        person = self.get_object()
        form = TestSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        found = personal.try_out(by=principal_of(request), person=person, now=timezone.now(), **form.validated_data)
        return Response(found.as_dict(), status=status.HTTP_202_ACCEPTED if found.deliveries else status.HTTP_200_OK)


def seconds(after: timedelta | None) -> float | None:
    """Return a span as JSON has it."""
    return None if after is None else after.total_seconds()


def span(after: float | None) -> timedelta | None:
    """Return a span from JSON."""
    return None if after is None else timedelta(seconds=after)


def register(router: BaseRouter) -> None:
    """Add these endpoints to /api/v1/portal/."""
    router.register("people", PeopleViewSet, basename="person")
