"""Reads the scrape_configs of a prometheus.yml: the settings of jobs, and by name what could not be carried over. Pure.

Source: prometheus.io/docs/prometheus/latest/configuration/configuration (scrape_config).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import PurePath
from typing import Any, Final

import yaml

from apps.promql.lexer import parse_duration
from apps.promql.text import duration

LARGEST: Final = 4 * 2**20
"""Characters of a file."""
MOST_NODES: Final = 500_000
"""Nodes of a file with every alias counted as what it stands for."""
MOST_JOBS: Final = 1_000
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SIZE: Final = re.compile(r"(\d+)([KMGTPE]?)i?B?", re.I)
_POWERS: Final[Mapping[str, int]] = {
    letter: 1 << 10 * power for power, letter in enumerate(("", "K", "M", "G", "T", "P", "E"))
}
_PLAIN: Final = {"job_name", "scheme", "metrics_path", "honor_labels", "honor_timestamps", "follow_redirects"}
_NO_EFFECT: Final = {
    "scrape_protocols": None,
    "fallback_scrape_protocol": None,
    "enable_compression": None,
    "track_timestamps_staleness": None,
    "keep_dropped_targets": None,
    "metric_name_validation_scheme": None,
    "metric_name_escaping_scheme": None,
}
"""Settings whose absence here changes no sample; they are left out without a word."""

ReadFile = Callable[[str], str]


class BadConfig(ValueError):
    """A file that is no configuration of Prometheus; the text says why."""


@dataclass
class Read:
    """Jobs by their settings as `ScrapeJob` has them, the secrets of each, and what was left out."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    secrets: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(text: str, *, folder: str | None = None, read_file: ReadFile | None = None) -> Read:
    """Read a prometheus.yml. Raises BadConfig.

    `folder` is where relative names of files begin; `read_file` returns the text of a file (OSError where it cannot).
    Without them what files hold is noted as left out.
    """
    config = _loaded(text)
    every = config.get("global") or {}
    if not isinstance(every, dict):
        raise BadConfig("global should be a mapping.")
    found = Read()
    if every.get("external_labels"):
        found.notes.append("global: external_labels are not added to series here.")
    if config.get("scrape_config_files"):
        found.notes.append("scrape_config_files: import each of these files by itself.")
    listed = config.get("scrape_configs") or []
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise BadConfig("scrape_configs should be a list of mappings.")
    if len(listed) > MOST_JOBS:
        raise BadConfig(f"It has {len(listed)} jobs, more than {MOST_JOBS}.")
    for number, one in enumerate(listed, start=1):
        name = one.get("job_name")
        if not isinstance(name, str) or not name:
            raise BadConfig(f"The job number {number} has no job_name.")
        if any(job["name"] == name for job in found.jobs):
            raise BadConfig(f"Two jobs are called {name}.")
        try:
            values, secrets = _Job(one, every, found.notes, folder, read_file).read()
        except (TypeError, AttributeError, ValueError) as error:
            raise BadConfig(f"The job {name}: {error}.") from None
        found.jobs.append(values)
        found.secrets.append(secrets)
    return found


def _loaded(text: str) -> dict[str, Any]:
    if len(text) > LARGEST:
        raise BadConfig(f"It has {len(text)} characters, more than {LARGEST}.")
    try:
        loader = _LOADER(text)
        try:
            config = loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" in line {mark.line + 1}"
        raise BadConfig(f"It is no YAML{place}.") from None
    if not isinstance(config, dict):
        raise BadConfig("It should be a mapping with scrape_configs.")
    if sum(1 for _ in _nodes(config, MOST_NODES)) > MOST_NODES:
        raise BadConfig(f"It unfolds to more than {MOST_NODES} nodes.")
    return config


def _nodes(root: object, most: int) -> Iterator[object]:
    """Every node, those behind aliases each time, until there are more than `most`."""
    waiting, count = [root], 0
    while waiting and count <= most:
        node = waiting.pop()
        count += 1
        yield node
        if isinstance(node, dict):
            waiting += [*node.keys(), *node.values()]
        elif isinstance(node, list):
            waiting += node


