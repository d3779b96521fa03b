"""Scripts that were written for former names go on."""

from slipstream_trio.protocol import Presence, backoff, recovery


def test_recovery_has_what_backoff_has() -> None:
    assert all(getattr(recovery, name) is getattr(backoff, name) for name in recovery.__all__)
    assert "retry_after" in recovery.__all__


def test_a_presence_takes_one_message_as_it_takes_many() -> None:
    state = {"ada": {"metas": [{"phx_ref": "1"}]}}
    assert Presence().received("presence_state", state) == Presence().received_all([("presence_state", state)])
