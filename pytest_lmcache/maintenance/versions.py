"""Cassettes as they are in the working tree and as git has them, paired by name or, if renamed, by what they hold."""

from __future__ import annotations

import hashlib
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_lmcache.cassette import reader
from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.errors import LMCacheError

_BLOB_HEADER = 3  # fields of an answer of `git cat-file --batch`: name, type, size


@dataclass(frozen=True, slots=True)
class Version:
    """A cassette at some time: its path, and its content as git or the file has it."""

    path: Path
    data: bytes

    def entries(self, shown: str) -> list[Entry]:
        """Its interactions, each with its key. Raises CassetteError; ``shown`` names the file in it."""
        path = Path(shown)
        data = self.data.replace(b"\r\n", b"\n")
        reader.read_header(path, data)
        found = reader.read_documents(path, data)
        for entry in found:
            entry.key = entry.key or entry.stored_key()
        return found


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions of a cassette; None where there is none. ``is_renamed``: it has another path now."""

    before: Version | None
    after: Version | None
    is_renamed: bool = False


class Git:
    """The repository of a folder. Raises LMCacheError if there is none, or no git."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = Path(self._run("rev-parse", "--show-toplevel").decode().rstrip("\n"))

    def resolve(self, revision: str) -> tuple[str, str | None]:
        """The commits that a revision names: one, or two for ``A..B`` and ``A...B``."""
        if "..." in revision:
            one, other = (each or "HEAD" for each in revision.split("...", 1))
            base = self._run("merge-base", self._commit(one), self._commit(other)).decode().strip()
            return base, self._commit(other)
        if ".." in revision:
            one, other = (each or "HEAD" for each in revision.split("..", 1))
            return self._commit(one), self._commit(other)
        return self._commit(revision), None

    def _commit(self, revision: str) -> str:
        try:
            return (
                self._run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
                .decode()
                .strip()
            )
        except LMCacheError:
            raise LMCacheError(
                f"git knows no commit {revision}, in {self.root}.\n"
                "To see the branches: git branch --all. A shallow clone, as in CI, may need: git fetch --unshallow"
            ) from None

    def files(self, commit: str, folders: Sequence[Path]) -> dict[Path, str]:
        """The YAML files of a commit in some folders, or these files themselves, with the names of their blobs."""
        inside = [folder.resolve() for folder in folders]
        names = [str(each.relative_to(self.root)) for each in inside if each.is_relative_to(self.root)]
        if not names:
            return {}
        listed = self._run("ls-tree", "-r", "-z", commit, "--", *names, folder=self.root)
        found = {}
        for line in listed.decode(errors="surrogateescape").split("\0"):
            meta, _, name = line.partition("\t")
            if name.endswith((".yaml", ".yml")):
                found[self.root / name] = meta.split()[2]
        return found

    def read(self, blobs: Iterable[str]) -> dict[str, bytes]:
        """The contents of blobs, by one process of git."""
        wanted = list(dict.fromkeys(blobs))
        if not wanted:
            return {}
        data = self._run("cat-file", "--batch", stdin="\n".join(wanted).encode() + b"\n")
        found, at = {}, 0
        for name in wanted:
            end = data.index(b"\n", at)
            fields = data[at:end].split()
            if len(fields) != _BLOB_HEADER:
                raise LMCacheError(
                    f"git cannot read {name}: it is not in this clone. Run: git fetch --unshallow"
                )
            size = int(fields[2])
            found[name] = data[end + 1 : end + 1 + size]
            at = end + 1 + size + 1
        return found

    def _run(self, *arguments: str, stdin: bytes = b"", folder: Path | None = None) -> bytes:
        try:
            done = subprocess.run(  # noqa: S603 - git, without a shell
                ["git", *arguments],  # noqa: S607 - the user's git
                cwd=folder or self.folder,
                input=stdin,
                capture_output=True,
                check=False,
            )
        except FileNotFoundError:
            raise LMCacheError("diff --git needs git, and there is no git on the PATH.") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            if "not a git repository" in said:
                said = f"{self.folder} is in no git repository. To compare two files or folders: pytest-lmcache diff A B"
            raise LMCacheError(said or f"git {arguments[0]} failed.")
        return done.stdout