class _Job:
    """One scrape_config on its way to a job."""

    def __init__(
        self, config: Mapping[str, Any], every: Mapping[str, Any], notes: list[str], folder: str | None,
        read_file: ReadFile | None,
    ) -> None:  # fmt: skip
        self.config, self.every, self.notes, self.folder, self.read_file = config, every, notes, folder, read_file
        self.name = str(config["job_name"])
        self.left = set(config) - set(_NO_EFFECT)
        self.secrets: dict[str, str] = {}

    def note(self, text: str) -> None:
        self.notes.append(f"{self.name}: {text}")

    def get(self, name: str, default: Any = None) -> Any:
        self.left.discard(name)
        value = self.config.get(name, default)
        return default if value is None else value

    def read(self) -> tuple[dict[str, Any], dict[str, str]]:
        interval = _time(self.get("scrape_interval", self.every.get("scrape_interval", "1m")))
        timeout = _time(self.get("scrape_timeout", self.every.get("scrape_timeout", "10s")))
        self.get("job_name")
        values: dict[str, Any] = {
            "name": self.name,
            "interval": interval,
            "timeout": min(timeout, interval),
            "scheme": str(self.get("scheme", "http")).lower(),
            "metrics_path": str(self.get("metrics_path", "/metrics")),
            "params": {str(key): [str(one) for one in some] for key, some in self.get("params", {}).items()},
            "honor_labels": bool(self.get("honor_labels", False)),
            "honor_timestamps": bool(self.get("honor_timestamps", True)),
            "follow_redirects": bool(self.get("follow_redirects", True)),
            "targets": [
                {
                    "targets": [str(one) for one in group.get("targets") or []],
                    "labels": {str(key): str(text) for key, text in (group.get("labels") or {}).items()},
                }
                for group in self.get("static_configs", [])
            ],
            "file_sd": self._file_sd(),
            "http_sd": self._http_sd(),
            "relabel": [self._rule(rule) for rule in self.get("relabel_configs", [])],
            "metric_relabel": [self._rule(rule) for rule in self.get("metric_relabel_configs", [])],
            **self._limits(),
            **self._credentials(),
            **self._tls(),
        }
        for name in sorted(self.left):
            kind = "targets are discovered by" if name.endswith("_sd_configs") else "there is nothing here for"
            self.note(f"{kind} {name}, which was left out.")
        return values, self.secrets

    def _rule(self, rule: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in rule.items() if value is not None}

    def _file_sd(self) -> list[dict[str, Any]]:
        found = []
        for one in self.get("file_sd_configs", []):
            names = []
            for name in map(str, one.get("files") or []):
                if PurePath(name).is_absolute():
                    names.append(name)
                elif self.folder is not None:
                    names.append(str(PurePath(self.folder) / name))
                else:
                    self.note(f"the file {name} of file_sd_configs is not named from the root and was left out.")
            if names:
                every = _time(one.get("refresh_interval", "5m")).total_seconds()
                found.append({"files": names, "refresh_interval": min(max(every, 5), 86_400)})
        return found

    def _http_sd(self) -> list[dict[str, Any]]:
        found = []
        for one in self.get("http_sd_configs", []):
            every = _time(one.get("refresh_interval", "1m")).total_seconds()
            found.append({"url": str(one["url"]), "refresh_interval": min(max(every, 5), 86_400)})
            if extra := sorted(set(one) - {"url", "refresh_interval"}):
                self.note(f"{', '.join(extra)} of http_sd_configs was left out.")
        return found

    def _limits(self) -> dict[str, int]:
        """Zero means unlimited there; here the portal's own limit stays."""
        found: dict[str, int] = {}
        for name, own, most in (
            ("sample_limit", "sample_limit", 2_000_000_000),
            ("label_limit", "label_limit", 30),
            ("label_name_length_limit", "label_name_limit", 200),
            ("label_value_length_limit", "label_value_limit", 1024),
        ):
            value = int(self.get(name, 0))
            if value > most:
                self.note(f"{name} is {value}; the store takes {most} at most.")
            if value:
                found[own] = min(value, most)
        size = _bytes(self.get("body_size_limit", 0))
        if size > 100_000_000:
            self.note(f"body_size_limit is {size} bytes; 100 MB are taken at most.")
        if size:
            found["body_limit"] = min(size, 100_000_000)
        self.get("target_limit")
        return found

    def _credentials(self) -> dict[str, str]:
        basic, bearer = self.get("basic_auth", {}), self.get("authorization", {})
        old = self.get("bearer_token", ""), self.get("bearer_token_file", "")
        if basic:
            secret = self._secret(basic, "password", "basic_auth")
            user = str(basic.get("username", ""))
            return self._known("basic", user, secret)
        if bearer or any(old):
            bearer = bearer or {"credentials": old[0], "credentials_file": old[1]}
            secret = self._secret(bearer, "credentials", "authorization")
            kind = str(bearer.get("type", "Bearer")).strip()
            if kind.lower() == "bearer":
                return self._known("bearer", "", secret)
            return self._known("header", "Authorization", secret and f"{kind} {secret}")
        return {"auth": "none", "auth_name": ""}

    def _known(self, auth: str, name: str, secret: str) -> dict[str, str]:
        if not secret:
            self.note("its credentials are not in the file: enter them on the job's page.")
            return {"auth": "none", "auth_name": ""}
        self.secrets["credential"] = secret
        return {"auth": auth, "auth_name": name}

    def _secret(self, config: Mapping[str, Any], name: str, where: str) -> str:
        if config.get(name):
            return str(config[name])
        if file := config.get(f"{name}_file"):
            return self._text_of(str(file), f"{name}_file of {where}").strip()
        return ""

    def _tls(self) -> dict[str, Any]:
        config = self.get("tls_config", {})
        if key := self._part(config, "key"):
            self.secrets["client_key"] = key
        for name in sorted(
            set(config)
            - {"ca", "ca_file", "cert", "cert_file", "key", "key_file", "server_name", "insecure_skip_verify"}
        ):
            self.note(f"{name} of tls_config was left out.")
        return {
            "ca": self._part(config, "ca"),
            "certificate": self._part(config, "cert"),
            "server_name": str(config.get("server_name") or ""),
            "insecure": bool(config.get("insecure_skip_verify", False)),
        }

    def _part(self, config: Mapping[str, Any], name: str) -> str:
        if config.get(name):
            return str(config[name])
        file = config.get(f"{name}_file")
        return self._text_of(str(file), f"{name}_file of tls_config") if file else ""

    def _text_of(self, name: str, what: str) -> str:
        if self.read_file is None:
            self.note(f"{what} names a file, whose text is to be entered on the job's page.")
            return ""
        path = name if PurePath(name).is_absolute() or self.folder is None else str(PurePath(self.folder) / name)
        try:
            return self.read_file(path)
        except (OSError, UnicodeDecodeError) as error:
            self.note(f"{what} cannot be read: {error}.")
            return ""


def _time(value: object) -> timedelta:
    try:
        return timedelta(milliseconds=parse_duration(str(value)))
    except ValueError:
        raise ValueError(f"{str(value)[:40]!r} is no duration such as {duration(30_000)}") from None


def _bytes(value: object) -> int:
    found = _SIZE.fullmatch(str(value).strip())
    if found is None:
        raise ValueError(f"{str(value)[:40]!r} is no size such as 10MB")
    return int(found[1]) * _POWERS[found[2].upper()]
