"""Normalizers: which dates, folders and ids they mask, and that nothing else is masked."""

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmcache.interaction import Call
from pytest_lmcache.keys.normalizers import Folders
from pytest_lmcache.keys.strategies import strategy

NOWHERE = Folders()


def key(text, *normalizers, folders=NOWHERE):
    """The key of a prompt under these normalizers."""
    request = text if isinstance(text, dict) else {"messages": [{"role": "user", "content": text}]}
    return strategy("exact", normalizers, folders).key(Call("completion", request))


# ---- dates

DATES = [
    *("%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y"),
    *(
        f"{weekday}{day}{of}{month}{comma}{year}"
        for weekday, day, of, month, comma, year in product(
            ("", "%A ", "%A, ", "%a, "),
            ("%d", "%-d"),
            (" ", " of "),
            ("%B", "%b", "%b."),
            (" ", ", "),
            ("%Y",),
        )
    ),
    *(
        f"{weekday}{month} {day}{comma}%Y"
        for weekday, month, day, comma in product(
            ("", "%A ", "%A, ", "%a, "), ("%B", "%b", "%b."), ("%d", "%-d", "%e"), (" ", ", ")
        )
    ),
    *("%A, %B %d", "%A %-d %B", "%a %d %b", "%A, %d of %B"),
    *("%d-%b-%Y", "%d/%b/%Y", "%A, %d-%b-%y"),
]
TIMES = [
    "%H:%M:%S",
    "%H:%M",
    "%I:%M %p",
    "%I:%M:%S %p",
    "%-I %p",
    "%H:%M:%S.%f",
    "%H:%M:%S %Z",
    "%H:%M:%S%z",
    "%H:%M %Z",
]
FORMATS = [
    *DATES,
    *(f"{date}{between}{time}" for date in DATES for time in TIMES for between in (" ", ", ", " at ")),
    *(f"{time}{between}{date}" for date in DATES for time in TIMES for between in (" ", ", ", " on ")),
    *("%c", "%a %b %e %H:%M:%S %Z %Y", "%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S %z (%Z)"),
    *("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d_%H-%M-%S", "%Y%m%d_%H%M%S", "%Y%m%dT%H%M%SZ"),
    *("%Y%m%d%H%M%S", "%d/%b/%Y:%H:%M:%S %z", "%H:%M:%S", "%I:%M %p"),
]
MOMENTS = st.datetimes(
    datetime(1900, 1, 1),
    datetime(2199, 12, 31),
    timezones=st.just(UTC),
)


@pytest.mark.parametrize("cased", [str, str.upper, str.lower])
@given(form=st.sampled_from(FORMATS), one=MOMENTS, two=MOMENTS)
def test_written_dates(cased, form, one, two):
    """However a program writes the moment in English, another moment is the same question."""
    first, second = (f"It is {cased(moment.strftime(form))}. Greet me." for moment in (one, two))
    assert key(first, "date") == key(second, "date"), form


@given(one=MOMENTS, two=MOMENTS, hours=st.integers(-12, 14))
def test_dates_of_mails(one, two, hours):
    """RFC 2822, with a zone or GMT."""
    zone = timezone(timedelta(hours=hours))
    assert key(format_datetime(one), "date") == key(format_datetime(two.astimezone(zone)), "date")
    assert key(format_datetime(one, usegmt=True), "date") == key(format_datetime(two), "date")


@pytest.mark.parametrize(
    "text",
    [
        "29 November 2026 17:08:24",
        "29 November 2026",
        "November 29, 2026",
        "November 29th 2026",
        "Sunday 29 Nov 2026",
        "Sun, 29 Nov 2026 17:08:24 +0000",
        "Sunday, 29 Nov 2026 17:08:24 GMT",
        "29th of November 2026",
        "the 29th of November, 2026",
        "Sunday the 29th of November 2026",
        "November the 29th, 2026 at 5:08 p.m.",
        "Sun Nov 29 17:08:24 2026",
        "Sun Nov 29 17:08:24 UTC 2026",
        "Sunday, November 29th",
        "Sept. 9, 2026",
        "17:08 on Sunday, 29 November 2026",
        "29-Nov-2026",
        "5 PM, 29 November 2026",
    ],
)
def test_a_date_is_one_match(text):
    """All of a date is masked, with its time, and nothing beside it."""
    assert key(f"Now: {text}, go.", "date") == key("Now: 2026-11-29, go.", "date")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("report of May 2026", "report of June 2026"),
        ("May 3 people come", "May 4 people come"),
        ("the 3 may go", "the 4 may go"),
        ("on 3 May 20 people came", "on 3 May 30 people came"),
        ("November 29", "November 30"),
        ("Is it Sunday?", "Is it Monday?"),
        ("in 2026", "in 2027"),
        ("it ended 3:2", "it ended 3:1"),
        ("it ended 17:08", "it ended 17:09"),
        ("version 1.2.2024.3", "version 1.3.2024.3"),
        ("version 2024.12.13", "version 2024.12.14"),
        ("10.11.12.13", "10.11.12.14"),
        ("17:08:24 it is", "17:08:24 at is"),
        ("at 17:08:24 BUTTER", "at 17:08:24 BREAD"),
        ("Maya 3, 2026", "Maya 4, 2026"),
        ("40 November 2026", "41 November 2026"),
        ("29/13/20266", "28/13/20266"),
        ("32/12/2026", "33/12/2026"),
    ],
)
def test_what_is_no_date(one, two):
    """A month with its year, a weekday, a score, a version and a number of people are the question."""
    assert key(one, "date") != key(two, "date")


# ---- folders

