"""The test-bed of escalations: random incidents over random policies on a simulated clock, and everything goes wrong.

Two witnesses say what has to happen. `follow` is a model of its own: it walks the policies as they are written, with a
generator for a clock, and knows neither plans nor positions. Ten thousand incidents compare it with the machine, which
has to get by on what a row keeps from turn to turn. Some hundred more live in the database: their loops die between
two writes, contacts and people vanish, receivers refuse, policies are edited. Of each incident the steps taken, who was
told by each and who was told of its end have to be the model's; none may be left untold.
"""

import copy
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from apps.accounts.hours import Hours, parse_week, parse_zone
from apps.accounts.models import Calendar, Team, User
from apps.alerting.lifecycle import Severity
from apps.alerting.models import Alert, Transition
from apps.notifications.models import Contact
from apps.oncall import schedules, services
from apps.oncall.escalation import MOST_HAND_OVERS, Facts, Progress, advance, whole
from apps.oncall.models import Escalation, Notice, Policy, StepTaken
from apps.oncall.steps import steps as plugins
from tests.oncall.conftest import BY, START, Night

Step = dict[str, Any]
Policies = dict[str, list[Step]]
MINUTE = timedelta(minutes=1)
COOLDOWN = timedelta(minutes=5)
OFFICE = Hours(parse_zone("UTC"), parse_week("mon 22:00-22:50"))
TELLS = frozenset({"notify", "notify_person", "notify_team", "notify_schedule", "notify_round_robin"})


# --- Random policies -------------------------------------------------------------------------------------------------
Making = Callable[[random.Random], dict[str, Any]]

MAKE: dict[str, Making] = {
    "notify": lambda dice: {"contacts": dice.sample(["c0", "c1", "c2", "c3"], dice.choice([1, 1, 2]))},
    "notify_person": lambda dice: {"people": [dice.choice(["ann", "bob"])]},
    "notify_team": lambda dice: {"team": "crew"},
    "notify_schedule": lambda dice: {"schedule": "Gappy"},
    "notify_round_robin": lambda dice: {"people": ["ron", "rob"]},
    "wait": lambda dice: {"minutes": dice.choice([1, 2, 5, 10, 30])},
    "repeat": lambda dice: {"times": dice.choice([1, 1, 2])},
    "only_severity": lambda dice: {"severity": dice.choice(["error", "critical"]), "steps": dice.choice([1, 2])},
    "only_hours": lambda dice: dice.choice(
        [
            {"calendar": "Office", "outside": dice.random() < 0.5, "steps": dice.choice([1, 2])},
            {"hours": "mon 22:10-23:10", "zone": "UTC", "outside": dice.random() < 0.5, "steps": 1},
        ]
    ),
    "only_if_more_than": lambda dice: {"alerts": dice.choice([1, 3]), "minutes": dice.choice([5, 30]), "steps": 1},
    "only_if_unreached": lambda dice: {"steps": dice.choice([1, 1, 2])},
    "webhook": lambda dice: {"contact": "c0"},
    "hand_over": lambda dice: {"policy": f"p{dice.randrange(4)}"},
}
KINDS = [*MAKE, "notify", "notify", "wait", "wait", "only_if_unreached"]


def test_the_test_bed_knows_every_kind_of_step():
    assert set(MAKE) == set(plugins.all())


def random_steps(dice: random.Random, number: int, *, last: int = 3, most: int = 7) -> list[Step]:
    """Return the steps of the policy of that number, which hands over to later ones only."""
    made = []
    for _ in range(dice.randint(1, most)):
        kind = dice.choice(KINDS)
        config = MAKE[kind](dice)
        if kind == "hand_over":
            if number >= last:
                continue
            config["policy"] = f"p{dice.randint(number + 1, last)}"
        made.append({"kind": kind, "config": config})
    return made or [{"kind": "notify", "config": {"contacts": ["c1"]}}]


