"""A small disk that can be filled on purpose: a loop-back file system of its own, for root only."""

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self


class NoDisk(Exception):
    """Why there can be no such disk here."""


class SmallDisk:
    """An ext4 file system in a sparse file, mounted at `folder` while the context lasts."""

    def __init__(self, folder: Path, size: int = 2_500_000_000) -> None:
        self.folder, self.image, self.size = folder, folder.with_suffix(".img"), size
        self.balloon = folder / "balloon"

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise NoDisk("only root may mount one")
        if missing := [name for name in ("mkfs.ext4", "mount", "umount", "fallocate") if shutil.which(name) is None]:
            raise NoDisk(f"there is no {' and no '.join(missing)} here")
        self.folder.mkdir(parents=True)
        with self.image.open("wb") as image:
            image.truncate(self.size)
        _run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(self.image))
        try:
            _run("mount", "-o", "loop", str(self.image), str(self.folder))
        except NoDisk:
            self.image.unlink()
            raise
        self.folder.chmod(0o711)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _run("umount", "--lazy", str(self.folder))
        self.image.unlink(missing_ok=True)

    @property
    def free(self) -> int:
        return shutil.disk_usage(self.folder).free

    def fill(self, leave: int) -> None:
        """Let the balloon take all but so many bytes; 0 takes what there is, to the last block."""
        taken = self.balloon.stat().st_size if self.balloon.exists() else 0
        _run("fallocate", "-l", str(taken + max(1, self.free - leave)), str(self.balloon), may_fail=leave == 0)
        if leave == 0:
            with self.balloon.open("ab", buffering=0) as rest:
                try:
                    while rest.write(bytes(65_536)):
                        pass
                except OSError:
                    return

    def free_it(self) -> None:
        """Let the air out."""
        self.balloon.unlink(missing_ok=True)


def _run(*command: str, may_fail: bool = False) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode and not may_fail:
        raise NoDisk(f"{' '.join(command)} says: {ran.stderr.strip()}")
