"""The API of calendars that name who is on call, swaps, fairness and what is wrong in the days to come."""

from datetime import timedelta
from typing import Any

from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from apps.accounts.api import Exact, Needs
from apps.accounts.models import User
from apps.accounts.permissions import Right, principal_of
from apps.oncall import calendars, fairness, schedules
from apps.oncall.api import MOST_DAYS, moment_asked
from apps.oncall.models import CoverageFinding, ImportedCalendar, Schedule


class ImportedCalendarSerializer(Exact, serializers.ModelSerializer[ImportedCalendar]):
    """A calendar kept elsewhere. `url` is its address (a secret: `host` is shown), `content` the text of an .ics."""

    url = serializers.CharField(write_only=True, required=False, max_length=2000)
    content = serializers.CharField(write_only=True, required=False, trim_whitespace=False)

    class Meta:
        model = ImportedCalendar
        fields = (
            "id", "name", "zone", "url", "content", "host", "fetched_at", "read_until", "problem", "unmatched",
            "remarks",
        )  # fmt: skip
        read_only_fields = ("host", "fetched_at", "read_until", "problem", "unmatched", "remarks")


class ImportedCalendarViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[ImportedCalendar]
):
    """Calendars kept elsewhere whose events say who is on call: layers of schedules name them."""

    queryset = ImportedCalendar.objects.defer("content", "secrets").order_by("name")
    serializer_class = ImportedCalendarSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)

    def create(self, request: Request) -> Response:
        """Make a calendar from an address or the text of a file."""
        saved = self._save(request, None)
        return Response(self.get_serializer(saved).data, status=status.HTTP_201_CREATED)

    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent."""
        return Response(self.get_serializer(self._save(request, self.get_object())).data)

    def _save(self, request: Request, calendar: ImportedCalendar | None) -> ImportedCalendar:
        form = self.get_serializer(calendar, data=request.data, partial=calendar is not None)
        form.is_valid(raise_exception=True)
        values = dict(form.validated_data)
        text = values.pop("content", None)
        kept = {"name": calendar.name, "zone": calendar.zone} if calendar is not None else {}
        return calendars.save_calendar(
            by=principal_of(request), now=timezone.now(), calendar=calendar,
            data=None if text is None else text.encode(), **{**kept, **values},
        )  # fmt: skip

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a calendar that no layer names."""
        calendars.delete_calendar(by=principal_of(request), calendar=self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)


class TurnSerializer(Exact):
    """Somebody's time on call by a schedule; schedule and person are given by name."""

    schedule = serializers.SlugRelatedField[Schedule](slug_field="name", queryset=Schedule.objects.all())
    person = serializers.SlugRelatedField[User](slug_field="username", queryset=User.objects.all())
    starts_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField()


class SwapSerializer(Exact):
    """Two turns whose people take each other's."""

    mine = TurnSerializer()
    theirs = TurnSerializer()
    reason = serializers.CharField(required=False, max_length=200, allow_blank=True)


class SwapViewSet(viewsets.ViewSet):
    """Swaps: two overrides in one act."""

    permission_classes = (Needs(Right.OPERATE),)

    @extend_schema(operation_id="swap_turns", request=SwapSerializer, responses={201: OpenApiTypes.OBJECT})
    def create(self, request: Request) -> Response:
        """Have two people take each other's turn; answers with the two overrides."""
        form = SwapSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        given: dict[str, Any] = form.validated_data
        made = schedules.swap(
            by=principal_of(request), reason=given.get("reason", ""),
            **{name: schedules.Turn(**given[name]) for name in ("mine", "theirs")},
        )  # fmt: skip
        return Response({"overrides": [row.pk for row in made]}, status=status.HTTP_201_CREATED)


class FairnessViewSet(viewsets.ViewSet):
    """Who carries how much."""

    permission_classes = (Needs(Right.READ),)

    @extend_schema(
        operation_id="on_call_fairness",
        parameters=[
            OpenApiParameter("start", OpenApiTypes.DATETIME, description="From when; left out: 28 days ago."),
            OpenApiParameter("end", OpenApiTypes.DATETIME, description="Until when; left out: 28 days after it."),
            OpenApiParameter("schedule", str, many=True, description="Name of a schedule; left out: all of them."),
        ],
        responses=OpenApiTypes.OBJECT,
    )
    def list(self, request: Request) -> Response:
        """Return each person's hours on call, at night, at weekends and on holidays, and pages received."""
        start = moment_asked(request, "start", timezone.now() - timedelta(days=28))
        end = moment_asked(request, "end", start + timedelta(days=28))
        if not start < end <= start + timedelta(days=MOST_DAYS):
            raise serializers.ValidationError({"end": f"After the start, and at most {MOST_DAYS} days later."})
        chosen = Schedule.objects.select_related("holidays").order_by("name")
        if names := request.query_params.getlist("schedule"):
            chosen = chosen.filter(name__in=names)
        return Response([share.as_dict() for share in fairness.report(chosen, start=start, end=end)])


class FindingSerializer(serializers.ModelSerializer[CoverageFinding]):
    """Something of a schedule's next days that somebody should see to."""

    schedule = serializers.SlugRelatedField[Schedule](slug_field="name", read_only=True)

    class Meta:
        model = CoverageFinding
        fields = ("id", "schedule", "kind", "text", "starts_at", "hours", "found_at", "told_at")
        read_only_fields = fields


class FindingViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[CoverageFinding]):
    """What is wrong with who is on call in the days to come."""

    queryset = CoverageFinding.objects.select_related("schedule")
    serializer_class = FindingSerializer
    permission_classes = (Needs(Right.READ),)


def register(router: BaseRouter) -> None:
    """Add these endpoints to /api/v1/portal/."""
    router.register("on-call-calendars", ImportedCalendarViewSet, basename="oncallcalendar")
    router.register("on-call-swaps", SwapViewSet, basename="oncallswap")
    router.register("on-call-fairness", FairnessViewSet, basename="oncallfairness")
    router.register("on-call-findings", FindingViewSet, basename="oncallfinding")