# --- The model -------------------------------------------------------------------------------------------------------
@dataclass
class Witness:
    """What the model may ask of the world, and what it has seen: (when, policy, number of the step)."""

    at: datetime
    severity: str
    reaches: Callable[[Step, datetime], bool]
    began: tuple[datetime, ...] = ()
    was_reached: Callable[[], bool] = lambda: False
    log: list[tuple[datetime, str, int]] = field(default_factory=list)

    def tell(self, step: Step) -> None:
        at = self.at
        self.was_reached = lambda: self.reaches(step, at)

    def holds(self, kind: str, config: Mapping[str, Any]) -> bool:
        match kind:
            case "only_severity":
                return Severity(self.severity).rank >= Severity(config["severity"]).rank
            case "only_hours":
                hours = OFFICE if config.get("calendar") else Hours(parse_zone("UTC"), parse_week(config["hours"]))
                return hours.covers(self.at) != bool(config.get("outside"))
            case "only_if_more_than":
                since = self.at - timedelta(minutes=config["minutes"])
                return len([at for at in self.began if since < at <= self.at]) > config["alerts"]
            case _:
                return not self.was_reached()


def follow(name: str, policies: Policies, seen: Witness, path: tuple[str, ...] = ()) -> Iterator[float]:
    """Take the steps of a policy as it is written; yields minutes to wait. Keeps its place by being where it is."""
    rounds = 0
    while True:
        left_out, has_waited, again = 0, False, False
        for number, step in enumerate(policies[name]):
            if left_out:
                left_out -= 1
                continue
            kind, config = step["kind"], step["config"]
            seen.log.append((seen.at, name, number))
            if kind == "wait":
                has_waited = True
                yield config["minutes"]
            elif kind == "repeat" and rounds < config["times"]:
                rounds, again = rounds + 1, True
                if not has_waited:
                    yield 1
                break
            elif kind in TELLS:
                seen.tell(step)
            elif kind.startswith("only") and not seen.holds(kind, config):
                left_out = config["steps"]
            elif kind == "hand_over":
                to = config["policy"]
                if policies.get(to) and to not in (*path, name) and len(path) < MOST_HAND_OVERS:
                    yield from follow(to, policies, seen, (*path, name))
                    return
        if not again:
            return


class Model:
    """One escalation by the model: `due` is when it goes on."""

    def __init__(self, seen: Witness) -> None:
        self.seen, self.due = seen, None
        self.name, self.policies = "", {}

    seen: Witness
    due: datetime | None
    policies: Policies

    def start(self, name: str, policies: Policies, at: datetime) -> None:
        self.name, self.policies = name, copy.deepcopy(policies)
        self.seen.was_reached = lambda: False
        self.again(at)

    def again(self, at: datetime) -> None:
        self.way, self.due = follow(self.name, self.policies, self.seen), at

    def take(self, at: datetime) -> None:
        self.seen.at = at
        minutes = next(self.way, None)
        self.due = None if minutes is None else at + timedelta(minutes=minutes)

    def die(self, at: datetime) -> None:
        """A model does not die."""


# --- The machine, on what a row keeps --------------------------------------------------------------------------------
class Machine:
    """One escalation by `advance`: from turn to turn nothing survives but `row`, a text."""

    def __init__(self, seen: Witness) -> None:
        self.seen, self.due = seen, None
        self.row = ""

    due: datetime | None

    def start(self, name: str, policies: Policies, at: datetime) -> None:
        numbered = {
            policy: [
                {**step, "config": {**step["config"], "contact": 1, "here": [policy, number]}}
                for number, step in enumerate(rows)
            ]
            for policy, rows in policies.items()
        }
        self.row = json.dumps({"plan": whole(name, numbered), "position": 0, "rounds": 0, "told": None})
        self.due = at

    def again(self, at: datetime) -> None:
        self.row = json.dumps({**json.loads(self.row), "position": 0, "rounds": 0})
        self.due = at

    def take(self, at: datetime) -> None:
        row, due, log = self._turn(at)
        self.row, self.due = json.dumps(row), due
        self.seen.log += log

    def die(self, at: datetime) -> None:
        """Do all of the work and lose it."""
        self._turn(at)

    def _turn(self, at: datetime) -> tuple[dict[str, Any], datetime | None, list[tuple[datetime, str, int]]]:
        row = json.loads(self.row)
        progress, has_waited = Progress(row["position"], row["rounds"]), None
        log = []
        while True:
            was_reached = row["told"] is not None and self.seen.reaches(
                row["told"][0], datetime.fromisoformat(row["told"][1])
            )
            facts = Facts(self.seen.began, {"Office": OFFICE}, was_reached)
            turn = advance(
                row["plan"], progress, now=at, severity=self.seen.severity, facts=facts, has_waited=has_waited
            )
            for taken in turn.taken:
                step = row["plan"][taken.at.position]
                policy, number = step["config"]["here"]
                log.append((at, policy, number))
                if taken.action is not None:
                    row["told"] = [step, at.isoformat()]
            progress, has_waited = turn.after, turn.has_waited
            if turn.due_at is None or turn.due_at > at:
                row["position"], row["rounds"] = progress.position, progress.rounds
                return row, turn.due_at, log


