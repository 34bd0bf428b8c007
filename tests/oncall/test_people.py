"""Steps that tell people: by name, by team, in turn; and what happens where somebody cannot be told."""

from datetime import timedelta

import pytest

from apps.accounts.models import Team, User
from apps.notifications.models import Delivery
from apps.oncall.models import Escalation, RoundRobin
from tests.oncall.conftest import Night


@pytest.fixture
def people(night: Night) -> dict[str, User]:
    found = {name: User.objects.create_user(name) for name in ("anna", "ben", "carla")}
    for name, person in found.items():
        night.contact(f"{name}-mail", owner=person)
    night.contact("fallback", is_fallback=True)
    return found


def ids(*people: User) -> list[int]:
    return [person.pk for person in people]


def test_people_are_told_by_their_own_contacts(night: Night, people: dict[str, User]):
    night.contact("anna-phone", owner=people["anna"])
    night.route(policy=night.policy(("notify_person", {"people": ids(people["anna"], people["ben"])})))
    night.fire()
    night.wait(minutes=1)
    assert night.texts("anna-mail") == night.texts("anna-phone") == night.texts("ben-mail") == "30s +disk"
    assert night.texts("carla-mail") == night.texts("fallback") == ""


def test_every_member_of_a_team_is_told(night: Night, people: dict[str, User]):
    team = Team.objects.create(name="Web")
    team.members.set([people["ben"], people["carla"]])
    night.route(policy=night.policy(("notify_team", {"team": "Web"})))
    night.fire()
    night.wait(minutes=1)
    assert night.texts("ben-mail") == night.texts("carla-mail") == "30s +disk"
    assert night.texts("anna-mail") == night.texts("fallback") == ""


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("gone", "is gone or switched off"),
        ("switched off", "anna is gone or switched off"),
        ("no contact", "anna has no contact that is on"),
    ],
)
def test_a_person_who_cannot_be_told_leaves_it_to_the_fallback(
    night: Night, people: dict[str, User], trouble: str, words: str
):
    night.route(policy=night.policy(("notify_person", {"people": ids(people["anna"])}), ("wait", {"minutes": 5})))
    if trouble == "gone":
        people["anna"].delete()
    elif trouble == "switched off":
        User.objects.filter(pk=people["anna"].pk).update(is_active=False)
    else:
        people["anna"].contacts.update(enabled=False)
    night.fire()
    night.wait(minutes=1)
    assert night.texts("fallback") == "30s +disk"
    assert words in night.escalation.reason
    assert "the fall-back contact is told" in night.escalation.reason


def test_what_waits_for_a_person_who_is_deleted_is_told_to_the_fallback(night: Night, people: dict[str, User]):
    people["anna"].contacts.update(default_after=timedelta(minutes=10))
    night.route(policy=night.policy(("notify_person", {"people": ids(people["anna"])})))
    night.fire()
    night.wait(minutes=1)
    assert night.texts("fallback") == ""
    people["anna"].delete()
    night.wait(minutes=15)
    assert night.texts("fallback") == "60s +disk"
    assert not Delivery.objects.filter(state__in=("held", "queued")).exists()


@pytest.mark.parametrize(("is_there", "words"), [(True, "the team Web has no members"), (False, "the team is gone")])
def test_an_empty_team_leaves_it_to_the_fallback(night: Night, people: dict[str, User], is_there: bool, words: str):
    team = Team.objects.create(name="Web")
    night.route(policy=night.policy(("notify_team", {"team": team.pk})))
    if not is_there:
        team.delete()
    night.fire()
    night.wait(minutes=1)
    assert night.texts("fallback") == "30s +disk"
    assert words in night.escalation.reason


def test_the_turn_goes_on_with_each_incident(night: Night, people: dict[str, User]):
    night.route(policy=night.policy(("notify_round_robin", {"people": ids(*people.values())})), group_by=["..."])
    for name in ("one", "two", "three", "four"):
        night.fire(name)
        night.wait(minutes=1)
    told = {name: night.texts(f"{name}-mail") for name in people}
    assert told == {"anna": "30s +one; 210s +four", "ben": "90s +two", "carla": "150s +three"}
    assert "it is the turn of anna" in str(Escalation.objects.latest("pk").reason)


def test_in_turn_passes_over_who_has_no_contact(night: Night, people: dict[str, User]):
    team = Team.objects.create(name="Web")
    team.members.set([people["anna"], people["ben"]])
    people["anna"].contacts.update(enabled=False)
    night.route(policy=night.policy(("notify_round_robin", {"team": team.pk})))
    night.fire()
    night.wait(minutes=1)
    assert night.texts("ben-mail") == "30s +disk"
    assert "it is the turn of ben; anna has no contact that is on" in night.escalation.reason


def test_a_step_that_was_held_keeps_its_turn(night: Night, people: dict[str, User]):
    night.route(policy=night.policy(("notify_round_robin", {"people": ids(*people.values())})))
    first = night.fire()
    night.wait(minutes=1)
    night.end(first)
    night.wait(minutes=1)
    RoundRobin.objects.update(last=people["carla"].pk)  # so anna, who was told a minute ago, is next
    night.fire()
    night.wait(minutes=6)
    assert night.texts("anna-mail") == "30s +disk; 90s -disk; 330s +disk"
    assert night.texts("ben-mail") == ""
    assert RoundRobin.objects.get().last == people["anna"].pk


def test_each_further_round_asks_the_next(night: Night, people: dict[str, User]):
    steps = (
        ("notify_round_robin", {"people": ids(*people.values())}),
        ("wait", {"minutes": 10}),
        ("repeat", {"times": 1}),
    )
    night.route(policy=night.policy(*steps), repeat_interval=timedelta(hours=4))
    night.fire()
    night.wait(minutes=12)
    assert (night.texts("anna-mail"), night.texts("ben-mail")) == ("30s +disk", "630s +disk")
