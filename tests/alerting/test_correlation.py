"""Alerts become incidents: by topology, service, host and time, never by time alone; people merge and split them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.permissions import ROLES, Principal, Scope
from apps.alerting import evaluation, services, storm
from apps.alerting.correlation import Board, Candidate, Choice, Newcomer, Suspect, probable_cause, roots_first
from apps.alerting.models import Alert, Incident, IncidentTrait, Service, Transition
from tests.alerting.conftest import SETUP, START, World

AT = datetime(2026, 11, 29, 3, 0, tzinfo=UTC)
GRAPH = {"web": {"api"}, "api": {"db", "cache"}, "mail": {"db"}}
STORM = storm.read((Path(__file__).resolve().parents[2] / "fixtures" / "storm.yaml").read_text())
MINUTE = timedelta(minutes=1)


def newcomer(
    key: int = 1, service: str = "", name: str = "Slow", minutes: float = 0, rank: int = 1, **labels: str
) -> Newcomer:
    return Newcomer(key, name, service, labels, rank, AT + minutes * MINUTE)


def together(*alerts: Newcomer) -> list[set[int]]:
    """Return the alerts by incident, as they come one after the other."""
    board = Board([], GRAPH)
    homes: dict[int, int] = {}
    for alert in alerts:
        choice = board.choose(alert)
        home = choice.incident if choice.incident is not None else -alert.key
        board.join(alert, choice, home)
        homes = {key: home if here in choice.absorbed else here for key, here in homes.items()} | {alert.key: home}
    return [{key for key, here in homes.items() if here == home} for home in dict.fromkeys(homes.values())]


# --- What belongs together -------------------------------------------------------------------------------------------
def test_time_alone_ties_nothing():
    assert together(newcomer(1, "db"), newcomer(2, "cdn"), newcomer(3), newcomer(4)) == [{1}, {2}, {3}, {4}]


def test_the_same_service_within_a_quarter_of_an_hour_is_one_incident():
    assert together(newcomer(1, "db"), newcomer(2, "db", minutes=14), newcomer(3, "db", minutes=60)) == [{1, 2}, {3}]


def test_what_depends_on_something_wrong_belongs_to_it_however_long_that_lasts():
    assert together(newcomer(1, "db"), newcomer(2, "web", minutes=1)) == [{1, 2}]
    assert together(newcomer(1, "db"), newcomer(2, "web", minutes=300)) == [{1, 2}]


def test_a_root_that_comes_late_gathers_what_depends_on_it():
    assert together(newcomer(1, "web"), newcomer(2, "mail"), newcomer(3, "cdn"), newcomer(4, "db", minutes=2)) == [
        {1, 2, 4},
        {3},
    ]


def test_two_faults_under_one_service_stay_two():
    """Which of them explains the service is not known."""
    assert together(newcomer(1, "db"), newcomer(2, "cache"), newcomer(3, "api")) == [{1, 3}, {2}]


def test_the_same_host_ties_and_the_same_cluster_only_for_the_same_kind():
    host: Any = {"instance": "a:9100"}
    assert together(newcomer(1, name="Disk", **host), newcomer(2, name="Cpu", **host)) == [{1, 2}]
    place: Any = {"cluster": "eu"}
    disks = [newcomer(number, name="Disk", **place) for number in (1, 2)]
    assert together(*disks, newcomer(3, name="Cpu", **place)) == [{1, 2}, {3}]


def test_what_people_arranged_is_not_moved_but_may_grow():
    by_hand = Candidate(7, AT, {"service:web": AT}, {"web"}, is_by_hand=True)
    board = Board([by_hand, Candidate(8, AT, {"service:mail": AT}, {"mail"})], GRAPH)
    assert board.choose(newcomer(1, "db")) == Choice(7, "web, of which something is wrong here, depends on db")


SERVICES = st.sampled_from(["db", "api", "web", "mail", "cdn", ""])


@given(st.lists(st.tuples(SERVICES, st.integers(0, 40), st.sampled_from(["a", "b", ""])), max_size=12))
def test_every_alert_is_in_exactly_one_incident(rows):
    alerts = [newcomer(n, service, minutes=at, instance=host) for n, (service, at, host) in enumerate(rows, start=1)]
    found = together(*sorted(alerts, key=lambda alert: alert.at))
    assert sorted(key for incident in found for key in incident) == [alert.key for alert in alerts]


def test_of_one_moment_what_others_depend_on_comes_first():
    alerts = [newcomer(1, "web", rank=3), newcomer(2, "db"), newcomer(3, "api")]
    assert [alert.service for alert in roots_first(alerts, GRAPH)] == ["db", "api", "web"]


# --- What caused it --------------------------------------------------------------------------------------------------
def suspect(service: str, alert: int, seconds: float = 0, rank: int = 1, count: int = 1) -> Suspect:
    return Suspect(service, alert, "x", AT + timedelta(seconds=seconds), rank, count)


def test_the_cause_is_what_most_of_the_others_depend_on_even_if_it_came_late():
    cause = probable_cause([suspect("web", 1), suspect("mail", 2, 5), suspect("db", 3, 40, rank=3)], GRAPH)
    assert cause is not None
    assert cause.alert == 3
    assert cause.reasons == (
        "2 other services of this incident depend on db", "it came 40 s after the first", "nothing else here is as bad",
    )  # fmt: skip


def test_without_a_graph_the_worst_then_the_first_is_the_cause():
    cause = probable_cause([suspect("", 1, 9, rank=3), suspect("", 2, 0)], {})
    assert cause is not None
    assert cause.alert == 1
    assert probable_cause([suspect("db", 1)], GRAPH).reasons == ()  # type: ignore[union-attr]
    assert probable_cause([], GRAPH) is None


# --- In the database -------------------------------------------------------------------------------------------------
def graph(**depends: tuple[str, ...]) -> None:
    made = {name: Service.objects.get_or_create(name=name)[0] for name in {*depends, *sum(depends.values(), ())}}
    for name, parents in depends.items():
        services.save_service(by=SETUP, values={}, depends_on=[made[p] for p in parents], service=made[name], now=START)


def post(name: str, service: str = "", severity: str = "warning", seconds: float = 0) -> Alert:
    now = START + timedelta(seconds=seconds)
    message = f"{name} of {service}"
    return services.post_alert(by=SETUP, type=name, severity=severity, message=message, service=service, now=now)


def play(*faults: str) -> list[Incident]:
    graph(**STORM.services)
    for one in STORM.of(*faults):
        given = {"type": one.name, "severity": one.severity, "message": one.message, "service": one.service}
        services.post_alert(by=SETUP, **given, now=START + one.after)  # type: ignore[arg-type]
    return list(Incident.objects.filter(state="open").order_by("pk"))


@pytest.mark.django_db
def test_the_storm_becomes_one_incident_with_its_root_named():
    [incident] = play("database")
    assert incident.alerts.count() >= 100
    assert incident.cause is not None
    assert (incident.cause.service, incident.cause.type) == ("postgres", "PostgresDown")
    assert incident.title == "PostgresDown on postgres-1"
    assert incident.reasons[0] == "10 other services of this incident depend on postgres"
    assert Alert.objects.active().count() / Incident.objects.filter(state="open").count() >= 10


@pytest.mark.django_db
def test_two_unrelated_faults_at_once_stay_two():
    found = play("database", "images")
    assert sorted((i.cause.service if i.cause else "") for i in found) == ["cdn", "postgres"]
    [images] = [i for i in found if i.cause and i.cause.service == "cdn"]
    assert set(images.alerts.values_list("service", flat=True)) == {"cdn", "images"}


@pytest.mark.django_db
def test_what_was_absorbed_says_where_it_went_and_every_move_is_a_transition():
    play("database")
    gone = Incident.objects.filter(state="resolved")
    assert gone
    assert all(incident.merged_into_id and not incident.alerts.exists() for incident in gone)
    assert set(Transition.objects.filter(kind="moved").values_list("before", flat=True)) == {str(i.pk) for i in gone}


@pytest.mark.django_db
def test_the_command_plays_the_storm_and_keeps_nothing(capsys):
    call_command("storm", "database", "images")
    said = capsys.readouterr().out
    assert "became 2 incidents" in said
    assert "probable cause postgres: PostgresDown on postgres-1; 10 other services" in said
    assert not Alert.objects.exists()


def test_the_alerts_of_a_rule_on_one_host_are_one_incident(world: World):
    world.rule("hot", "temperature", levels=[("warning", ">", 80.0)])
    world.rule("loud", "temperature * 2", levels=[("critical", ">", 80.0)])
    world.push(90, instance="a:1")
    world.tick(90, instance="a:1")
    assert Alert.objects.active().count() == 2
    [incident] = Incident.objects.all()
    assert incident.severity == "critical"
    assert set(Alert.objects.values_list("placement", flat=True)) == {"", "it has the same instance, a:1"}
    evaluation.evaluate(now=world.now)


@pytest.mark.django_db
def test_something_worse_takes_the_acknowledgement_back_and_more_of_the_same_does_not():
    first = post("slow", "db")
    services.acknowledge(by=SETUP, alert=first, now=START)
    post("lag", "db", seconds=1)
    incident = Incident.objects.get()
    assert incident.acknowledged_by == "test"
    post("down", "db", "critical", seconds=2)
    incident.refresh_from_db()
    assert (incident.severity, incident.acknowledged_at) == ("critical", None)


@pytest.mark.django_db
def test_an_incident_ends_with_its_last_alert_and_is_found_by_nothing_new():
    one, two = post("slow", "db"), post("lag", "db")
    services.resolve(by=SETUP, alert=one, now=START)
    assert Incident.objects.get().state == "open"
    services.resolve(by=SETUP, alert=two, now=START)
    assert Incident.objects.get().state == "resolved"
    assert not IncidentTrait.objects.exists()
    assert post("slow", "db", seconds=5).incident_id != one.incident_id


# --- By hand ---------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_merge_moves_everything_and_correlation_leaves_it_alone():
    one, two = post("slow", "cdn", "error"), post("lag", "db", "critical")
    assert one.incident is not None
    assert two.incident is not None
    merged = services.merge_incidents(by=SETUP, incident=one.incident, others=[two.incident], now=START)
    assert (merged.alerts.count(), merged.severity, merged.is_by_hand) == (2, "critical", True)
    two.incident.refresh_from_db()
    assert (two.incident.state, two.incident.merged_into) == ("resolved", merged)
    assert post("more", "db", seconds=1).incident == merged


@pytest.mark.django_db
def test_split_takes_alerts_into_an_incident_of_their_own():
    alerts = [post(name, "db") for name in ("a", "b", "c")]
    assert alerts[0].incident is not None
    own = services.split_incident(by=SETUP, incident=alerts[0].incident, alerts=alerts[1:], now=START)
    assert set(own.alerts.values_list("type", flat=True)) == {"b", "c"}
    assert Incident.objects.filter(state="open").count() == 2
    with pytest.raises(ValidationError, match="Something has to stay"):
        services.split_incident(by=SETUP, incident=own, alerts=alerts[1:], now=START)
    with pytest.raises(ValidationError, match="of this incident"):
        services.split_incident(by=SETUP, incident=own, alerts=alerts[:1], now=START)


@pytest.mark.django_db
def test_who_does_not_see_every_alert_moves_none():
    one, two = post("slow", "db"), post("lag", "web")
    narrow = Principal("user", "1", "n", ROLES["operator"], Scope((("service", "=", "db"),)))
    with pytest.raises(ValidationError, match="beyond what you may see"):
        services.merge_incidents(by=narrow, incident=_of(one), others=[_of(two)], now=START)


@pytest.mark.django_db
def test_an_incident_is_acknowledged_and_resolved_as_a_whole():
    play("database")
    [incident] = Incident.objects.filter(state="open")
    services.acknowledge_incident(by=SETUP, incident=incident, now=START + 10 * MINUTE)
    assert not Alert.objects.active().filter(acknowledged_at__isnull=True).exists()
    assert incident.acknowledged_by == "test"
    services.resolve_incident(by=SETUP, incident=incident, now=START + 20 * MINUTE)
    assert not Alert.objects.active().exists()
    assert incident.state == "resolved"


@pytest.mark.django_db
def test_dependencies_in_a_circle_are_refused_by_name():
    graph(web=("api",), api=("db",))
    with pytest.raises(ValidationError, match="circle: api → db → web → api"):
        graph(db=("web",))
    with pytest.raises(ValidationError, match="circle"):
        graph(db=("db",))


def _of(alert: Alert) -> Any:
    return alert.incident
