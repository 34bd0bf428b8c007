"""`manage.py rules`: import and export rule files of Prometheus, and run unit tests of rules in promtool's format."""

import glob
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.text import slugify

from apps.accounts.permissions import Principal
from apps.alerting import plainrules, rulefiles, ruletests, services
from apps.alerting.models import RuleGroup
from apps.alerting.plainrules import DEFAULT_TARGET
from apps.alerting.rulefiles import RuleFileError
from apps.alerting.services.rulefiles import REMOVALS, Report, promtool_tests
from apps.alerting.services.ruletests import standalone

BY: Final = Principal.system("manage.py rules", via="command")
MOST: Final = 5_000_000
"""Evaluations that one file of tests may take here, where nobody waits for a page."""
SIGNS: Final = {"new": "+", "changed": "~", "removed": "-", "kept": "=", "unchanged": " "}


class Command(BaseCommand):
    help = "import: take over rule files of Prometheus; export: write one; test: run unit tests as promtool does."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        load = verbs.add_parser("import", help="take over rule files, all or nothing; twice changes nothing")
        load.add_argument("files", nargs="+", help="files or patterns; - is stdin")
        load.add_argument("--dry-run", action="store_true", help="only say what would change")
        load.add_argument(
            "--remove", choices=REMOVALS, default="nothing",
            help="what is not in the files: stays (nothing), goes from the groups that are in them, or goes (all)",
        )  # fmt: skip
        load.add_argument("--although-tests-fail", action="store_true", help="import even so; the audit says it")
        load.add_argument("--all", action="store_true", help="list what stays unchanged, too")
        save = verbs.add_parser("export", help="write the rules as a rule file")
        save.add_argument("--target", default=DEFAULT_TARGET, help="version of Prometheus (default %(default)s)")
        save.add_argument("--group", action="append", default=[], help="only this group; can be repeated")
        save.add_argument("--output", "-o", default="-", help="file to write (default: stdout)")
        save.add_argument("--partial", action="store_true", help="leave out what the target does not have")
        save.add_argument("--tests", help="directory for the unit tests that stand with the rules; needs --output")
        check = verbs.add_parser("test", help="run files of unit tests; exit 1 when one fails")
        check.add_argument("files", nargs="+", help="files of tests; their rule_files are found beside them")

    def handle(self, *args: Any, **options: Any) -> None:
        problem = getattr(self, f"_{options['verb']}")(options)
        if problem:
            raise CommandError(problem, returncode=1)

    # Import

    def _import(self, options: dict[str, Any]) -> str:
        files = [(name, _text(name)) for name in _found(options["files"])]
        try:
            report = services.import_rules(
                by=BY,
                files=files,
                dry_run=options["dry_run"],
                remove=options["remove"],
                although_tests_fail=options["although_tests_fail"],
                now=timezone.now(),
            )
        except ValidationError as error:
            return "Nothing was imported.\n" + "\n".join(error.messages)
        self._show(report, options["all"])
        if report.failing and report.dry_run:
            return "These tests of rules would fail, and the import would be refused:\n" + "\n".join(report.failing)
        return ""

    def _show(self, report: Report, everything: bool) -> None:
        for change in report.changes:
            if change.action == "unchanged" and not everything:
                continue
            slug = f" ({change.slug})" if change.slug else ""
            self.stdout.write(f"{SIGNS[change.action]} {change.action} {change.kind} {change.name}{slug}")
            for detail in change.details:
                self.stdout.write(f"    {detail}")
        for note in report.notes:
            self.stdout.write(f"! {note}")
        counts = ", ".join(f"{number} {action}" for action, number in report.counts().items() if number)
        self.stdout.write(("Would be: " if report.dry_run else "") + (counts or "The files hold no rules."))

    # Export

    def _export(self, options: dict[str, Any]) -> str:
        groups = None
        if options["group"]:
            groups = list(RuleGroup.objects.filter(name__in=options["group"]))
            if unknown := sorted(set(options["group"]) - {group.name for group in groups}):
                return f"There is no group {unknown[0]!r}."
        if options["tests"] and options["output"] == "-":
            return "--tests needs --output: the tests name the file of the rules."
        try:
            found = services.export_rules(by=BY, target=options["target"], groups=groups, partial=options["partial"])
        except ValidationError as error:
            return "Nothing was written.\n" + "\n".join([*error.messages, "With --partial the rest is written."])
        for line in (*found.refused, *found.notes):
            self.stderr.write(line)
        if options["output"] == "-":
            self.stdout.write(found.text, ending="")
            return ""
        try:
            output = Path(options["output"])
            output.write_text(found.text, encoding="utf-8")
            if options["tests"]:
                self._write_tests(Path(options["tests"]), output, groups)
        except OSError as error:
            return f"{error.filename} cannot be written: {error.strerror}."
        return ""

    def _write_tests(self, directory: Path, rules: Path, groups: Sequence[RuleGroup] | None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for test in promtool_tests(groups):
            file = directory / f"{slugify(test.name)[:80] or 'test'}-{test.pk}.yml"
            file.write_text(standalone(test, [str(rules.resolve())]), encoding="utf-8")
        self.stderr.write(f"The tests are in {directory}; run them with promtool test rules {directory}/*.yml")

    # Test

    def _test(self, options: dict[str, Any]) -> str:
        failed = 0
        for name in _found(options["files"]):
            self.stdout.write(f"Unit testing: {name}")
            failures = _run(name)
            failed += bool(failures)
            self.stdout.write("  FAILED:" if failures else "  SUCCESS")
            for failure in failures:
                self.stdout.write("\n".join(f"    {line}" for line in failure.splitlines()))
            self.stdout.write("")
        return f"{failed} of {len(options['files'])} files failed." if failed else ""


def _run(name: str) -> list[str]:
    """What failed in a file of tests."""
    try:
        tests = ruletests.read(_text(name), name)
        beside = Path(name).parent
        rules = list(_found([str(beside / pattern) for pattern in tests.rule_files]))
        found = rulefiles.read_all([(rule, _text(rule)) for rule in rules])
        return ruletests.run(tests, plainrules.plans(found.groups), most=MOST)
    except RuleFileError as error:
        return [str(problem) for problem in error.problems]
    except CommandError as error:
        return [str(error)]


def _found(patterns: Sequence[str]) -> Iterator[str]:
    """The files that names and patterns stand for, in order, each once."""
    seen: set[str] = set()
    for pattern in patterns:
        is_pattern = any(sign in pattern for sign in "*?[")
        names = sorted(glob.glob(pattern)) if is_pattern else [pattern]  # noqa: PTH207 - Path.glob takes no absolute one
        if not names:
            raise CommandError(f"No file matches {pattern}.", returncode=1)
        for name in names:
            if name not in seen:
                seen.add(name)
                yield name


def _text(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{name} cannot be read: {error}.", returncode=1) from None