HERE = Folders("/home/ann/shop", ("/home/ann/shop/.tox/py/tmp", "/home/ann/t"))
THERE = Folders("/builds/7/shop", ("/builds/tox/tmp/popen-gw3", "/var/run/x"))


@pytest.mark.parametrize(
    ("here", "there", "same"),
    [
        (
            "read /home/ann/shop/.tox/py/tmp/test_x0/a.txt",
            "read /builds/tox/tmp/popen-gw3/test_x0/a.txt",
            True,
        ),
        ("read /home/ann/t/tmpab12cd_9/a.txt", "read /var/run/x/tmpzzzzzzzz/a.txt", True),
        ("read /home/ann/t/tmpab12cd_9/a.txt", "read /tmp/tmpzzzzzzzz/a.txt", True),
        ("read /home/ann/t/a.txt", "read /var/run/x/b.txt", False),
        ("read /home/ann/t/a.txt", "read /builds/tox/a.txt", False),
        ("read /home/ann/tea/a.txt", "read /home/ann/tee/a.txt", False),
        ("read /x/home/ann/t", "read /x/var/run/x", False),
    ],
)
def test_known_temporary_folders(here, there, same):
    """``--basetemp`` and TMPDIR, which the caller names, are temporary folders too."""
    one, two = key(here, "tmp_path", folders=HERE), key(there, "tmp_path", folders=THERE)
    assert (one == two) is same


@pytest.mark.parametrize(
    "temporary", ["/tmp", "/tmp/ann", "/var/folders/x9/k_1/T", r"C:\\Users\\Ann\\AppData\\Local\\Temp"]
)
def test_pytests_own_folder_lies_in_the_temporary_one(temporary):
    """Without ``--basetemp``, ``tmp_path`` of the next run is masked as a whole, not only the folder that holds it."""
    folders = Folders("/home/ann/shop", (temporary,))
    first, next_run, other_file = (
        key(f"read {temporary}/pytest-of-ann/{rest}", "tmp_path", folders=folders)
        for rest in ("pytest-7/test_x0/a.txt", "pytest-8/popen-gw1/test_x0/a.txt", "pytest-8/test_x0/b.txt")
    )
    assert first == next_run
    assert first != other_file


@pytest.mark.parametrize(
    ("here", "there", "same"),
    [
        ("read /home/ann/shop/src/a.py.", "read /builds/7/shop/src/a.py.", True),
        ("in /home/ann/shop.", "in /builds/7/shop.", True),
        ("file:///home/ann/shop/a", "file:///builds/7/shop/a", True),
        ("read /home/ann/shop/src/a.py", "read /builds/7/shop/src/b.py", False),
        ("read /home/ann/shop.bak/a", "read /builds/7/shop.bak/a", False),
        ("read /home/ann/shop-2/a", "read /builds/7/shop-2/a", False),
        ("read /mnt/home/ann/shop/a", "read /mnt/builds/7/shop/a", False),
    ],
)
def test_the_folder_of_the_checkout(here, there, same):
    """``rootdir`` masks the checkout's own folder, which another machine has elsewhere, and keeps what lies in it."""
    assert (key(here, "rootdir", folders=HERE) == key(there, "rootdir", folders=THERE)) is same


def test_folders_of_windows():
    """A folder is found with its slashes doubled by JSON and single, and its files are those of Linux."""
    windows = Folders(r"D:\work\shop", (r"D:\t",))
    for text in (
        r"read D:\work\shop\src\a.py",
        r"read D:\\work\\shop\\src\\a.py",
        "read D:/work/shop/src/a.py",
    ):
        assert key(text, "rootdir", folders=windows) == key(
            "read /builds/7/shop/src/a.py", "rootdir", folders=THERE
        )


@pytest.mark.parametrize("folders", [Folders(), Folders("/", ("/",))])
def test_no_folder_masks_nothing(folders):
    """Where a folder is not known, or is the root of all, paths stay what they are."""
    for name in ("rootdir", "tmp_path"):
        assert key("read /srv/a", name, folders=folders) != key("read /opt/a", name, folders=folders)


# ---- ids of tool calls


def turn(ident, text, *, arguments="{}"):
    """A question after an agent's own call of a tool."""
    call = {"id": ident, "type": "function", "function": {"name": "find", "arguments": arguments}}
    return {
        "messages": [
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": ident, "content": text},
        ]
    }


@pytest.mark.parametrize(
    "wrapped", ["{}", "call {} done", '{{"id": "{}"}}', "id:{}.", "({}|x)", "see {}, {}"]
)
def test_ids_that_texts_repeat(wrapped):
    """An agent's own id is masked in its fields, and where a tool's result or arguments repeat it."""
    one, two = (
        key(turn(ident, wrapped.format(ident, ident), arguments=wrapped.format(ident, ident)), "tool_call_id")
        for ident in ("weather-7f3a", "weather-91bc")
    )
    assert one == two


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (turn("1", "1 apple"), turn("2", "2 apples")),
        (turn("search", "search it"), turn("lookup", "lookup it")),
        (turn("step-1a", "step-1ab"), turn("step-2a", "step-2ab")),
        (turn("step-1a", "the other is step-2a"), turn("step-3a", "the other is step-4a")),
    ],
)
def test_what_only_looks_like_an_id(one, two):
    """Short ids, ids without a digit, parts of words and ids of other calls stay what they are."""
    assert key(one, "tool_call_id") != key(two, "tool_call_id")


def test_ids_are_found_in_the_texts_of_the_strategy_content():
    """``content`` leaves out the fields; an id that a text repeats is known from them all the same."""
    by = strategy("content", ["tool_call_id"])
    one, two = (
        by.key(Call("completion", turn(each, f"done: {each}"))) for each in ("weather-7f3a", "weather-91bc")
    )
    assert one == two
