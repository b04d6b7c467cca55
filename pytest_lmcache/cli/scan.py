"""The command ``scan``: finds secrets in cassettes, by the rules of recording."""

from __future__ import annotations

import click

from pytest_lmcache.cli.frame import FINE, FOUND, Command
from pytest_lmcache.cli.output import finish, json_option, print_json, safe
from pytest_lmcache.cli.project import shown
from pytest_lmcache.cli.suite import suite_of
from pytest_lmcache.cli.targets import Selection, takes_targets
from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.maintenance.secrets import redactor, secrets_in
from pytest_lmcache.wording import counted


@click.command("scan", cls=Command, example="pytest-lmcache scan cassettes/test_agent")
@takes_targets
@json_option
def command(selection: Selection, *, as_json: bool) -> int:
    """Find secrets in cassettes: file, line and kind, never the secret.

    It applies the same rules as recording: well-known formats, values of this machine's environment variables, labels,
    and lm_redact and lm_redact_with of the configuration. The exit code is 1 if it finds a secret.
    """
    settings = suite_of(selection.project).settings
    redact = redactor(settings.redact, settings.redact_with)
    found: list[tuple[str, int, str]] = []
    problems = []
    for path in selection.paths:
        try:
            found += [(shown(path), secret.line, secret.kind) for secret in secrets_in(path, redact)]
        except LMCacheError as problem:
            problems.append(str(problem))
    if as_json:
        secrets = [{"path": path, "line": line, "kind": kind} for path, line, kind in found]
        print_json({"cassettes": len(selection.paths), "secrets": secrets})
    else:
        for file, line, kind in found:
            click.echo(safe(f"{file}:{line}: {kind}"))
        click.echo(f"{counted(len(selection.paths), 'cassette')}, {counted(len(found), 'secret')}")
        if found:
            click.echo(
                "Revoke those that are real, and record again: pytest --lm-rewrite. "
                "If they have been committed, see SECURITY.md of pytest-lmcache.",
                err=True,
            )
    return FOUND if finish(problems) or found else FINE
