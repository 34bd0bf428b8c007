"""`manage.py store`: look at the store of samples, check and repair it, compact it now, take samples out and in."""

import gzip
import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import IO, Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.metrics import burial, care, compaction, envelope, exchange, services, stock, transfer
from apps.promql.errors import PromQLError
from apps.promql.source import Matcher

BY: Final = Principal.system("manage.py store", via="command")
LONGEST: Final = 2**53


class Bar:
    """How far something is, on standard error: drawn anew on a terminal, a line every ten per cent elsewhere."""

    def __init__(self, out: Any, what: str) -> None:
        self.out, self.what, self.begun, self.last = out, what, monotonic(), 0.0
        self.shown = -1

    def at(self, share: float, said: str = "") -> None:
        """`share` from 0 to 1, and whatever else there is to say."""
        now, percent = monotonic(), min(100, int(share * 100))
        on_terminal = self.out.isatty()
        if percent < 100 and (now - self.last < 0.2 if on_terminal else percent // 10 == self.shown // 10):
            return
        if percent == self.shown == 100:
            return
        self.last, self.shown = now, percent
        spent = now - self.begun
        left = f", about {spent / share - spent:.0f} s left" if 0 < share < 1 else ""
        text = f"{self.what}: {percent} %{said and f', {said}'}{left}"
        self.out.write(
            f"\r{text}   " if on_terminal else text, ending="\n" if percent == 100 or not on_terminal else ""
        )
        self.out.flush()


class Command(BaseCommand):
    help = "stats, check, repair, compact, delete, export and import: care for the store of samples."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        for name, text in (
            ("stats", "what is stored, in figures"),
            ("compact", "compact and merge what is due, now"),
            ("check", "look at every stored row; exit 1 when something is damaged"),
        ):
            verbs.add_parser(name, help=text).add_argument("--json", action="store_true")
        mend = verbs.add_parser("repair", help="mend what can be mended; drops nothing without being asked")
        mend.add_argument("--yes", action="store_true", help="do not ask before mending")
        mend.add_argument(
            "--drop-unreadable", action="store_true", help="also delete rows that nobody can read, after a question"
        )
        out = verbs.add_parser("export", help="write samples to a file; roll-ups are not samples and stay")
        out.add_argument("file", help="the file to write; - is standard output; *.gz is compressed")
        out.add_argument("--match", action="append", metavar="SELECTOR", help="which series, such as 'up{job=\"api\"}'")
        out.add_argument("--start", help="from then on: seconds since 1970, or RFC 3339")
        out.add_argument("--end", help="up to then, itself included")
        out.add_argument("--format", choices=exchange.WRITTEN, default=exchange.JSON_LINES)
        gone = verbs.add_parser("delete", help="delete samples of series; hidden at once, out of the bytes in minutes")
        gone.add_argument("match", nargs="+", metavar="SELECTOR", help="which series, such as 'visits{user=\"anna\"}'")
        gone.add_argument("--start", help="from then on: seconds since 1970, or RFC 3339; else from the begin")
        gone.add_argument("--end", help="up to then, itself included; else all that is stored now")
        gone.add_argument("--yes", action="store_true", help="do not ask")
        load = verbs.add_parser("import", help="back-fill samples of any age; doing it twice changes nothing")
        load.add_argument("file", help="the file to read; - is standard input; *.gz is decompressed")
        load.add_argument("--format", choices=exchange.FORMATS, help="what it is, where its name or begin do not tell")
        load.add_argument("--csv", action="store_true", help="the same as --format csv")
        load.add_argument("--restart", action="store_true", help="from the begin, even if an earlier run got further")

    def handle(self, *args: Any, **options: Any) -> None:
        problem = getattr(self, f"_{options['verb'].replace('-', '_')}")(options)
        if problem:
            raise CommandError(problem, returncode=1)

    def _say(self, data: dict[str, Any], as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps(data, indent=2))
            return
        for key, value in data.items():
            if isinstance(value, list):
                self._table(value)
            elif isinstance(value, dict):
                for name, count in value.items():
                    said = f"{key.replace('_', ' ')}: {name}"
                    self.stdout.write(f"{said:44} {count}")
            else:
                self.stdout.write(f"{key.replace('_', ' '):28} {value}")

    def _table(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        texts = [
            [name.replace("_", " ") for name in rows[0]],
            *([str(value) for value in row.values()] for row in rows),
        ]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        for row in texts:
            self.stdout.write("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())

    # --- looking ------------------------------------------------------------------------------------------------------

    def _stats(self, options: dict[str, Any]) -> None:
        self._say(stock.summary(), options["json"])

    def _examined(self, quiet: bool = False) -> list[care.Finding]:
        bar = Bar(self.stderr, "Checking")
        progress = care.silent if quiet else lambda done, total: bar.at(done / max(total, 1), f"{done} of {total} rows")
        return list(care.examine(progress))

    def _check(self, options: dict[str, Any]) -> str:
        found = self._examined()
        damage = [one for one in found if one.is_damage]
        told = {"damaged_rows": len(damage), "notes": len(found) - len(damage)}
        if options["json"]:
            rows = [{"row": one.row, "kind": one.kind, "text": one.text, "cure": one.cure} for one in found]
            self._say({**told, "findings": rows}, as_json=True)
        else:
            for one in found:
                self.stdout.write(str(one))
            self._say(told, as_json=False)
        return f"{len(damage)} rows are damaged: see `manage.py store repair`." if damage else ""

    def _compact(self, options: dict[str, Any]) -> None:
        now = timezone.now()
        rows = 0
        while taken := compaction.compact_log(now=now):
            rows += taken
        merged = [compaction.merge_window(due=due, now=now) for due in compaction.due_windows(now)]
        self._say({"log_rows": rows, "windows_merged": len(merged)}, options["json"])

    # --- mending ------------------------------------------------------------------------------------------------------

    def _repair(self, options: dict[str, Any]) -> str:
        found = self._examined()
        for one in found:
            self.stdout.write(str(one))
        if not found:
            self.stdout.write("Nothing is wrong.")
            return ""
        if not options["yes"] and not self._agreed("Mend what can be mended (nothing is deleted)?"):
            return "Nothing was changed."
        if any(one.kind == care.ROUNDS for one in found):
            care.make_way()
        now = timezone.now()
        self._say({"mended": care.repair(findings=found, by=BY, now=now)}, as_json=False)
        lost = [one for one in found if one.kind == care.CHECKSUM]
        if lost and options["drop_unreadable"]:
            self._drop(lost, now)
        left = [one for one in self._examined(quiet=True) if one.is_damage]
        return f"{len(left)} rows remain damaged; a backup has what they held." if left else ""

    def _drop(self, lost: list[care.Finding], now: datetime) -> None:
        samples = sum(one.samples for one in lost)
        span = f"{care.moment(min(one.begin for one in lost))} to {care.moment(max(one.end for one in lost))} UTC"
        folder = Path(settings.DATA) / "damaged"
        # Never by --yes: what is deleted here no backup may have.
        if self._agreed(f"Delete {len(lost)} rows with {samples} samples from {span}? Their bytes go to {folder}."):
            dropped = care.drop_damaged(findings=lost, by=BY, now=now, folder=folder)
            self.stdout.write(f"Deleted {dropped} rows; their bytes are in {folder}.")

    def _agreed(self, question: str) -> bool:
        self.stdout.write(f"{question} [yes/no] ", ending="")
        self.stdout.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    # --- deleting -----------------------------------------------------------------------------------------------------

    def _delete(self, options: dict[str, Any]) -> str:
        now = timezone.now()
        try:
            start, end = (envelope.moment(options[name]) if options[name] else None for name in ("start", "end"))
            wanted = [envelope.matchers_of(text, parameter="SELECTOR") for text in options["match"]]
            preview = burial.preview(wanted, start=start, end=end, scope=BY.scope, now=now)
        except (ValueError, envelope.ApiError) as error:
            raise CommandError(str(error), returncode=1) from error
        if not len(preview.doomed.ids):
            self.stdout.write("No series matches.")
            return ""
        for labels in preview.doomed.examples:
            self.stdout.write(f"  {labels}")
        what = f"about {preview.samples} samples of {len(preview.doomed.ids)} series"
        if not options["yes"] and not self._agreed(f"Delete {what}? Only a backup has them afterwards."):
            return "Nothing was deleted."
        services.delete_series(by=BY, selectors=wanted, start=start, end=end, now=now)
        left = burial.bury(now=timezone.now())
        self.stdout.write(f"Deleted {what}.")
        return f"{left} deletions are hidden and not yet out of every stored row; the portal goes on." if left else ""

    # --- out ----------------------------------------------------------------------------------------------------------

    def _export(self, options: dict[str, Any]) -> None:
        try:
            begin = _ms(options["start"], 0) - 1
            end = _ms(options["end"], LONGEST)
            wanted = [
                envelope.matchers_of(text, parameter="--match") for text in options["match"] or ('{__name__!=""}',)
            ]
        except (ValueError, envelope.ApiError) as error:
            raise CommandError(str(error), returncode=1) from error
        try:
            with _writing(options["file"]) as file:
                series, samples = self._write(file, wanted, (begin, end), options["format"])
        except (OSError, PromQLError) as error:
            raise CommandError(f"The export to {options['file']} ended early: {error}.", returncode=1) from error
        self.stderr.write(f"{samples} samples of {series} series")

    def _write(
        self, file: IO[bytes], wanted: Sequence[Sequence[Matcher]], span: tuple[int, int], kind: str
    ) -> tuple[int, int]:
        render = exchange.json_lines if kind == exchange.JSON_LINES else exchange.open_metrics
        bar = Bar(self.stderr, "Exporting")
        series = samples = 0
        warned: set[str] = set()
        for number, matchers in enumerate(wanted):
            for found, share in transfer.portions(matchers, *span):
                for line in render(found):
                    file.write(line.encode())
                series += len(found.off) - 1
                samples += len(found.ts)
                for warning in set(found.warnings) - warned:
                    warned.add(warning)
                    self.stderr.write(f"Warning: {warning}")
                bar.at((number + share) / len(wanted), f"{samples} samples")
        if kind == exchange.OPENMETRICS:
            file.write(b"# EOF\n")
        return series, samples

    # --- in -----------------------------------------------------------------------------------------------------------

    def _import(self, options: dict[str, Any]) -> str:
        name = options["file"]
        try:
            return self._import_file(name, options)
        except UnicodeDecodeError as error:
            raise CommandError(f"{name} cannot be read: {error}.", returncode=1) from error
        except OSError as error:
            raise CommandError(f"{name} cannot be read: {error}.", returncode=1) from error
        except ValueError as error:
            raise CommandError(f"{name}: {error}", returncode=1) from error

    def _import_file(self, name: str, options: dict[str, Any]) -> str:
        plain = name != "-" and not name.endswith(".gz")
        source = Path(name) if plain else None
        with _reading(name) as file:
            head = file.peek(transfer.HEAD)[: transfer.HEAD] if hasattr(file, "peek") else b""
            kind = exchange.CSV if options["csv"] else options["format"]
            kind = kind or exchange.guess(name.removesuffix(".gz"), head)
            if kind is None:
                raise ValueError("say by --format what it is: neither its name nor its begin tell.")
            work = transfer.Import(source, kind, Path(settings.DATA) / "imports")
            if not options["restart"] and work.resume():
                self.stderr.write(
                    f"Going on behind line {work.state.line}, where an earlier run ended (--restart: anew)."
                )
            else:
                services.note_import(by=BY, source=name, counts=None)
            return self._run_import(work, file, name)

    def _run_import(self, work: transfer.Import, file: IO[bytes], name: str) -> str:
        state = work.state
        size = work.source.stat().st_size if work.source is not None else 0
        bar, begun, before = Bar(self.stderr, "Importing"), monotonic(), state.samples

        def each() -> None:
            rate = (state.samples - before) / max(monotonic() - begun, 1e-3)
            share = state.offset / size if size else 0.0
            bar.at(share, f"{state.samples} samples, {rate:,.0f}/s")

        ended = "done"
        try:
            work.run(file, by=BY, now=timezone.now, each=each)
            work.done()
        except KeyboardInterrupt:
            ended = "stopped"
        except services.StoreFull as error:
            ended = str(error)
        except BaseException:
            ended = "failed"
            raise
        finally:
            services.note_import(by=BY, source=name, counts={**state.counts(), "ended": ended, "lines": state.line})
            for problem in state.problems:
                self.stderr.write(problem)
            self._say({"samples": state.samples, "refused": state.refused, "bad_lines": state.bad}, as_json=False)
        if ended != "done":
            return f"{ended}: the same command goes on behind line {state.line}."
        if state.bad:
            noun = "line" if state.bad == 1 else "lines"
            return f"{state.bad} {noun} could not be read ({state.problems[0]}); the others are stored."
        return ""


def _ms(text: str | None, default: int) -> int:
    return default if text is None else int(envelope.moment(text).timestamp() * 1000)


def _writing(name: str) -> IO[bytes]:
    if name == "-":
        return open(sys.stdout.fileno(), "wb", closefd=False)
    return gzip.open(name, "wb", compresslevel=5) if name.endswith(".gz") else Path(name).open("wb")  # type: ignore[return-value]


def _reading(name: str) -> Any:
    if name == "-":
        return open(sys.stdin.fileno(), "rb", closefd=False)
    return gzip.open(name, "rb") if name.endswith(".gz") else Path(name).open("rb")
