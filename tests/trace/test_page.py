"""What a page about recordings holds, and that it is one file which nothing in it can break."""

import base64
import gzip
import json
import re
from typing import Any

import attrs
import pytest
from tests.trace.scenes import ODD, START, Scene, two_connections

from slipstream_trio.telemetry import Record
from slipstream_trio.trace import Finding, page as page_module
from slipstream_trio.trace.page import Page, render_page
from slipstream_trio.trace.selection import Selection, look
from slipstream_trio.trace.text import as_text, flat_state, plain


def content_of(records: list[Record], **options: Any) -> dict[str, Any]:
    page = Page(**options)
    for glance in look([records]):
        page.add(glance)
    return page.content()


def rows_of(content: dict[str, Any], what: str) -> list[int]:
    number = content["texts"].index(what)
    return [row for row, its in enumerate(content["what"]) if its == number]


def test_rows_are_in_order_and_say_when_and_how_long() -> None:
    content = content_of(two_connections())
    assert content["begin"] == sorted(content["begin"])
    assert content["start"] == str(START)
    row = rows_of(content, "client push")[0]
    assert content["took"][row] == 1_100_000
    assert content["texts"][content["payload"][row]] == "{}"
    assert '"number":0' in content["texts"][content["more"][row]]


def test_gaps_and_waits_last_as_long_as_what_they_tell_of() -> None:
    content = content_of(two_connections())
    (gap,), (reconnect,) = rows_of(content, "gap"), rows_of(content, "reconnect")
    assert content["took"][reconnect] == 50_000_000
    assert content["took"][gap] > 50_000_000
    assert abs(content["begin"][gap] - content["begin"][reconnect]) <= 50_000  # the handling of the end


def test_findings_lead_to_the_rows_that_show_them() -> None:
    records = two_connections()
    page = Page()
    glances = list(look([records]))
    for glance in glances:
        page.add(glance)
    [lost] = [glance for glance in glances if glance.line.what == "closed" and glance.line.mood == "bad"]
    finding = Finding(
        cause="x", gravity="grave", blame="server", mechanism="it broke", times=(lost.end, lost.end - 1, lost.end * 2)
    )
    content = page.content([finding])
    assert content["findings"][0]["mechanism"] == "it broke"
    row, last = content["findings"][0]["rows"]
    assert row in rows_of(content, "closed")
    assert content["begin"][last] == max(content["begin"])
    assert Page().content([finding])["findings"][0]["rows"] == []
    latest = Page(last=1)
    for glance in glances:
        latest.add(glance)
    left_out = attrs.evolve(finding, times=(lost.end,))
    assert latest.content([left_out])["findings"][0]["rows"] == []


def test_a_page_of_a_part_keeps_the_clock_of_the_whole() -> None:
    whole, part = content_of(two_connections()), Page()
    for glance in look([two_connections()], Selection(kinds=["gap"])):
        part.add(glance)
    assert part.content()["start"] == whole["start"]
    [gap] = rows_of(whole, "gap")
    assert part.content()["begin"] == [whole["begin"][gap]]


def test_states_are_differences_that_add_up() -> None:
    records = two_connections()
    content = content_of(records)
    stops = {record.metadata["span_id"]: record for record in records if record.name[2:] == ("handle", "stop")}
    ids = content["span_ids"].split(" ")
    state: dict[str, Any] = {}
    told = 0
    for row, change in enumerate(content["states"]):
        if change == 0:
            assert ids[row] not in stops
            continue
        metadata = stops[ids[row]].metadata
        if change != 1 and len(change) == 3:
            state = dict(change[2])
        assert state == flat_state(metadata["state"])
        if change != 1:
            state = {key: value for key, value in {**state, **change[0]}.items() if key not in change[1]}
        assert state == flat_state(metadata["end_state"])
        told += change == 1
    assert told  # what changes nothing costs nothing
    assert sum(change not in (0, 1) and len(change) == 3 for change in content["states"]) == 2  # one a connection


