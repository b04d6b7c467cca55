"""One interaction and its YAML document, in both directions."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pytest_lmcache.cassette import yaml_reader, yaml_writer
from pytest_lmcache.errors import CassetteError
from pytest_lmcache.interaction import CANCELLED, Answer, Call, Interaction, Kind
from pytest_lmcache.stream_chunks import Chunk, is_stored, pack

ANSWER = re.compile(rb"\n(?:response|shared|chunks|error|cancelled|ended_with):")
NO_ANSWER = (b"\nerror:", b"\ncancelled:", b"\nended_with:")
CHUNKS = re.compile(rb"\nchunks:\n((?:(?:[- #].*)?\n)*)")
KEY_LINE = re.compile(rb"^key:.*$", re.MULTILINE)
# Nothing in it means more to a shell than options and the name of a test.
REWRITE = re.compile(
    rb"""^# record again: (pytest --lm-rewrite (?:(?:-c |--rootdir=)[\w./-]+ )*"[^"$`\\!\r\n]+")\r?$""",
    re.MULTILINE,
)
CONFLICT = re.compile(rb"^(?:<{7}|\|{7}|={7}|>{7})(?: |\r?$)", re.MULTILINE)
RECORDED = re.compile(rb"\nrecorded: *([^\n]*)")
LARGEST_NUMBER = 1e12
# How 0.1.0 wrote texts that formatters change; see `yaml_writer`.
FRAGILE = re.compile(rb"[ \t]\n|\t|[:-] \|[2+][-+]?\n|\n\n\n|\xc2\xa0\n|\xe3\x80\x80\n")
DATA: dict[Kind, type] = {
    Kind.STREAM: list,
    Kind.UNANSWERED: type(None),
}  # what an answer's is, if no mapping
TEXT_CHUNKS = 2  # the first format in which a text among the chunks of a stream repeats a chunk


def conflict_error(path: Path, data: bytes, line: int) -> CassetteError:
    """Return the error for a cassette with git's conflict markers; ``data`` is the file."""
    found = REWRITE.search(data, 0, 8192)
    rewrite = found[1].decode(errors="replace") if found is not None else "pytest --lm-rewrite"
    return CassetteError(
        f"{path}:{line}: git left a merge conflict here.\n"
        "Keep one side, and record what is missing. Answers that are still in the cache on disk cost nothing:\n"
        f'  git checkout --ours "{path}"  # or --theirs\n'
        f"  {rewrite.replace('--lm-rewrite', '--lm-record')}\n"
        "Or replace the file. This asks the provider for all of its answers again:\n"
        f"  {rewrite}"
    )


