"""The page as a reader has it in a real Chromium: text, search, filters, links, keys, themes."""

import base64
import struct
import zlib
from pathlib import Path

import pytest
from helpers import call, interaction, reply

from pytest_lmcache.cassette.document import entry_of
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.report.changes import compared, recorded_again
from pytest_lmcache.stream_chunks import pack

pytestmark = pytest.mark.slow

NASTY = (
    "</script><script>window.hacked = 1</script><!-- <script> ]]> <img src=x onerror='window.hacked = 2'>"
    "<svg/onload=window.hacked=3> <a href='javascript:window.hacked=4'>a</a> &lt;b&gt; \u2028 \ud800 {{ 7 * 7 }} ${1}"
)


def chat(text, answer="Yes.", *, model="openai/m", test="test_shop.py::test_one", **more):
    asked = Call("completion", {"model": model, "messages": [{"role": "user", "content": text}], **more})
    return interaction(asked, reply(answer, usage={"prompt_tokens": 7, "completion_tokens": 3}))


def png(width=8, height=8):
    """A red image."""
    rows = zlib.compress(b"".join(b"\0" + b"\xff\0\0" * width for _ in range(height)))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


# ---- everything is text --------------------------------------------------------------------------------


def test_html_and_script_show_as_text(read, recorded):
    """Whatever a prompt, an answer, a tool, a model or a test's name holds, a reader sees it as it is, and nothing runs."""
    tool = {"type": "function", "function": {"name": NASTY, "description": NASTY}}
    message = {
        "role": "assistant",
        "content": NASTY,
        "reasoning_content": NASTY,
        "tool_calls": [{"id": NASTY, "type": "function", "function": {"name": NASTY, "arguments": NASTY}}],
    }
    asked = Call(
        "completion",
        {"model": NASTY, "messages": [{"role": NASTY, "content": NASTY}], "tools": [tool], "stop": NASTY},
    )
    answer = Answer(Kind.RESPONSE, {"choices": [{"finish_reason": NASTY, "message": message}]}, seconds=1.0)
    part = recorded(interaction(asked, answer), test=NASTY)
    difference = {"path": NASTY, "words": [["added", NASTY]]}
    groups = [
        {
            "title": NASTY,
            "facts": [NASTY],
            "differences": [difference],
            "also": [NASTY],
            "tests": [NASTY, "b"],
        }
    ]
    reader = read([part], "#/conversations", misses=groups, mends=[NASTY])
    for summary in reader.page.locator("details summary").all():
        summary.click()
    assert reader.page.locator(".talk .text").first.evaluate("each => each.textContent") == NASTY
    assert reader.page.locator(".toolcall pre").evaluate("each => each.textContent") == NASTY
    assert reader.page.locator(".thought .text").evaluate("each => each.textContent") == NASTY
    assert NASTY in reader.page.locator(".code").evaluate(
        "each => JSON.parse(each.textContent).function.name"
    )
    reader.open("#/")
    reader.open("#/misses")
    assert reader.page.locator(".miss ins").evaluate("each => each.textContent") == NASTY
    assert reader.page.evaluate("window.hacked") is None
    assert reader.page.locator("script").count() == 2
    assert reader.page.locator("main img, main svg, main iframe").count() == 0


