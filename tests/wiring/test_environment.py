"""The environment: typed, from variables or files, and a wrong value is a sentence that names it."""

import re
from pathlib import Path

import pytest

from monitoring_portal import environment as env
from monitoring_portal import settings as module


@pytest.fixture(autouse=True)
def problems(monkeypatch):
    kept: list[tuple[str, str]] = []
    monkeypatch.setattr(env, "PROBLEMS", kept)
    return kept


@pytest.mark.parametrize(
    ("value", "read"), [("true", True), ("1", True), ("Yes", True), ("off", False), ("", False), ("0", False)]
)
def test_booleans_by_table(monkeypatch, value, read):
    monkeypatch.setenv("X", value)
    assert env.boolean("X", not read) is read


def test_a_wrong_value_falls_back_and_names_the_variable(monkeypatch, problems):
    monkeypatch.setenv("SMTP_PORT", "twenty-five")
    assert env.integer("SMTP_PORT", 25, 1, 65_535) == 25
    [(name, sentence)] = problems
    assert name == "SMTP_PORT"
    assert "'twenty-five', but must be a whole number" in sentence


def test_a_wrong_url_is_named(monkeypatch, problems):
    monkeypatch.setenv("REDIS_URL", "localhost:6379")
    assert env.url("REDIS_URL", "redis://x", "redis", "unix") == "redis://x"
    assert "redis://… or unix://…" in problems[0][1]


def test_a_value_can_stand_in_a_file(monkeypatch, tmp_path):
    (tmp_path / "token").write_text("s3cret\n")
    monkeypatch.setenv("WEBHOOK_TOKEN_FILE", str(tmp_path / "token"))
    assert env.text("WEBHOOK_TOKEN") == "s3cret"


def test_an_unreadable_file_is_named(monkeypatch, tmp_path, problems):
    monkeypatch.setenv("WEBHOOK_TOKEN_FILE", str(tmp_path / "absent"))
    assert env.text("WEBHOOK_TOKEN") == ""
    assert problems[0][0] == "WEBHOOK_TOKEN_FILE"


def test_the_secret_key_is_made_once_and_only_its_owner_reads_it(monkeypatch, tmp_path):
    monkeypatch.delenv("SECRET_KEY", raising=False)
    made = env.secret_key(tmp_path / "var")
    assert env.secret_key(tmp_path / "var") == made
    assert (tmp_path / "var" / "secret-key").stat().st_mode & 0o077 == 0


def test_the_version_is_the_changelogs_newest(tmp_path):
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 1.2.3 (2026-01-01)\n\n## 1.2.2\n")
    assert env.version(tmp_path / "CHANGELOG.md") == "1.2.3"


@pytest.mark.parametrize("value", ["0", "65536", "99999999999999999999", "-1", "2.5"])
def test_a_number_out_of_its_range_is_named_with_the_range(monkeypatch, problems, value):
    monkeypatch.setenv("SMTP_PORT", value)
    assert env.integer("SMTP_PORT", 25, 1, 65_535) == 25
    assert problems[0][1] == f"SMTP_PORT is {value!r}, but must be a whole number from 1 to 65535; 25 is used instead."


def test_a_word_that_is_no_choice_is_named_with_the_choices(monkeypatch, problems):
    monkeypatch.setenv("LOG_LEVEL", "loud")
    assert env.choice("LOG_LEVEL", "INFO", "DEBUG", "INFO") == "INFO"
    assert "one of DEBUG, INFO" in problems[0][1]
    monkeypatch.setenv("LOG_LEVEL", "debug")
    assert env.choice("LOG_LEVEL", "INFO", "DEBUG", "INFO") == "DEBUG"


def test_every_variable_that_the_settings_read_is_documented():
    read = re.findall(
        r'env\.(?:text|boolean|integer|choice|url|listing)\(\s*"(\w+)"', Path(module.__file__).read_text()
    )
    assert len(read) > 25
    page = (module.ROOT / "docs/how-to/run.md").read_text()
    assert [name for name in ["SECRET_KEY", *read] if f"`{name}" not in page] == []


@pytest.mark.parametrize("value", ["999.1.1.1/99", "10.0.0.0/8,fe80::x", "1.2.3"])
def test_a_wrong_network_is_named(monkeypatch, problems, value):
    monkeypatch.setenv("OUTBOUND_ALLOW", value)
    assert env.networks("OUTBOUND_ALLOW") == []
    assert problems[0][0] == "OUTBOUND_ALLOW"


def test_hosts_and_networks_are_taken(monkeypatch, problems):
    monkeypatch.setenv("OUTBOUND_ALLOW", "10.0.0.0/8, ::1, hooks.internal")
    assert env.networks("OUTBOUND_ALLOW") == ["10.0.0.0/8", "::1", "hooks.internal"]
    assert not problems


def test_a_data_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path, problems):
    monkeypatch.delenv("SECRET_KEY", raising=False)
    (tmp_path / "file").write_text("")
    assert env.secret_key(tmp_path / "file" / "var")
    assert problems[0][0] == "PORTAL_DATA"