@dataclass(slots=True, eq=False, repr=False)
class Entry:
    """One recorded interaction as the bytes of its YAML document, parsed when it is needed.

    ``key`` is the key under the strategy in use. ``start`` and ``end`` are the document's place in ``data``.
    ``needs_format`` is the oldest format of a cassette that can hold a document that is to be written.
    """

    key: str
    data: bytes
    start: int
    end: int
    path: Path
    needs_format: int = 1

    @property
    def text(self) -> bytes:
        """The document's text, without its `---` line."""
        return self.data[self.start : self.end]

    @property
    def place(self) -> str:
        """The file and the line in which the document begins."""
        return f"{self.path}:{self._line(0)}"

    @property
    def question(self) -> bytes:
        """The text of the call and its request, without the key."""
        return KEY_LINE.sub(b"", self.text[: self._answer_at() + 1], count=1)

    @property
    def is_answered(self) -> bool:
        """Whether the provider answered: no error, nothing that was cut off."""
        return all(self.data.find(field, self.start, self.end) < 0 for field in NO_ANSWER)

    def answer(self) -> Answer:
        """Parse only the answer; the request is longer as a rule. Raises CassetteError if the document is broken."""
        return self._answer(self._answer_fields())

    def interaction(self) -> Interaction:
        """Parse the whole interaction. Raises CassetteError if the document is broken or lacks a field."""
        fields = self._answer_fields()
        return Interaction(self.key, self.call(), self._answer(fields), str(fields["recorded"]))

    def call(self) -> Call:
        """Parse only the call. Raises CassetteError if the document is broken or lacks a field."""
        fields = self.load(self.text[: self._answer_at() + 1], 0)
        name, request = fields.get("call"), fields.get("request")
        if not isinstance(name, str) or not isinstance(request, dict):
            raise self.broken("this interaction needs `call:`, a name, and `request:`, a mapping")
        return Call(name, request)

    def stored_key(self) -> str:
        """The key that the document has. Raises CassetteError if it has none."""
        line = KEY_LINE.search(self.data, self.start, self.end)
        key = self.load(line[0], line.start() - self.start).get("key") if line is not None else None
        if not isinstance(key, str) or not key:
            raise self.broken("this interaction has no `key:` with a text")
        return key

    def recorded(self) -> str:
        """When the provider answered, as the document has it; empty if it does not say."""
        line = RECORDED.search(self.data, self.start, self.end)
        return line[1].decode("ascii", "replace").strip("\"' ") if line is not None else ""

    def rekeyed(self, key: str) -> Entry:
        """The same interaction with another key in its key line."""
        line = b"key: " + scalar(key).encode()
        text = KEY_LINE.sub(lambda _: line, self.text, count=1)
        return Entry(key, text, 0, len(text), self.path, needs_format=self.needs_format)

    def fragile(self) -> CassetteError | None:
        """An error for a text that formatters would change, None if there is none.

        Raises CassetteError if the document is broken.
        """
        found = FRAGILE.search(self.data, self.start, self.end)
        if found is None or self.rewritten().text == self.text:
            return None
        line = self._line(found.start() - self.start)
        return CassetteError(
            f"{self.path}:{line}: formatters and editors would change this text.\n"
            f"To write it in a form that they leave alone, run: pytest-lmcache check --fix {self.path}"
        )

    def rewritten(self) -> Entry:
        """The same interaction in the newest format. Raises CassetteError if the document is broken."""
        return entry_of(self.interaction()._replace(key=self.stored_key()), self.path)

    def broken(self, problem: str, offset: int = 0, lines: int = 0) -> CassetteError:
        """Return the error that names the file and the line, ``lines`` below the one at ``offset``."""
        return CassetteError(
            f"{self.path}:{self._line(offset) + lines}: {problem}\n"
            "The file was not changed. Restore it (git checkout), or delete it and record again: "
            "pytest --lm-record"
        )

    def _line(self, offset: int) -> int:
        return bisect_left(line_ends(self.data), self.start + offset) + 1

    def _answer_at(self) -> int:
        found = ANSWER.search(self.data, self.start, self.end)
        if found is None:
            raise self.broken(
                "this interaction has neither `response:`, `chunks:`, `error:` nor `cancelled:`"
            )
        return found.start() - self.start

    def _answer_fields(self) -> dict[str, Any]:
        at = self._answer_at()
        text, items = self.text[at:], None
        if (found := CHUNKS.search(text)) is not None:
            items = self._parse(yaml_reader.load_items, found[1], at + found.start(1))
            # Empty lines take their place, so that an error below has its line.
            text = text[: found.start()] + b"\n" * found[0].count(b"\n") + text[found.end() :]
        fields = self.load(text, at)
        if items is not None and "chunks" in fields:
            raise self.broken("the key 'chunks' is here twice", at)
        return fields if items is None else fields | {"chunks": items}

    def _answer(self, fields: dict[str, Any]) -> Answer:
        kind, data, error = Kind.RESPONSE, fields.get("response"), fields.get("error")
        ended = CANCELLED if fields.get("cancelled") else fields.get("ended_with")
        if fields.get("chunks") is not None:
            kind, data = Kind.STREAM, self._stored_chunks(fields["chunks"], fields.get("shared", {}))
        elif "response" not in fields and "error" not in fields and ended:
            kind = Kind.UNANSWERED
        elif "response" not in fields:
            kind, data, error = Kind.ERROR, error, None
        is_one = "response" not in fields or (kind is Kind.RESPONSE and error is None)
        seconds: Any = fields.get("seconds")
        usd, hidden, pace = fields.get("usd"), fields.get("hidden"), fields.get("pace", [])
        rules = {
            "this interaction needs one of `response:`, a mapping, `chunks:` or `error:`, with content": is_one
            and isinstance(data, DATA.get(kind, dict)),
            "this interaction lacks `recorded:` or `seconds:`, a number, which ends each": "recorded"
            in fields
            and _is_number(seconds),
            "`error:` must be a mapping": isinstance(error, dict | None),
            "`usd:` must be a number": usd is None or _is_number(usd),
            "`hidden:` must be a mapping": isinstance(hidden, dict | None),
            "`pace:` must be a list of milliseconds": isinstance(pace, list)
            and all(isinstance(each, int) and _is_number(each) and each >= 0 for each in pace),
            "`ended_with:` must be the name of an exception": isinstance(ended, str | None),
        }
        for rule, holds in rules.items():
            if not holds:
                raise self.broken(rule)
        complete = not fields.get("left_early", ended is not None)
        return Answer(kind, data, error, complete, hidden, float(seconds), usd, ended, tuple(pace))

    def _stored_chunks(self, chunks: Any, shared: Any) -> list[Chunk]:
        if not is_stored(chunks) or not isinstance(shared, dict):
            raise self.broken(
                "`chunks:` must be a list of mappings and texts, each text after a mapping that has one, "
                "and `shared:` a mapping"
            )
        # A chunk that has one of the shared fields is whole as it stands.
        chunks = [
            chunk if isinstance(chunk, str) or shared.keys() & chunk.keys() else {**shared, **chunk}
            for chunk in chunks
        ]
        return chunks if any(isinstance(chunk, str) for chunk in chunks) else pack(chunks)

    def load(self, text: bytes, offset: int) -> dict[str, Any]:
        """Parse the fields of a part that begins at ``offset``. Raises CassetteError if it is broken."""
        fields = self._parse(yaml_reader.load, text, offset)
        if not isinstance(fields, dict):
            raise self.broken("this interaction is not a mapping", offset)
        return fields

    def _parse(self, read: Callable[[bytes], Any], text: bytes, offset: int) -> Any:
        import yaml

        try:
            return read(text)
        except (yaml.YAMLError, ValueError) as problem:
            error = problem
        conflict = CONFLICT.search(self.data, self.start, self.end)
        if conflict is not None:
            raise conflict_error(self.path, self.data, self._line(conflict.start() - self.start))
        mark = getattr(error, "problem_mark", None)
        what = f"this is not readable YAML: {getattr(error, 'problem', None) or error}"
        raise self.broken(what, offset, 0 if mark is None else mark.line)