def test_policy_stops_what_is_not_of_the_page(read, recorded):
    """The page's own policy lets no other script, style, image or request through."""
    reader = read([recorded(chat("hello"))])
    reader.page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        document.body.append(script);
        const style = document.createElement("style");
        style.textContent = "body { display: none }";
        document.head.append(style);
        document.body.setAttribute("style", "display: none");
        const image = new Image();
        image.src = "https://example.com/x.png";
        document.body.append(image);
        return fetch("https://example.com/").catch(() => null);
    }""")
    reader.page.wait_for_timeout(100)
    stopped = {line.removeprefix("CSP ") for line in reader.complaints if line.startswith("CSP ")}
    assert stopped == {"script-src-elem", "style-src-elem", "style-src-attr", "img-src", "connect-src"}
    assert reader.page.evaluate("window.hacked") is None
    assert reader.page.is_visible("body")
    reader.complaints.clear()
    reader.requests = [url for url in reader.requests if "example.com" not in url]


def test_figures_without_script(read, recorded):
    """The figures of the run are there for a reader whose browser runs no script."""
    reader = read([recorded(chat("hello"), outcome="replayed")], java_script_enabled=False)
    assert "1\nreplayed" in reader.text(".figures").replace(" ", "")
    assert "saved 10 tokens" in reader.text("main")


# ---- what a conversation shows -------------------------------------------------------------------------


def test_conversation_is_readable(read, recorded):
    """Roles, text, reasoning, calls of tools with their arguments, results of tools, parameters, tools, errors."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where is A-1?"},
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "track", "arguments": '{"order": "A-1"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "shipped"},
    ]
    tools = [{"type": "function", "function": {"name": "track", "parameters": {"type": "object"}}}]
    answer = {
        "choices": [
            {
                "finish_reason": "stop",
                "message": {
                    "role": "assistant",
                    "content": "On its way.",
                    "reasoning_content": "It was shipped.",
                },
            }
        ]
    }
    asked = Call(
        "completion", {"model": "openai/m", "messages": messages, "tools": tools, "temperature": 0.5}
    )
    error = Answer(Kind.ERROR, {"class": "litellm.RateLimitError", "message": "Slow down."}, seconds=0.1)
    reader = read(
        [
            recorded(
                interaction(asked, Answer(Kind.RESPONSE, answer, seconds=2.5)), interaction("again", error)
            )
        ],
        "#/conversations",
        outcomes={"test_shop.py::test_one": "failed"},
    )
    assert reader.page.locator(".role").all_inner_texts() == [
        "system",
        "user",
        "assistant",
        "tool\nc1",
        "answer",
    ]
    assert "track" in reader.text(".toolcall")
    assert '"order": "A-1"' in reader.text(".toolcall pre")
    assert "test failed" in reader.text(".meta")
    assert "2.50 s" in reader.text(".meta")
    reader.page.get_by_text("1 parameter: temperature").click()
    assert reader.text(".given") == "temperature\n0.5"
    reader.page.get_by_text("1 tool: track").click()
    assert '"type": "object"' in reader.text(".code")
    reader.page.get_by_text("Reasoning, 3 words").click()
    assert reader.text(".thought .text") == "It was shipped."
    reader.press("j")
    assert reader.text(".paper > .problem") == "litellm.RateLimitError: Slow down."


def test_image_with_bytes_is_shown_and_others_are_named(read, recorded):
    """An image is shown if the cassette has its bytes; one at an address is named and never fetched."""
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": png()}},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,PHN2Zy8+"}},
    ]
    asked = Call("completion", {"model": "openai/m", "messages": [{"role": "user", "content": content}]})
    reader = read([recorded(interaction(asked, reply("A cat.")))], "#/conversations")
    image = reader.page.locator(".image img")
    assert image.evaluate("each => each.decode().then(() => each.naturalWidth)") == 8
    assert "https://example.com/cat.png" in reader.text(".file >> nth=0")
    assert "image/svg+xml" in reader.text(".file >> nth=1")


def test_stream_shows_its_chunks(read, recorded):
    """A stream shows its joined text, the size of each chunk in order, and the text of each chunk."""
    texts = ["On ", "its", " way, dear customer."]
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    asked = call("Where?", stream=True)
    reader = read(
        [recorded(interaction(asked, Answer(Kind.STREAM, pack(chunks), seconds=1.25)))], "#/conversations"
    )
    assert reader.text(".message.answer .text") == "On its way, dear customer."
    heights = reader.page.locator(".rhythm rect").evaluate_all(
        "all => all.map((each) => +each.getAttribute('height'))"
    )
    assert len(heights) == 3
    assert heights[2] == max(heights) == 29
    assert "Streamed in 4 chunks, 3 with text, 3 to 20 characters each." in reader.text(".rhythm p")
    assert "The stream took 1.25 s. The recording has no time of each." in reader.text(".rhythm p")
    reader.page.get_by_text("Text by chunk").click()
    reader.page.wait_for_selector(".pieces span")
    assert reader.page.locator(".pieces span").all_text_contents() == texts