def coin(seed: int, step: Step, at: datetime, chances: int = 3) -> bool:
    """A world without contacts: whether a step reaches anybody then, the same whoever asks."""
    config = {name: value for name, value in step["config"].items() if name not in ("here", "contact")}
    told = json.dumps([seed, step["kind"], config, at.isoformat()], sort_keys=True)
    return random.Random(told).randrange(chances) > 0


def life(seed: int, kind: type[Model] | type[Machine]) -> list[tuple[datetime, str, int]]:
    """Let one incident happen to a model or a machine; whatever is random is the same for both."""
    dice = random.Random(seed)
    policies = {f"p{number}": random_steps(dice, number, most=12) for number in range(4)}
    if seed % 10 == 0:  # what cannot be saved, but may have been stored: a circle
        policies["p3"].append({"kind": "hand_over", "config": {"policy": dice.choice(["p0", "p1", "gone"])}})
    began = tuple(START + MINUTE * dice.randint(-30, 90) for _ in range(dice.randint(0, 8)))
    seen = Witness(START, dice.choice(list(Severity)).value, lambda step, at: coin(seed, step, at), began)
    happens = [
        (START + timedelta(seconds=dice.randint(0, 7200)), dice.choice(["edit", "edit", "worse", "acknowledge", "end"]))
        for _ in range(dice.randint(0, 4))
    ]
    late = [dice.choice([0, 0, 0, 1, 45]) for _ in range(50)]
    deaths = [dice.choice([0, 0, 0, 1, 3]) for _ in range(50)]
    escalation = kind(seen)
    escalation.start("p0", policies, START)
    acknowledged_for = dice.choice([None, 10 * MINUTE])
    for turn in range(500):
        happens.sort(key=lambda each: each[0])
        due = None if escalation.due is None else escalation.due + timedelta(seconds=late[turn % 50])
        if happens and (due is None or happens[0][0] <= due):
            at, what = happens.pop(0)
            match what:
                case "end":
                    return seen.log
                case "edit":
                    policies["p0"] = random_steps(random.Random(f"{seed} {at}"), 0, most=12)
                case "acknowledge" if escalation.due is not None:
                    escalation.due = None
                    happens += [] if acknowledged_for is None else [(at + acknowledged_for, "anew")]
                case "anew" if escalation.due is None:
                    escalation.start("p0", policies, at)
                case "worse" if escalation.due is not None:
                    seen.severity = "critical"
                    escalation.again(at)
        elif due is None or due > START + 600 * MINUTE:
            return seen.log
        else:
            for _ in range(deaths[turn % 50]):
                escalation.die(due)
            escalation.take(due)
    raise AssertionError(f"Incident {seed} does not come to its end.")


def check(seeds: range) -> int:
    """Compare both for each incident; return how many steps that were."""
    total = 0
    for seed in seeds:
        expected, happened = life(seed, Model), life(seed, Machine)
        assert happened == expected, f"incident {seed}"
        assert [at for at, *_ in happened] == sorted(at for at, *_ in happened)
        total += len(happened)
    return total


def test_the_machine_takes_the_steps_of_the_model():
    assert check(range(300)) > 1500


@pytest.mark.slow
def test_ten_thousand_incidents_take_each_step_once_and_in_order():
    assert check(range(10_000)) > 60_000


# --- In the database -------------------------------------------------------------------------------------------------
class Killed(BaseException):
    """The worker died between two writes."""


