"""`./portal check`: every check that is not a test, a line each with its time, and in full only what failed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from monitoring_portal import throwaway
from monitoring_portal.embedded import Refused

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

# As in production behind HTTPS, where Django's deployment checks have their full say.
DEPLOYED = {
    "PORTAL_URL": "https://portal.example.org",
    "ALLOWED_HOSTS": "portal.example.org",
    "SECRET_KEY": "check-only-" + "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
}
MANAGE = (sys.executable, str(ROOT / "manage.py"))
STEPS: tuple[tuple[str, tuple[str, ...], dict[str, str]], ...] = (
    ("format", (str(BIN / "ruff"), "format", "--check", "."), {}),
    ("lint", (str(BIN / "ruff"), "check", "."), {}),
    ("types", (str(BIN / "mypy"), "."), {}),
    ("contracts", (str(BIN / "lint-imports"),), {}),
    ("deployment", (*MANAGE, "check", "--deploy", "--fail-level", "WARNING"), DEPLOYED),
    ("migrations", (*MANAGE, "makemigrations", "--check", "--dry-run"), {}),
    ("docs", (*MANAGE, "docs", "--check"), {}),
)


def command(arguments: tuple[str, ...], extra: dict[str, str]) -> str:
    """Run one step; the empty string when it passed, else what it said."""
    done = subprocess.run(
        arguments,
        cwd=ROOT,
        env={**os.environ, **extra},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"


def locked(path: Path) -> dict[str, set[Version]]:
    """The packages of a lock file with their versions (more than one where markers tell them apart)."""
    found: dict[str, set[Version]] = {}
    for match in re.finditer(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", path.read_text(), re.MULTILINE):
        found.setdefault(canonicalize_name(match[1]), set()).add(Version(match[2]))
    return found


def locks() -> str:
    """Whether the locks hold what pyproject.toml asks for, with hashes, without addresses; needs no network."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    asked = {
        "requirements.lock": project["project"]["dependencies"],
        "requirements-dev.lock": [*project["project"]["dependencies"], *groups["dev"]],
        "requirements-browser.lock": groups["browser"],
        "requirements-boot.lock": ["uv"],
    }
    problems = []
    for name, wishes in asked.items():
        text = (ROOT / name).read_text()
        versions = locked(ROOT / name)
        if "://" in text:
            problems.append(f"{name} holds an address: make it with --no-emit-index-url.")
        problems += [
            f"{name}: {block.split()[0]} has no hash."
            for block in re.split(r"\n(?=\S)", text)
            if "==" in block and "--hash" not in block
        ]
        for wish in map(Requirement, wishes):
            found = versions.get(canonicalize_name(wish.name), set())
            if not any(version in wish.specifier for version in found):
                problems.append(f"{name} does not hold {wish}: lock again.")
    return "\n".join(problems)


def main() -> int:
    """Run every step, also after a failure; 1 when one failed."""
    servers = throwaway.Servers()
    failed = []
    try:
        servers.start()
        steps: list[tuple[str, Callable[[], str]]] = [
            (name, lambda arguments=arguments, extra=extra: command(arguments, extra))
            for name, arguments, extra in STEPS
        ]
        for name, step in [*steps, ("locks", locks)]:
            start = time.monotonic()
            said = step()
            sys.stdout.write(f"{'FAILED' if said else 'ok':6} {name:12} {time.monotonic() - start:5.1f} s\n")
            if said:
                failed.append(name)
                sys.stdout.write(said + "\n")
            sys.stdout.flush()
    except Refused as refusal:
        sys.stderr.write(f"portal: {refusal}\n")
        return 2
    finally:
        servers.stop()
    sys.stdout.write(
        f"{len(failed)} of {len(steps) + 1} checks failed: {', '.join(failed)}\n" if failed else "All checks passed\n"
    )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
