"""What is wrong in the environment is a numbered sentence of `manage.py check`."""

import pytest

from monitoring_portal import environment, environment_checks


def test_every_problem_of_the_environment_names_its_variable(monkeypatch):
    monkeypatch.setattr(environment, "PROBLEMS", [("SMTP_PORT", "SMTP_PORT is 'x', but must be a whole number.")])
    [found] = environment_checks.environment_values()
    assert (found.id, found.msg) == ("portal.E001", "SMTP_PORT is 'x', but must be a whole number.")
    assert "SMTP_PORT" in str(found.hint)


@pytest.mark.parametrize(("enabled", "warned"), [(True, False), (False, True)])
def test_an_open_api_is_a_warning(settings, enabled, warned):
    settings.MONITORING_AUTH_ENABLED = enabled
    assert bool(environment_checks.open_monitoring_api()) is warned


@pytest.mark.parametrize(("token", "warned"), [("", False), ("short", True), ("x" * 15, True), ("x" * 16, False)])
def test_a_short_token_is_a_warning(settings, token, warned):
    settings.MONITORING_AUTH_TOKEN = token
    assert bool(environment_checks.short_token()) is warned
