"""People of each role and alerts, for tests of pages and of the live connection."""

import pytest
from django.contrib.auth.models import Group
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.permissions import ROLES, Principal
from apps.alerting import services as alerting
from monitoring_portal import celery


@pytest.fixture(autouse=True)
def broker():
    """The broker is the run's own server, as in the processes: a wake-up must not wait for one that is not there."""
    celery.configure()


@pytest.fixture
def person(db):
    """Return a function that makes a person with roles: person("operator"). Hashing a password takes its time."""

    def make(*roles, name=None, password=None):
        user = User.objects.create_user(name or "-".join(roles) or "nobody", password=password)
        for role in roles:
            assert role in ROLES
            user.groups.add(Group.objects.get_or_create(name=role)[0])
        return user

    return make


@pytest.fixture
def post():
    """Return a function that posts an alert from outside, as a program does."""

    def send(message="It burns", severity="critical", type="fire", service="shop"):  # noqa: A002
        by = Principal.system("test", via="api")
        return alerting.post_alert(
            by=by, type=type, severity=severity, message=message, service=service, now=timezone.now()
        )

    return send
