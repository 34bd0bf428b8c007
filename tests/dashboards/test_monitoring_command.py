"""`manage.py monitoring`: odd arguments are told in a sentence."""

import io

import pytest
from django.core.management import CommandError, call_command

from apps.dashboards.management.commands.monitoring import _health_text


@pytest.mark.parametrize("url", ["nonsense", "http://[::1", "http://127.0.0.1:1"])
def test_an_address_where_no_portal_is_counts_as_unreachable(url):
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("monitoring", "health", "--url", url, stdout=out)
    assert ended.value.code == 1
    assert out.getvalue().startswith("unreachable: No portal answers at ")


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "often"])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(CommandError, match="interval"):
        call_command("monitoring", "watch", "--interval", interval)


@pytest.mark.parametrize(
    ("answer", "hinted"),
    [
        ({"status": "healthy"}, False),
        ({"status": "degraded"}, True),
        ({"status": "degraded", "checks": {"beat": {"status": "fail", "message": "It is late."}}}, False),
        ({"status": "unreachable", "message": "No portal answers."}, False),
    ],
)
def test_a_verdict_without_its_checks_says_how_to_see_them(answer, hinted):
    assert ("--token" in _health_text(answer)) is hinted