class Killer:
    """Lets the process die at a random write to on-call's or the outbox's tables."""

    def __init__(self, dice: random.Random) -> None:
        self.dice, self.left, self.deaths = dice, 0, 0

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        is_write = sql.startswith(("INSERT", "UPDATE", "DELETE")) and ("oncall_" in sql or "notifications_" in sql)
        if self.left and is_write:
            self.left -= 1
            if not self.left:
                self.deaths += 1
                raise Killed
        return execute(sql, params, many, context)

    def aim(self) -> None:
        """Choose the write at which it happens, or none."""
        self.left = self.dice.choice([0, self.dice.randint(1, 4), self.dice.randint(1, 20)])


class Bed(Night):
    """A night with a cast, policies that change, and a model beside each incident."""

    people = {"ann": "a", "bob": "b", "olga": "o", "ron": "r0", "rob": "r1", "tim": "t0", "tom": "t1"}

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.dice = random.Random(seed)
        self.killer = Killer(random.Random(seed + 1))
        self.gone: dict[str, datetime] = {}
        self.broken_at: dict[str, datetime] = {}
        self.contact("fall-back", is_fallback=True)
        for number in range(4):
            self.contact(f"c{number}")
        users = {name: User.objects.create_user(name) for name in self.people}
        for name, contact in self.people.items():
            self.contact(contact, owner=users[name])
        crew = Team.objects.create(name="crew")
        crew.members.set([users["tim"], users["tom"]])
        Calendar.objects.create(name="Office", zone="UTC", hours="mon 22:00-22:50")
        layer = {
            "name": "late",
            "people": [users["olga"].pk],
            "hours": "mon 22:00-22:40",
            "starts_at": START - 99 * MINUTE,
        }
        schedules.save_schedule(by=BY, name="Gappy", layers=[layer])
        self.route("root", group_by=["..."])
        self.policies: Policies = {}
        for number in (3, 2, 1, 0):
            self.edit(number)
            self.route(
                f"r{number}", is_root=False, matchers=[f'alertname=~"p{number}-.*"'], group_by=["..."],
                group_wait=MINUTE, policy=Policy.objects.get(name=f"p{number}"),
            )  # fmt: skip

    def edit(self, number: int) -> None:
        """Write new steps into a policy; those that run must not care."""
        name = f"p{number}"
        rows = [step for step in random_steps(self.dice, number) if not self._names_what_is_gone(step)]
        rows = rows or [{"kind": "wait", "config": {"minutes": 1}}]
        if name not in self.policies:
            self.kept_for = {**getattr(self, "kept_for", {}), name: self.dice.choice([None, 7 * MINUTE])}
        known = Policy.objects.filter(name=name).first()
        services.save_policy(by=BY, name=name, steps=rows, policy=known, acknowledged_for=self.kept_for[name])
        self.policies[name] = rows

    def _names_what_is_gone(self, step: Step) -> bool:
        config = step["config"]
        people = [self.people[name] for name in config.get("people", ())]
        return any(name in self.gone for name in [*config.get("contacts", ()), config.get("contact", ""), *people])

    def lives(self, contact: str, at: datetime) -> bool:
        return contact not in self.gone or at < self.gone[contact]

    def works(self, contact: str, at: datetime) -> bool:
        return contact not in self.broken_at or at < self.broken_at[contact]

    def chosen(self, step: Step, at: datetime) -> list[str]:
        """Return the contacts of those whom a step means at that time."""
        config = step["config"]
        match step["kind"]:
            case "notify":
                found = config["contacts"]
            case "notify_person":
                found = [self.people[name] for name in config["people"]]
            case "notify_team":
                found = ["t0", "t1"]
            case "notify_round_robin":
                found = ["r0", "r1"]
            case _:
                found = ["o"] if at < START + 40 * MINUTE else []
        return [contact for contact in found if self.lives(contact, at)]

    def run(self) -> None:
        """Run the loops until one of their runs is not killed; what was done before stays."""
        with connection.execute_wrapper(self.killer):
            for _ in range(20):
                self.killer.aim()
                try:
                    super().run()
                except Killed:
                    continue
                self.killer.left = 0
                return
        raise AssertionError("It was killed for ever.")


@dataclass
class Told:
    """What the model expects of a step: who is told by it. None: one of those who take turns."""

    step: tuple[datetime, str, int]
    names: set[str] | None


