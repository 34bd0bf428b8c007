#!/usr/bin/env python3
"""Django's command line. It finds the environment by itself, and the servers of the portal that runs here."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# These only look at code, or ask the portal over HTTP.
NEED_NO_SERVER = {
    "",
    "check",
    "collectstatic",
    "compilemessages",
    "diffsettings",
    "findstatic",
    "help",
    "makemessages",
    "version",
}
ASK_OVER_HTTP = {"health", "watch", "dashboard", "help", ""}
# These look at the models through a database, but at no data in it.
NEED_ANY_SERVER = {"docs", "makemigrations", "spectacular", "sqlmigrate", "squashmigrations"}


def main() -> int:
    """Run one command inside the environment, with the right servers."""
    try:
        import django  # noqa: F401 - is it here?
    except ImportError:
        enter_environment()
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "monitoring_portal.settings")
    from monitoring_portal import embedded, throwaway

    servers = None
    if not (embedded.given(ROOT, "DATABASE_URL") and embedded.given(ROOT, "REDIS_URL")):
        data = embedded.data_folder(ROOT)
        sockets = embedded.socket_folder(data)
        state = embedded.running(data)
        if not state and needs() == "any":
            servers = throwaway.Servers()
        elif not state and needs() == "running":
            sys.stderr.write(
                "The portal is not running here, and this command needs its database: start it with ./portal run "
                "(in another terminal), or set DATABASE_URL and REDIS_URL.\n"
            )
            return 1
        places = {"DATABASE_URL": embedded.postgres_url(sockets), "REDIS_URL": embedded.valkey_url(sockets)}
        for name, place in places.items():
            if not embedded.given(ROOT, name):
                os.environ[name] = state.get(name.lower()) or place
        if state.get("started_at"):
            os.environ.setdefault("PORTAL_STARTED_AT", str(state["started_at"]))  # The uptime is the portal's.
        if state.get("url") and not embedded.given(ROOT, "PORTAL_URL"):
            os.environ["PORTAL_URL"] = state["url"]  # Its port may not be the usual one.
    try:
        if servers is not None:
            servers.start()
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except embedded.Refused as refusal:
        sys.stderr.write(f"{refusal}\n")
        return 2
    finally:
        if servers is not None:
            servers.stop()
    return 0


def needs() -> str:
    """Which servers the command on the command line needs: "none", "any" or "running" ones."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    command, verb = [*words, "", ""][:2]
    if {"--help", "-h", "--version"} & set(sys.argv[1:]) or command in NEED_NO_SERVER:
        return "none"
    if (command == "monitoring" and verb in ASK_OVER_HTTP) or (command, verb) == ("rules", "test"):
        return "none"  # Unit tests of rule files have a store of their own, in memory.
    return "any" if command in NEED_ANY_SERVER else "running"


def enter_environment() -> None:
    """Start again with the environment's Python; `./portal` makes the environment where there is none."""
    python = ROOT / ".venv" / "bin" / "python"
    if os.environ.get("PORTAL_ENTERED"):
        sys.exit(
            f"Django is missing in {ROOT / '.venv'}: delete that folder and run ./portal manage, which makes it anew."
        )
    os.environ["PORTAL_ENTERED"] = "1"
    if python.exists():
        os.execv(python, [str(python), str(ROOT / "manage.py"), *sys.argv[1:]])  # noqa: S606
    os.execv(sys.executable, [sys.executable, str(ROOT / "portal"), "manage", *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