@lru_cache(maxsize=1)
def line_ends(data: bytes) -> array[int]:
    """Where each line of a file ends; cached, since a file may be broken in very many places."""
    return array("Q", (found.start() for found in re.finditer(b"\n", data)))


def entry_of(interaction: Interaction, path: Path) -> Entry:
    """The document of an interaction, to be written."""
    answer = interaction.answer
    has_texts = False
    fields: dict[str, Any] = {
        "key": interaction.key,
        "call": interaction.call.name,
        "request": interaction.call.request,
    }
    if answer.kind is Kind.STREAM:
        # Server-sent events are texts of several lines; other chunks read best in one line, as on the wire.
        is_events = any(isinstance(chunk, dict) and "bytes" in chunk for chunk in answer.data)
        fields["chunks"] = answer.data if is_events else yaml_writer.Lines(answer.data)
        has_texts = any(isinstance(chunk, str) for chunk in answer.data)
        if answer.error is not None:
            fields["error"] = answer.error
        if not answer.complete and answer.ended is None:
            fields["left_early"] = True
    elif answer.kind is not Kind.UNANSWERED:
        fields["response" if answer.kind is Kind.RESPONSE else "error"] = answer.data
    if answer.ended is not None:
        fields |= {"cancelled": True} if answer.ended == CANCELLED else {"ended_with": answer.ended}
    if answer.hidden:
        fields["hidden"] = answer.hidden
    text = yaml_writer.dump(fields)
    if answer.pace:
        text += f"pace: [{', '.join(map(str, answer.pace))}]\n"
    text += f"recorded: {interaction.recorded}\n"
    if answer.usd is not None:
        text += yaml_writer.dump({"usd": answer.usd})
    text += f"seconds: {answer.seconds:.3f}\n"
    data = text.encode()
    return Entry(interaction.key, data, 0, len(data), path, needs_format=TEXT_CHUNKS if has_texts else 1)


def _is_number(value: Any) -> bool:
    """Whether a value can be seconds or USD: an integer may be too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER


def scalar(text: str) -> str:
    """A text as YAML writes it after its key."""
    return yaml_writer.dump({"key": text})[len("key: ") :].rstrip("\n")
