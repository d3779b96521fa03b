"""Lines in order of their begin, silences that no record tells, outages as a whole, and repeats put together."""

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from tests.trace.scenes import Scene, two_connections

from slipstream_trio.protocol import JoinTopic, TransportClosed, TransportFailed
from slipstream_trio.telemetry import GapOpened, ReconnectScheduled
from slipstream_trio.trace import selection
from slipstream_trio.trace.selection import Glance, Selection, grouped, look

SECOND = 1_000_000_000


def shown(scene: Scene, **options: Any) -> list[tuple[str, float]]:
    return [(glance.line.what, round(glance.elapsed / SECOND, 3)) for glance in look([scene.records], **options)]


def connected() -> Scene:
    scene = Scene()
    scene.connect()
    scene.join("room:1")
    return scene


def drop(scene: Scene) -> None:
    scene.handle(TransportClosed(1006, "reset"))
    scene.end("lost")
    scene.once(ReconnectScheduled, 1.0, 1, "lost", 1006, None)
    scene.pass_time(SECOND)


def fail_to_connect(scene: Scene) -> None:
    handle = scene.handle
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene, "handle", lambda _: handle(TransportFailed("refused to talk")))
        scene.connect()
    stop: Any = scene.records[-1]
    scene.records[-1] = attrs.evolve(stop, outcome="error")
    scene.end("connect_failed")
    scene.pass_time(SECOND)


def of_kind(what: str, scene: Scene, **options: Any) -> list[Glance]:
    return [glance for glance in look([scene.records], **options) if glance.line.what == what]


def test_a_span_is_told_where_it_began() -> None:
    scene = connected()
    scene.pass_time(1_000)
    scene.push("room:1", "slow", {}, "timeout", took=5 * SECOND)
    scene.frame("1", None, "room:1", "tick")
    ((queued, began), (push, at)), after = shown(scene)[-3:-1], shown(scene)[-1]
    assert (queued, push, after[0]) == ("push", "client push", "message")
    assert began == at < after[1] - 4.9


def test_a_silence_is_a_line_where_something_is_owed() -> None:
    scene = connected()
    scene.pass_time(SECOND)
    scene.handle(JoinTopic(0.0, "room:2", {}, None))
    scene.pass_time(9 * SECOND)
    scene.reply("room:2", "ok")
    [silence] = of_kind("silence", scene)
    assert (silence.line.mood, silence.line.note) == ("bad", "nothing came, 1 frame was sent")
    assert silence.line.took is not None
    assert 10 * SECOND <= silence.line.took < 10.1 * SECOND
    whats = [what for what, _ in shown(scene)]
    assert whats.index("silence") < whats.index("join", whats.index("client join") + 1)


def test_a_silence_is_a_line_where_messages_came_steadily_before() -> None:
    scene = connected()
    for _ in range(50):
        scene.frame("1", None, "room:1", "tick")
        scene.pass_time(SECOND // 10)
    scene.pass_time(3 * SECOND)
    assert of_kind("silence", scene) == []
    scene.frame("1", None, "room:1", "tick")
    assert len(of_kind("silence", scene)) == 1


def test_a_silence_lasts_to_the_end_of_the_connection_or_of_the_recording() -> None:
    scene = connected()
    scene.handle(JoinTopic(0.0, "room:2", {}, None))
    scene.pass_time(4 * SECOND)
    scene.once(GapOpened, "room:1", "rejoined", datetime.now(UTC), datetime.now(UTC), 0)
    [silence] = of_kind("silence", scene)
    assert silence.line.note.endswith("; it lasts")
    scene.end("lost")
    [silence] = of_kind("silence", scene)
    assert silence.line.note == "nothing came, 1 frame was sent"


def test_an_idle_connection_is_not_silent() -> None:
    scene = connected()
    scene.pass_time(100 * SECOND)
    scene.frame("1", None, "room:1", "tick")
    assert of_kind("silence", scene) == []


def test_a_lost_connection_and_the_attempts_after_it_are_one_line() -> None:
    scene = connected()
    drop(scene)
    for _ in range(2):
        fail_to_connect(scene)
    scene.connect()
    [outage] = of_kind("outage", scene, fold=True)
    assert outage.line.status == "lost"
    assert outage.line.note == "1006 lost reset; back after 3 attempts, the last: refused to talk"
    assert outage.line.took is not None
    assert 3 * SECOND <= outage.line.took < 3.1 * SECOND
    whats = [what for what, _ in shown(scene, fold=True)]
    assert whats.count("connection") == 1
    assert not {"reconnect", "failed", "closed"} & set(whats)
    assert of_kind("outage", scene) == []


def test_a_channel_that_the_server_closes_is_not_an_outage() -> None:
    scene = connected()
    scene.frame("1", "1", "room:1", "phx_close")
    assert shown(scene, fold=True)[-1][0] == "closed"


def test_an_outage_without_an_end_is_told_too() -> None:
    scene = connected()
    drop(scene)
    [outage] = of_kind("outage", scene, fold=True)
    assert outage.line.note == "1006 lost reset; no other connection after 0 attempts"


def test_what_goes_wrong_alike_within_seconds_is_one_line() -> None:
    scene = connected()
    moments = (datetime.now(UTC),) * 2
    for number in range(7):
        scene.once(GapOpened, f"room:{number}", "reconnected", *moments, 0)
        scene.frame("1", None, "room:1", "tick")
        scene.pass_time(SECOND // 100)
    scene.pass_time(6 * SECOND)
    scene.once(GapOpened, "room:1", "reconnected", *moments, 0)
    gaps = [glance.line for glance in grouped(look([scene.records])) if glance.line.what == "gap"]
    assert [(line.topic, line.note) for line in gaps] == [
        ("7 topics", "7 × in 60.3 ms: 0.000 s"),
        ("room:1", "0.000 s"),
    ]


def test_what_was_lost_is_never_put_together_where_payloads_differ() -> None:
    scene = connected()
    for number in range(3):
        scene.push("room:1", "order", {"number": number}, "timeout", took=1_000)
    lost = list(grouped(look([scene.records], Selection(errors=True))))
    assert [glance.line.payload for glance in lost] == [{"number": 0}, {"number": 1}, {"number": 2}]


def test_failures_long_after_one_that_is_alike_are_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "HELD", 3)
    scene = connected()
    moments = (datetime.now(UTC),) * 2
    for number in range(40):
        reason: Any = ("reconnected", "rejoined")[number % 2] if number % 7 else "overflow"
        scene.once(GapOpened, f"room:{number}", reason, *moments, 0)
        scene.frame("1", None, "room:1", "tick")
        scene.pass_time(SECOND * (number % 3) * 3)
    told = [glance.line for glance in grouped(look([scene.records]))]
    gaps = [line for line in told if line.what == "gap"]
    assert sum(int(line.note.split(" × ")[0]) if " × " in line.note else 1 for line in gaps) == 40
    assert sum(line.what == "message" for line in told) == 40


def test_no_line_is_lost_by_putting_them_together() -> None:
    records = two_connections()
    assert list(grouped(look([records]))) == list(look([records]))