class Incident:
    """One alert with its model: what is done to it, and what has to come of it."""

    def __init__(self, bed: Bed, number: int) -> None:
        dice = bed.dice
        self.bed, self.policy = bed, f"p{dice.randrange(4)}"
        self.fires = START + MINUTE * dice.randint(0, 30)
        self.name = f"{self.policy}-{number}"
        self.alert: Alert | None = None
        self.seen = Witness(self.fires, dice.choice(["warning", "error", "critical"]), self.reaches)
        self.model = Model(self.seen)
        self.expected: list[Told] = []
        self.knows: dict[str, tuple[datetime, int]] = {}
        self.is_acknowledged = self.is_over = False
        self.anew: datetime | None = None
        half = timedelta(seconds=30)
        self.happens = sorted(
            (self.fires + half + MINUTE * dice.randint(0, 60), dice.choice(["worse", "acknowledge", "end"]))
            for _ in range(dice.choice([0, 0, 1, 1, 2]))
        )

    def reaches(self, step: Step, told_at: datetime) -> bool:
        now, bed = self.seen.at, self.bed
        chosen = bed.chosen(step, told_at)
        if now == told_at:
            return bool(chosen)
        # Whoever has not been told anew by it had been told before, and nothing says that it did not arrive.
        lost = {name for at, name in self.lost if at == told_at}
        return any(bed.lives(name, now) and name not in lost for name in chosen)

    @property
    def lost(self) -> set[tuple[datetime, str]]:
        return self.bed.__dict__.setdefault(f"lost {self.name}", set())

    def tick(self, now: datetime) -> bool:
        """Do what happens to it at that time, and let the model take what is due; tell whether there was anything."""
        is_busy = bool(self.happens and self.happens[0][0] <= now) or self.anew == now
        if now == self.fires:
            self.alert = self.bed.fire(self.name, severity=self.seen.severity)
        while self.happens and self.happens[0][0] <= now:
            self._happen(self.happens.pop(0)[1], now)
        if self.anew is not None and self.anew <= now and not self.is_over:
            self.anew, self.is_acknowledged = None, False
            self.model.start(self.policy, self.bed.policies, now)
        if now == self.fires + MINUTE and not (self.is_over or self.is_acknowledged):
            self.model.start(self.policy, self.bed.policies, now)
        if self.model.due is not None and self.model.due <= now:
            begins = len(self.seen.log)
            self.model.take(now)
            self._expect(begins, now)
            is_busy = True
        return is_busy

    def _happen(self, what: str, now: datetime) -> None:
        if self.alert is None or self.is_over:
            return
        if what == "end":
            self.end()
        elif what == "acknowledge" and not self.is_acknowledged:
            self.bed.acknowledge(self.alert)
            self.is_acknowledged = True
            kept = self.model.name and self.bed.kept_for[self.policy]
            self.model.due, self.anew = None, now + kept if kept else None
        elif what == "worse" and self.model.due is not None and self.seen.severity != "critical":
            self.get_worse(now)

    def get_worse(self, now: datetime) -> None:
        assert self.alert is not None
        Alert.objects.filter(pk=self.alert.pk).update(severity="critical")
        Transition.objects.create(
            alert=self.alert, incident=self.alert.incident, at=now, kind="severity", before=self.seen.severity,
            after="critical", reason="value", severity="critical", by="alerting.evaluate",
        )  # fmt: skip
        self.seen.severity = "critical"
        self.model.again(now)

    def end(self) -> None:
        assert self.alert is not None
        self.bed.end(self.alert)
        self.is_over, self.model.due = True, None

    def _expect(self, begins: int, now: datetime) -> None:
        """Say who is told by each step of a turn: nobody twice within the cooldown unless it got worse since."""
        rank, before = Severity(self.seen.severity).rank, dict(self.knows)
        for entry in self.seen.log[begins:]:
            _, policy, number = entry
            step = self.model.policies[policy][number]
            if step["kind"] not in TELLS:
                self.expected.append(Told(entry, set()))
                continue
            names = set()
            for name in self.bed.chosen(step, now):
                at, worst = before.get(name, (None, -1))
                if at is None or now - at >= COOLDOWN or rank > worst:
                    names.add(name)
                    if self.bed.works(name, now):
                        self.knows[name] = (now, rank)
                    else:
                        self.lost.add((now, name))
                        self.knows.pop(name, None)
            self.expected.append(Told(entry, None if step["kind"] == "notify_round_robin" else names))