def _read(path: Path) -> bytes | None:
    """A file of the working tree as it is, None if there is none. Raises LMCacheError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None  # a symbolic link to nothing
    except OSError as problem:
        raise LMCacheError(f"{path} cannot be read: {problem.strerror or problem}.") from None


def blob_name(data: bytes) -> str:
    """The name that git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def between_commits(git: Git, revision: str, places: Sequence[Path], now: Iterable[Path]) -> list[Pair]:
    """Pair the cassettes of a commit with those in the working tree, ``now``, or with those of a second commit.

    ``places`` are the folders and files to look at. Raises LMCacheError.
    """
    old_commit, new_commit = git.resolve(revision)
    old = git.files(old_commit, places)
    if new_commit is not None:
        new = git.files(new_commit, places)
        changed = {path for path in {*old, *new} if old.get(path) != new.get(path)}
        blobs = git.read([files[path] for files in (old, new) for path in changed if path in files])
        before = {path: blobs[old[path]] for path in changed if path in old}
        after = {path: blobs[new[path]] for path in changed if path in new}
    else:
        files = {path.resolve(): data for path in now if (data := _read(path)) is not None}
        names = {path: blob_name(data) for path, data in files.items()}
        changed = {path for path in {*old, *files} if old.get(path) != names.get(path)}
        blobs = git.read([old[path] for path in changed if path in old])
        before = {path: blobs[old[path]] for path in changed if path in old}
        after = {path: data for path, data in files.items() if path in changed}
    return paired(before, after)


def paired(before: Mapping[Path, bytes], after: Mapping[Path, bytes]) -> list[Pair]:
    """Pair two sets of files by their paths, those that are left by what they hold, and then by their names."""
    pairs = [
        Pair(Version(path, before[path]), Version(path, after[path])) for path in before if path in after
    ]
    gone = {path: data for path, data in before.items() if path not in after}
    new = {path: data for path, data in after.items() if path not in before}
    for find in (_by_keys, _by_names):
        for old_path, new_path in find(gone, new):
            if old_path in gone and new_path in new:
                old, now = Version(old_path, gone.pop(old_path)), Version(new_path, new.pop(new_path))
                pairs.append(Pair(old, now, is_renamed=True))
    pairs += [Pair(Version(path, data), None) for path, data in gone.items()]
    pairs += [Pair(None, Version(path, data)) for path, data in new.items()]
    return sorted(pairs, key=lambda pair: str((pair.after or pair.before or Version(Path(), b"")).path))


def _by_keys(gone: Mapping[Path, bytes], new: Mapping[Path, bytes]) -> list[tuple[Path, Path]]:
    """Files that share keys, those that share most first."""
    by_key: dict[bytes, list[Path]] = {}
    for path, data in gone.items():
        for key in _keys(data):
            by_key.setdefault(key, []).append(path)
    ranked = []
    for path, data in new.items():
        shared = Counter(other for key in _keys(data) for other in by_key.get(key, ()))
        ranked += [(-count, str(other), str(path), other, path) for other, count in shared.items()]
    return [(other, path) for _, _, _, other, path in sorted(ranked, key=lambda each: each[:3])]


def _by_names(gone: Mapping[Path, bytes], new: Mapping[Path, bytes]) -> list[tuple[Path, Path]]:
    """Files of one name in different folders, if no other file has that name: a test file was moved and recorded again."""
    names = [Counter(path.name for path in files) for files in (gone, new)]
    by_name = {path.name: path for path in new}
    return [(path, by_name[path.name]) for path in gone if all(counts[path.name] == 1 for counts in names)]


def _keys(data: bytes) -> set[bytes]:
    return {found[1] for found in reader.DOCUMENT.finditer(data) if found[1]}
