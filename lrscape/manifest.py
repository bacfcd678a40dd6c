"""The checksums of a directory's files, in one file of it: ``manifest.sha256``.

Each line holds a SHA-256 and the path of a file below the directory, as ``sha256sum``
prints them. A line is added before its file takes its name, so that a process that is
killed in between leaves the file that was there before, which an earlier line lists. A
file is therefore whole where any of its lines has its checksum. A file without a line,
which an earlier version of lrscape wrote or someone put there, is read as it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from lrscape import checks
from lrscape.durable import sync_directory
from lrscape.errors import ChangedError, InputError

NAME = "manifest.sha256"
# Bytes of a manifest that are read: some 100,000 lines.
BYTES = 16 << 20
# Beyond it lines of files that were replaced since are left out.
LARGE = 1 << 20
# A line of 100 bytes becomes two texts in a set in a dictionary.
GROWTH = 8
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")

Listed = dict[str, set[str]]


def digest(content: bytes) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Example:
        >>> digest(b'')[:8]
        'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def list_file(root: Path, file: Path, content: bytes) -> None:
    """Lists a file that is about to take its name.

    Args:
        root: the directory that the manifest is of.
        file: the path that the file will have, below `root`.
        content: of the file.

    Raises:
        InputError: the manifest is a link or no regular file.
        OSError: it cannot be written; nothing is added then.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> list_file(root, root / 'a.json', b'{}')
        >>> check(read(root / NAME), root / NAME, root / 'a.json', b'{}')
        >>> check(read(root / NAME), root / NAME, root / 'a.json', b'[]')
        Traceback (most recent call last):
        lrscape.errors.ChangedError: .../a.json was changed on disk: ...
    """
    _append(root, [(digest(content), _path_in(root, file))])


def move(root: Path, file: Path, to: Path) -> None:
    """Lists a file under the name that it is about to be given as well."""
    found = read(root / NAME).get(_path_in(root, file), set())
    _append(root, [(one, _path_in(root, to)) for one in sorted(found)])


def read(manifest: Path) -> Listed:
    """The checksums that each path has; empty where there is no manifest.

    Raises:
        InputError: it is a link or no regular file, it is too large, or one of its
            lines is damaged.
    """
    if not os.path.lexists(manifest):
        return {}
    status = manifest.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(
            f"{manifest} is {checks.file_type(status.st_mode)}, and regular files "
            "alone are read"
        )
    if (size := status.st_size) > BYTES:
        raise InputError(
            f"{manifest} has {size:,} bytes, and no more than {BYTES:,} are read"
        )
    # What follows the last line end was being written by a process that was killed.
    lines = manifest.read_bytes().decode("utf-8", "replace").split("\n")[:-1]
    found: Listed = {}
    for number, line in enumerate(lines, 1):
        if (match := _LINE.fullmatch(line)) is None:
            raise InputError(
                f"{manifest} is damaged, line {number}: it is no SHA-256 and path; "
                "bring it back from a copy, or remove the line"
            )
        found.setdefault(match[2], set()).add(match[1])
    return found


def check(listed: Listed, manifest: Path, file: Path, content: bytes) -> None:
    """Raises ChangedError where a file is listed, and its content is not what was.

    Args:
        listed: the manifest's lines, as `read` gives them.
        manifest: its path, in the directory that it is of.
        file: the path of the file.
        content: of the file.
    """
    expected = listed.get(_path_in(manifest.parent, file))
    if expected is not None and digest(content) not in expected:
        raise ChangedError(
            f"{file} was changed on disk: {manifest.name} lists another SHA-256 for "
            "it; bring it back from a copy, or remove its lines there to have it taken "
            "as it is"
        )


def _path_in(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


def _append(root: Path, entries: list[tuple[str, str]]) -> None:
    manifest = root / NAME
    known = read(manifest)
    lines = "".join(
        f"{one}  {path}\n" for one, path in entries if one not in known.get(path, ())
    ).encode()
    if not lines:
        return
    if manifest.exists() and manifest.stat().st_size > LARGE:
        _forget_replaced(manifest, known)
    new = not manifest.exists()
    with manifest.open("ab", buffering=0) as opened:
        whole = _end_of_last_line(manifest)
        if opened.tell() > whole:  # a line that its writer was killed in
            opened.truncate(whole)
        try:
            # Processes that write at once add their lines one after the other.
            if opened.write(lines) != len(lines):
                raise OSError("No space left on device")
            os.fsync(opened.fileno())
        except OSError:
            opened.truncate(whole)
            raise
    if new:
        sync_directory(root)


def _forget_replaced(manifest: Path, known: Listed) -> None:
    """Keeps the lines of what is on disk, where files were replaced many times."""
    lines = []
    for path, digests in known.items():
        file = manifest.parent / path
        if file.is_file() and not file.is_symlink():
            now = digest(file.read_bytes())
            kept = {now} if now in digests else digests
            lines += [f"{one}  {path}\n" for one in sorted(kept)]
    aside = manifest.with_name(f".{NAME}-{os.getpid()}")
    try:
        with aside.open("w") as opened:
            opened.writelines(lines)
            opened.flush()
            os.fsync(opened.fileno())
        aside.replace(manifest)
    finally:
        aside.unlink(missing_ok=True)


def _end_of_last_line(manifest: Path) -> int:
    """The bytes up to the last line end."""
    return manifest.read_bytes().rfind(b"\n") + 1