def test_stream_shows_its_rhythm(read, recorded):
    """If the recording has the time before each chunk, the bars are these times."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("On ", "its", " way.")]
    answer = Answer(Kind.STREAM, pack(chunks), seconds=1.25, pace=(400, 10, 800))
    reader = read([recorded(interaction(call("Where?", stream=True), answer))], "#/conversations")
    heights = reader.page.locator(".rhythm rect").evaluate_all(
        "all => all.map((each) => +each.getAttribute('height'))"
    )
    assert heights == [14.5, 1.5, 29]
    assert "all with text, 10 to 800 ms before each. The stream took 1.25 s." in reader.text(".rhythm p")


def test_long_text_is_cut_until_asked_for(read, recorded):
    """A very long text does not hold the page up: its end is shown on request."""
    reader = read([recorded(chat("x" * 50_000 + "end"))], "#/conversations")
    assert reader.page.locator(".message.user .text").evaluate("each => each.textContent.length") == 20_000
    reader.page.get_by_text("Show all 50,003 characters").click()
    assert reader.text(".message.user .text").endswith("end")


# ---- finding -------------------------------------------------------------------------------------------


@pytest.fixture
def shop(recorded):
    """Six conversations of three tests."""
    return [
        recorded(chat("Where is my parcel?", "In Paris."), chat("And the boots?", model="anthropic/n"), test="a/test_shop.py::test_parcel", outcome="replayed"),
        recorded(chat("Refund me.", "Of course."), chat("Thanks.", "Welcome back to PARIS."), test="a/test_shop.py::test_refund[a b]", outcome="recorded"),
        recorded(chat("Write a poem."), chat("A shorter one.", temperature=0), test="b/test_poems.py::test_poem", outcome="replayed"),
    ]  # fmt: skip


def test_search_looks_everywhere(read, shop):
    """A search finds words of questions and answers in any case, quoted phrases, tests and models, and marks them."""
    reader = read(shop, "#/conversations")
    search = reader.page.locator(".search input")
    search.fill("paris")
    assert reader.rows() == ["Where is my parcel?", "Thanks."]
    assert reader.text(".found span") == "2 of 6 conversations"
    assert reader.page.locator(".talk mark").all_inner_texts() == ["Paris"]
    for query, found in {
        '"is my"': ["Where is my parcel?"],
        "paris welcome": ["Thanks."],
        "test_poem short": ["A shorter one."],
        "anthropic": ["And the boots?"],
        "<b>": [],
    }.items():
        search.fill(query)
        assert reader.rows() == found, query
    assert reader.page.is_visible("text=No conversation matches.")
    reader.page.get_by_text("Show all").click()
    assert len(reader.rows()) == 6


def test_filters_and_orders(read, shop):
    """Outcome, model and file narrow the list together, and it can be put in another order."""
    reader = read(shop, "#/conversations")
    reader.page.get_by_label("Outcome").select_option("replayed")
    assert len(reader.rows()) == 4
    reader.page.get_by_label("File").select_option("a/test_shop.py")
    assert reader.rows() == ["Where is my parcel?", "And the boots?"]
    reader.page.get_by_label("Model").select_option("anthropic/n")
    assert reader.rows() == ["And the boots?"]
    assert reader.address() == "#/conversations?outcome=replayed&file=a/test_shop.py&model=anthropic/n"
    reader.page.get_by_text("Show all").click()
    reader.page.get_by_label("Order").select_option("seconds")
    assert len(reader.rows()) == 6


def test_figures_and_bars_lead_to_conversations(read, shop):
    """A click on a figure or on a bar of the overview shows the conversations that it counts."""
    reader = read(shop)
    assert "4\nreplayed\n2\nrecorded\n0\nmissed\n0\nunused" in reader.text(".figures").replace(" ", "")
    assert "saved 40 tokens" in reader.text("#overview")
    assert "spent 20 tokens" in reader.text("#overview")
    assert (
        reader.page.locator(".bars")
        .nth(1)
        .locator("a")
        .all_inner_texts()[0]
        .startswith("a/test_shop.py\n40 tokens")
    )
    reader.page.get_by_role("link", name="recorded").click()
    assert reader.rows() == ["Refund me.", "Thanks."]
    reader.open("#/")
    reader.page.get_by_role("button", name="Calls").click()
    reader.page.locator(".bars a", has_text="test_poem").last.click()
    assert reader.rows() == ["Write a poem.", "A shorter one."]


# ---- links ---------------------------------------------------------------------------------------------


def test_link_shows_the_same_again(read, shop):
    """The address names the search and the conversation: opened anew, it shows the same; so does going back."""
    reader = read(shop, "#/conversations?call=a/test_shop.py::test_refund[a b]/2")
    assert "Welcome back" in reader.text(".talk")
    assert reader.page.locator("[aria-selected=true] .grow").first.inner_text() == "Thanks."
    reader.page.locator(".search input").fill("paris & co")
    reader.page.locator(".search input").fill("paris")
    reader.page.locator(".call").nth(1).click()
    reader.page.wait_for_timeout(250)
    again = read(path=reader.path, address=reader.page.evaluate("location.hash"))
    assert again.rows() == ["Where is my parcel?", "Thanks."]
    assert "Welcome back" in again.text(".talk")
    again.page.get_by_role("link", name="Overview").click()
    again.page.go_back()
    assert again.rows() == ["Where is my parcel?", "Thanks."]


def test_link_to_what_is_gone(read, shop):
    """A link to a conversation that this page does not have says so; a broken address shows the overview."""
    reader = read(shop, "#/conversations?call=a/test_gone.py::test_it/1")
    assert "This report has no conversation a/test_gone.py::test_it/1" in reader.text(".read")
    reader.open("#/%E0%A4%A?=%")
    assert reader.page.is_visible("#overview")


# ---- keys and themes -----------------------------------------------------------------------------------


def test_keyboard(read, shop):
    """j and k move, / searches, Enter reads, Escape goes back; what has the focus can be seen, and is named."""
    reader = read(shop, "#/conversations")
    selected = reader.page.locator("[aria-selected=true] .grow").first
    reader.press("j", "j")
    assert selected.inner_text() == "Refund me."
    assert "Of course." in reader.text(".talk")
    reader.press("k")
    assert selected.inner_text() == "And the boots?"
    reader.press("/")
    reader.page.keyboard.type("jk/poem")
    assert reader.page.locator(".search input").input_value() == "jk/poem"
    reader.press("Escape")
    assert reader.page.locator(".search input").input_value() == ""
    reader.press("Escape", "End")
    assert selected.inner_text() == "A shorter one."
    focus = "getComputedStyle(document.activeElement).outlineStyle"
    assert reader.page.evaluate("document.activeElement.getAttribute('role')") == "listbox"
    active = reader.page.evaluate("document.activeElement.getAttribute('aria-activedescendant')")
    assert reader.page.get_attribute(f"#{active}", "aria-posinset") == "6"
    assert reader.page.evaluate(focus) == "solid"
    reader.press("Enter")
    assert reader.page.evaluate("document.activeElement.className") == "read"
    reader.press("Escape")
    assert reader.page.evaluate("document.activeElement.className") == "list"
    reader.press("1")
    reader.page.wait_for_selector("#overview")
    reader.press("Tab", "Tab")
    assert reader.page.evaluate(focus) == "solid"
    reader.press("?")
    assert reader.page.is_visible("#keys")
    reader.press("Escape")
    assert not reader.page.is_visible("#keys")


def test_theme_follows_the_system_until_it_is_switched(read, shop):
    """The page is light or dark as the system is; a switch holds for the next page too."""
    reader = read(shop, color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = reader.page.evaluate(background)
    reader.page.emulate_media(color_scheme="light")
    light = reader.page.evaluate(background)
    assert dark != light
    reader.page.get_by_role("button", name="Dark").click()
    assert reader.page.evaluate(background) == dark
    reader.open("#/conversations")
    reader.page.reload()
    assert reader.page.evaluate(background) == dark
    reader.press("t")
    assert reader.page.evaluate(background) == light


def test_narrow_page(read, shop):
    """On a narrow page the list and the conversation take turns."""
    reader = read(shop, "#/conversations")
    reader.page.set_viewport_size({"width": 400, "height": 700})
    assert not reader.page.is_visible(".talk")
    reader.page.locator(".call").nth(2).click()
    assert "Of course." in reader.text(".talk")
    assert not reader.page.is_visible(".list")
    assert reader.page.evaluate("document.documentElement.scrollWidth") <= 400
    reader.press("Escape")
    assert reader.page.is_visible(".list")


# ---- many ----------------------------------------------------------------------------------------------


def test_five_thousand_conversations(read, recorded):
    """Of 5,000 conversations only those in sight are in the document, whatever is searched and wherever the reader is."""
    [one] = recorded(chat("question"))["calls"]
    parts = [
        {"test": f"test_{number % 100}.py::test_{number}", "cassette": "", "calls": [{**one, "asked": [{"role": "user", "text": f"question {number}"}], "outcome": "replayed"}]}
        for number in range(5_000)
    ]  # fmt: skip
    reader = read(parts, "#/conversations")
    assert reader.text(".found span") == "5,000 conversations"
    reader.page.locator(".list").focus()
    reader.press("End")
    assert reader.rows()[-1] == "question 4999"
    assert "question 4999" in reader.text(".talk")
    assert len(reader.rows()) < 40
    reader.page.locator(".list").evaluate("list => { list.scrollTop = 62 * 2500; }")
    reader.page.wait_for_selector(".call[data-place='2500']")
    assert len(reader.rows()) < 40
    reader.page.locator(".search input").fill('"question 321"')
    assert reader.text(".found span") == "11 of 5,000 conversations"
    reader.open("#/")
    assert reader.page.locator("#overview *").count() < 500


def test_before_and_after(read, recorded):
    """A recording that was made again shows what it said before and says now, with tokens, USD and seconds."""
    old = Answer(
        Kind.RESPONSE, {"choices": [{"message": {"content": "In Paris <today>."}}]}, seconds=2.0, usd=0.5
    )
    new = Answer(
        Kind.RESPONSE, {"choices": [{"message": {"content": "In Rome <today>."}}]}, seconds=1.0, usd=0.25
    )
    part = recorded(interaction("Where is my parcel?", new), chat("other"), outcome="recorded")
    entry = entry_of(interaction("Where was my parcel?", old), Path())
    part["calls"][0]["comparison"] = recorded_again(entry, interaction("Where is my parcel?", new))
    reader = read([part])
    reader.page.get_by_role("link", name="Re-recorded").click()
    assert reader.rows() == ["Where is my parcel?"]
    assert reader.text(".found span") == "1 of 2 conversations · re-recorded"
    assert reader.page.locator(".compare .diff del").all_inner_texts() == ["was"]
    sides = reader.page.locator(".sides > div")
    assert sides.nth(0).inner_text() == "Answer before\nIn Paris <today>."
    assert sides.nth(1).inner_text() == "Answer now\nIn Rome <today>."
    assert sides.nth(1).locator("ins").inner_text() == "Rome"
    reader.page.get_by_text("Tokens, USD, seconds").click()
    assert "USD\t$0.50\t$0.25" in reader.text(".compare table")
    assert reader.page.get_attribute("nav a[aria-current]", "data-view") == "compared"


def test_asked_again(read, recorded):
    """A question that another model was asked shows both answers, their models and the verdict."""
    part = recorded(chat("Capital of France?", "Paris."), outcome="replayed")
    old, new = (
        chat("Capital of France?", "Paris."),
        chat("Capital of France?", "It is Paris.", model="openai/new"),
    )
    again = {**compared("asked again", old, new, "different"), "question": []}
    part["calls"][0]["comparison"] = again
    reader = read([part])
    reader.page.get_by_role("link", name="Asked again").click()
    reader.page.wait_for_selector(".compare")
    assert reader.text(".compare h3") == "Asked again: different"
    assert reader.page.locator(".sides h4").all_inner_texts() == ["Recorded answer", "New answer"]
    reader.page.get_by_text("Tokens, USD, seconds").click()
    assert "Model\topenai/m\topenai/new" in reader.text(".compare table")