def test_a_state_that_does_not_follow_is_told_in_full() -> None:
    records = [record for record in two_connections() if record.name[1] == "connection"]
    kept = [record for number, record in enumerate(records) if not 4 <= number < 12]
    content = content_of(kept)
    assert sum(change not in (0, 1) and len(change) == 3 for change in content["states"]) == 3


def test_connections_are_told_with_their_ends() -> None:
    first, second = content_of(two_connections())["connections"]
    assert (first["connection_id"], first["reason"], second["reason"]) == ("1" * 16, "lost", "closed_by_client")
    assert first["end"] < second["end"]
    assert second["state"]["options.url"] == "ws://localhost/socket/websocket"
    (cut,) = content_of(two_connections()[:30])["connections"]
    assert (cut["end"], cut["reason"]) == (None, None)


def test_only_the_last_rows_are_kept_if_asked_for() -> None:
    page = Page(last=10)
    for glance in look([two_connections()]):
        page.add(glance)
    assert (page.rows, len(page.content()["begin"])) == (10, 10)
    assert page.left_out == len(content_of(two_connections())["begin"]) - 10


def test_of_too_much_text_the_last_rows_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = content_of(two_connections())
    monkeypatch.setattr(page_module, "MAX_TEXT", 1_000)
    content = content_of(two_connections())
    assert 0 < len(content["begin"]) == len(whole["begin"]) - content["left_out"] < len(whole["begin"])
    assert set(content["span_ids"].split()) < set(whole["span_ids"].split())
    assert sum(len(content["texts"][row]) for name in ("payload", "more") for row in content[name]) <= 1_000


def test_long_payloads_are_cut_off_and_say_so() -> None:
    scene = Scene()
    scene.connect()
    scene.join("t")
    scene.push("t", "e", {"long": "x" * 1000})
    texts = content_of(scene.records, payload_limit=50)["texts"]
    assert max(map(len, texts)) < 80
    assert any(re.search(r"x… \(1,0\d\d characters\)$", text) for text in texts)


def unpacked(html: str) -> Any:
    (packed,) = re.findall(r'id="content">([^<]*)</script>', html)
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_the_file_holds_the_content_and_loads_nothing() -> None:
    content = content_of(two_connections())
    html = render_page(content, "a title")
    assert unpacked(html) == content
    assert html.count("<script") == html.count("</script>") == 2
    assert re.findall(r"""(?:src|href)=["'](?!data:)|https?://|@import|url\(""", html) == []
    assert "default-src 'none'" in html
    assert "%%" not in html


def test_nothing_in_it_is_taken_for_markup() -> None:
    html = render_page({"texts": [ODD, "\udc9d"]}, f"{ODD}%%content%%\udc9d")
    assert unpacked(html) == {"texts": [ODD, "\udc9d"]}
    assert "</script><!--" not in html
    assert html.count("<script") == 2
    html.encode("utf-8")


def test_the_same_content_gives_the_same_file() -> None:
    assert render_page(content_of(two_connections()), "t") == render_page(content_of(two_connections()), "t")


@attrs.frozen
class Odd:
    number: float
    inner: Any


def test_any_value_is_told_as_json() -> None:
    value = {"a": Odd(float("inf"), (b"\x00\xff", {1: None})), "b": {3}, "c": object}
    told = plain(value)
    assert told["a"] == {
        "type": "Odd",
        "number": "inf",
        "inner": [{"bytes": 2, "base64": "AP8="}, {"1": None}],
    }
    assert (told["b"], told["c"]) == ([3], "<class 'object'>")
    json.dumps(told, allow_nan=False)


def test_bytes_are_told_by_their_number_and_their_beginning() -> None:
    assert as_text(bytes(3), 100) == '{"bytes":3,"base64":"AAAA"}'
    assert as_text(bytes(300), 40).startswith('{"bytes":300,"base64":"AAAAAA')


def test_keys_may_be_what_json_has_no_keys_of() -> None:
    assert as_text({(1, 2): {b"x": None}}, 100) == '{"(1, 2)":{"b\'x\'":null}}'
