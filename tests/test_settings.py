"""Settings: their values, who gave them, and what an error says."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.settings import Mode, RecordErrors, Repeat, Settings


def test_defaults():
    """Nothing is recorded unasked, keys are exact, only lasting errors are kept."""
    settings = Settings()
    assert settings.mode is Mode.REPLAY
    assert settings.key == "exact"
    assert settings.repeat is Repeat.LAST
    assert settings.record_errors is RecordErrors.LASTING
    assert (settings.cassette, settings.cassette_dir) == (None, "cassettes")


@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        *[("mode", mode, Mode(mode)) for mode in ("replay", "once", "record", "rewrite", "live")],
        pytest.param("mode", Mode.ONCE, Mode.ONCE, id="mode-itself"),
        *[("repeat", repeat, Repeat(repeat)) for repeat in ("last", "cycle", "error")],
        *[("record_errors", which, RecordErrors(which)) for which in ("lasting", "all")],
        ("cassette", "x.yaml", "x.yaml"),
        ("cassette_dir", "tapes", "tapes"),
        ("key", "messages", "messages"),
        ("key", repr, repr),
        ("normalise", "uuid", ("uuid",)),
        ("normalise", ["uuid", "date"], ("uuid", "date")),
        ("redact", "a+", ("a+",)),
        ("redact", iter(["a", "b"]), ("a", "b")),
        ("redact_with", str.lower, str.lower),
        ("redact_with", "pack.mod:fun", "pack.mod:fun"),
        ("redact_with", None, None),
    ],
)
def test_values(name, value, becomes):
    """Each setting takes its names, functions and lists, and comes out as one type."""
    assert getattr(Settings().updated({name: value}, "here"), name) == becomes


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("mode", "reply", "mode cannot be 'reply'; choose one of: replay, once, record, rewrite, live."),
        ("mode", None, "mode cannot be None; choose one of: "),
        ("mode", ["replay"], "mode cannot be ['replay']; choose one of: "),
        ("repeat", "first", "repeat cannot be 'first'; choose one of: last, cycle, error."),
        ("record_errors", True, "record_errors cannot be True; choose one of: lasting, all."),
        ("cassette", "", "cassette cannot be ''; it takes a path."),
        ("cassette", None, "cassette cannot be None; it takes a path."),
        ("cassette_dir", 3, "cassette_dir cannot be 3; it takes a path."),
        ("key", "", "key cannot be ''; it takes a name, a dotted path or a function."),
        ("key", None, "key cannot be None; it takes a name, a dotted path or a function."),
        ("normalise", 3, "normalise cannot be 3; it takes a string or a list of strings."),
        ("redact", [3], "redact cannot be [3]; it takes a string or a list of strings."),
        ("redact_with", 3, "redact_with cannot be 3; it takes a name, a dotted path or a function."),
        ("cassete", "x", "there is no setting 'cassete'. Did you mean 'cassette'? The settings are: mode, "),
        ("zzz", "x", "there is no setting 'zzz'. The settings are: mode, "),
    ],
)
def test_errors_name_source_and_valid_values(name, value, said):
    """A value that cannot be is told with where it was given and what is valid there."""
    with pytest.raises(SettingsError) as caught:
        Settings().updated({name: value}, "the source")
    assert str(caught.value).startswith(f"the source: {said}")


def test_later_ones_win_the_rest_stays():
    """A nearer source changes what it names and nothing else."""
    far = Settings().updated({"mode": "live", "key": "content", "normalise": ["uuid"]}, "far")
    near = far.updated({"mode": "once", "normalise": ["date"]}, "near")
    assert (near.mode, near.key, near.normalise) == (Mode.ONCE, "content", ("date",))
    assert far.mode is Mode.LIVE


def test_secrets_add_up():
    """What a farther source calls a secret stays one, named once however often it is given."""
    far = Settings().updated({"redact": ["a", "b"]}, "far")
    assert far.updated({"redact": ["b", "c"]}, "near").redact == ("a", "b", "c")
    assert far.updated({"mode": "live"}, "near").redact == ("a", "b")


def test_frozen():
    """A test cannot change the settings of the next."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().mode = Mode.LIVE