def night_of(seed: int, incidents: int, minutes: int = 110) -> tuple[Bed, list[Incident]]:
    """Let a night happen: incidents come and go, contacts vanish or break, policies are edited, workers die."""
    bed = Bed(seed)
    cast = [Incident(bed, number) for number in range(incidents)]
    half = timedelta(seconds=30)
    trouble: dict[datetime, list[str]] = defaultdict(list)
    for what in ("delete c2", "delete c3", "close bob", "delete t0", "break c1", "break a", *["edit"] * 6):
        trouble[START + half + MINUTE * bed.dice.randint(1, minutes - 20)].append(what)
    for tick in range(2 * minutes):
        bed.now = START + half * tick
        for what in trouble[bed.now]:
            verb, _, name = what.partition(" ")
            match verb:
                case "delete":
                    bed.gone[name] = bed.now
                    Contact.objects.filter(name=name).delete()
                case "close":
                    bed.gone[bed.people[name]] = bed.now
                    User.objects.filter(username=name).update(is_active=False)
                case "break":
                    bed.broken_at[name] = bed.now
                    bed.broken.add(name)
                case _:
                    bed.edit(bed.dice.randrange(4))
        # Nothing is asked of the loops at a moment at which nothing happens: but each minute they run for nothing.
        busy = [incident.tick(bed.now) for incident in cast]
        if any(busy) or tick % 2 == 0:
            bed.run()
    return bed, cast


def judge(bed: Bed, cast: list[Incident]) -> None:
    """Compare what was written down with what the models expect, and see that nobody was left untold."""
    for incident in cast:
        alert = incident.alert
        assert alert is not None
        rows = StepTaken.objects.filter(escalation__incident=alert.incident).order_by("pk").select_related("escalation")
        plans = {row.escalation_id: row.escalation.plan["steps"] for row in rows}
        happened = []
        for row in rows:
            step = plans[row.escalation_id][row.position]
            happened.append((row.at, step.get("policy", incident.policy), row.position - step.get("begins", 0)))
        assert happened == [each.step for each in incident.expected], incident.name
        for row, each in zip(rows, incident.expected, strict=True):
            names = set(row.told) - {"fall-back"}
            if each.names is None:
                assert len(names) <= 1, (incident.name, row.reason)
                assert names <= {"r0", "r1"}
            else:
                assert names == each.names, (incident.name, row.reason, each.step)
        told = Notice.objects.filter(alert=alert, kind="firing")
        ran = Escalation.objects.filter(incident=alert.incident)
        if ran.filter(state="finished").exists():
            assert told.filter(delivery__state="sent").exists(), f"{incident.name} is lost"
        once = list(told.values_list("contact_name", "at"))
        assert len(once) == len(set(once)), f"{incident.name} was told twice at once"


def end_of(bed: Bed, cast: list[Incident]) -> None:
    """Let everything end: whoever was told, still exists and was reached is told so once, and nobody else is."""
    for incident in cast:
        if not incident.is_over:
            incident.end()
    bed.killer.left = 0
    for _ in range(15):
        bed.now += MINUTE
        bed.run()
    for incident in cast:
        notices = Notice.objects.filter(alert=incident.alert, contact__isnull=False)
        told = set(notices.filter(kind="firing", delivery__state="sent").values_list("contact_name", flat=True))
        ended = list(notices.filter(kind="resolved").values_list("contact_name", flat=True))
        assert sorted(ended) == sorted(told), incident.name
    assert not Escalation.objects.running().exists()


def test_a_short_night_is_told_as_the_model_says(db: None):
    bed, cast = night_of(1, incidents=8, minutes=30)
    judge(bed, cast)
    end_of(bed, cast)
    assert bed.killer.deaths > 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
def test_a_night_of_sixty_incidents_is_told_as_the_model_says(db: None, seed: int):
    bed, cast = night_of(seed, incidents=60)
    judge(bed, cast)
    end_of(bed, cast)
    assert bed.killer.deaths > 20
