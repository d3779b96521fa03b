"""The callback client: a class to subclass, whose methods are called with what happens."""

import logging
from typing import Any, Final, Unpack

import trio

from ...protocol import Message
from ..arguments import DEFAULT, Timeout, check_event, check_topic, chosen
from ..buffer import Gap
from ..channel import Channel
from ..configuration import ConnectOptions, checked_seconds, configure
from ..handshake import OrCallable
from ..socket import Socket
from .replies import Caller, Reply
from .runner import Runner

__all__ = ["Client", "run_client"]

logger: Final = logging.getLogger("slipstream_trio")


class Client:
    """A client that is told what happens: subclass it, override what matters, and run it with `run_client`.

    ```
    class Lobby(Client):
        async def handle_connect(self, socket):
            await self.join("room:lobby", {"user": 1})

        async def handle_message(self, channel, message):
            print(message.event, message.payload)

    await run_client(Lobby(), "wss://example.org/socket/websocket")
    ```

    The callbacks are called in the task of `run_client`, one at a time, in the order in which things happened; the
    connection is served meanwhile, whatever a callback waits for. A connection that is lost is replaced, and topics are
    joined again, without a callback's doing. An exception that leaves a callback ends the client, and leaves
    `run_client`; among those are the errors of what is awaited in a callback, such as `Channel.push`.

    `join`, `leave` and `push` ask for something and do not wait for the answer, which comes to a callback. Other tasks
    of the same Trio run may use all of these methods, and reach the client by `call`, `cast` and `info`; from another
    thread use `trio.from_thread`. What is asked by `call`, `cast` and `info` before the client runs is handled when it
    does.

    A callback that takes long, or never returns, does not make memory grow. Of messages, `buffer` wait for each channel
    at most, and as many casts and infos together; a push of another task waits while so many replies have not been
    handled. What else has become outdated before it was told is left out, so that what is told last is true:

    * a connection that ended before its `handle_connect` was called (its end is told), and all ends but the last;
    * of the joins of a channel that are not told yet, those between the first and the last; of its gaps those, too,
      which are merged into the first; of its `handle_topic_close`, all but the last;
    * a topic that another task joined and left again before `handle_leave` was called for the time before.
    """

    __runner: Runner | None = None

    # Callbacks

    async def handle_connect(self, socket: Socket) -> None:
        """A connection is open: the first, or one after a loss. A good place to join; what is joined stays so.

        Parameters:
            socket: the socket, always the same one.
        """

    async def handle_disconnect(self, reason: Exception) -> None:
        """A connection has ended, or an attempt to have one has failed; nothing of that connection comes after this.

        There will be another attempt, as `reconnect` and `should_reconnect` say. To prevent it, call `stop`.

        Parameters:
            reason: `ConnectionLost`, `ConnectionRejected`, `ConnectError`, or what a function among the options raised.
        """

    async def handle_join(self, channel: Channel, response: Any) -> None:
        """A topic is joined, for the first time or again.

        Parameters:
            channel: the channel, the same one after each rejoin.
            response: the server's answer.
        """

    async def handle_message(self, channel: Channel, message: Message) -> None:
        """A message has come that is no reply.

        Parameters:
            channel: the channel that it came on.
            message: the message; its event is `message.event`, its payload `message.payload`.
        """

    async def handle_reply(self, ref: str, reply: Reply) -> None:
        """A push has ended: with the server's reply, or without one. Every push comes here once.

        Parameters:
            ref: what `push` returned.
            reply: the reply, or why there is none.
        """

    async def handle_topic_close(self, topic: str, reason: Exception) -> None:
        """A topic was not joined, or is not joined any more, without our asking.

        After a refusal, a timeout and a crash it is joined again, as `rejoin` says; to prevent that, call `leave`. A
        topic that the server closed is not. (When the connection is lost, there is only `handle_disconnect`.)

        Parameters:
            topic: the topic.
            reason: `JoinError`, `JoinTimeout`, `ChannelClosed`, or what the join's payload raised when asked for.
        """

    async def handle_leave(self, topic: str) -> None:
        """A topic is left that `leave` gave up.

        Parameters:
            topic: the topic.
        """

    async def handle_gap(self, channel: Channel, gap: Gap) -> None:
        """Messages may be missing here: after a reconnect or a rejoin, or as they came faster than they were handled.

        The latter only if `overflow` is "drop_oldest" or "drop_newest"; with "raise", `SlowConsumer` ends the client at
        this place. The default logs a warning where messages were dropped.

        Parameters:
            channel: the channel.
            gap: what is known about it.
        """
        if gap.dropped:
            logger.warning("%s: %d messages of %r were dropped", type(self).__name__, gap.dropped, channel.topic)

    async def handle_info(self, message: Any) -> None:
        """Somebody has said something by `info`.

        Parameters:
            message: what was said.
        """

    async def handle_call(self, message: Any, caller: Caller) -> Any:
        """Somebody waits in `call`. What is returned is the answer, unless it is `NO_REPLY`.

        The default lets the caller have a `NotImplementedError`.

        Parameters:
            message: what was asked.
            caller: with `NO_REPLY` returned, answer later by `caller.reply(value)` or `caller.fail(error)`.
        """
        sort = type(message).__name__
        caller.fail(NotImplementedError(f"{type(self).__name__} has no handle_call: a {sort} was not answered"))

    async def handle_cast(self, message: Any) -> None:
        """Somebody has asked for something by `cast`. The default logs that nobody does it.

        Parameters:
            message: what was asked.
        """
        logger.warning("%s has no handle_cast: a %s was dropped", type(self).__name__, type(message).__name__)

    async def terminate(self, reason: BaseException | None) -> None:
        """The client ends: called last, once, and before channels are left and the connection is closed.

        It is shielded from cancellation, and has `close_timeout`. What it raises leaves `run_client`, unless another
        exception does.

        Parameters:
            reason: the exception that will leave `run_client`, `trio.Cancelled` among them; None for a normal end.
        """

    # What a client does

    @property
    def socket(self) -> Socket | None:
        """The socket, None while the client does not run."""
        runner = self.__runner
        return runner.socket if runner is not None and not runner.ended else None

    async def join(self, topic: str, payload: Any = None) -> None:
        """Ask to join a topic, now or with the next connection; the answer comes to `handle_join`.

        A topic that is joined already, or about to be, is left as it is. One that is being left is waited for.

        Parameters:
            topic: the topic, such as "room:lobby".
            payload: the join's payload, a JSON value, or a (sync or async) function that returns it, asked again for
                each rejoin; None is {}.

        Raises:
            ClientStopped: the client does not run.
            ConnectionLost: there will be no connection any more.
            SerializationError: the topic is no string, or the payload not a JSON value.
        """
        check_topic(topic)
        await self.__ready().join(topic, payload)

    async def leave(self, topic: str) -> None:
        """Ask to leave a topic; `handle_leave` tells when that is done. A topic that is not joined stays so.

        Parameters:
            topic: the topic.

        Raises:
            ClientStopped: the client does not run.
        """
        await self.__ready().leave(topic)

    async def push(self, topic: str, event: str, payload: Any = None, *, timeout: Timeout = DEFAULT) -> str:
        """Push a message; returns its ref when it is queued. How it ends comes to `handle_reply`.

        While the topic is being joined, or the connection is lost, this waits, within `timeout`: `handle_join` is a
        better place to push than `handle_connect`.

        Parameters:
            topic: the topic.
            event: the event's name.
            payload: a JSON value, or `bytes` for a binary frame; None is {}.
            timeout: seconds to wait for the reply, None for ever; by default `push_timeout`.

        Raises:
            ValueError: the event is one of the protocol's, such as "phx_leave".
            ConfigurationError: `timeout` is no number of seconds above 0.
            ChannelClosed: the topic is not joined.
            PushTimeout: it could not be queued in time.
            ClientStopped: the client does not run.
            ConnectionLost: there will be no connection any more.
            SerializationError: the event is no string, or the payload no JSON value; nothing was sent.
            ValueError: the event is one of the protocol's.
        """
        check_event(event)
        runner = self.__ready()
        seconds = chosen(timeout, runner.running_socket()._options.push_timeout)
        return await runner.push(topic, event, {} if payload is None else payload, seconds)

    async def disconnect(self) -> None:
        """Close the connection for good, and wait until that is done.

        What has come before is handled still, `handle_disconnect` is called, `terminate`, and `run_client` returns. A
        callback that raises `ConnectionLost` because of it ends, and does no harm.

        Raises:
            ClientStopped: the client does not run.
        """
        await self.__ready().running_socket().disconnect()

    def stop(self) -> None:
        """End: the callback that runs now is the last but `terminate`, then `run_client` returns.

        What waits to be handled is dropped. A client that does not run yet ends as soon as it does.
        """
        self.__ready().stop()

    # For others

    def info(self, message: Any) -> None:
        """Let `handle_info` have a message.

        Raises:
            ClientBusy: `buffer` infos and casts wait already.
            ClientStopped: the client has ended.
        """
        self.__ready().post("handle_info", message)

    def cast(self, message: Any) -> None:
        """Let `handle_cast` have a message.

        Raises:
            ClientBusy: `buffer` infos and casts wait already.
            ClientStopped: the client has ended.
        """
        self.__ready().post("handle_cast", message)

    async def call(self, message: Any, *, timeout: float | None = 5.0) -> Any:
        """Let `handle_call` have a message, and return its answer.

        A call that times out, or is cancelled, before it is handled is not handled any more.

        Parameters:
            message: what is asked.
            timeout: seconds to wait for the answer, None for ever.

        Raises:
            ConfigurationError: `timeout` is no number of seconds above 0.
            CallTimeout: there was no answer in time.
            ClientStopped: the client has ended, or ends before it has answered.
            RuntimeError: this is a callback of the same client, which would wait for itself.
        """
        return await self.__ready().call(message, checked_seconds("timeout", timeout))

    def __ready(self) -> Runner:
        # Not in __init__, so that subclasses need not call that one.
        if self.__runner is None:
            self.__runner = Runner(self)
        return self.__runner

    def _begin(self) -> Runner:
        """Return what runs the client next; for `run_client`."""
        runner = self.__ready()
        if runner.is_running:
            raise RuntimeError(f"this {type(self).__name__} is running already")
        if runner.ended:
            runner = self.__runner = Runner(self)
        return runner


async def run_client(client: Client, url: OrCallable[str], **options: Unpack[ConnectOptions]) -> None:
    """Run a client until it stops, is cancelled, or has no connection for good.

    It starts without a server, too: the first attempt to connect is retried as the later ones are (`retry_first` is
    True unless said otherwise). A client that has ended may be run again.

    Parameters:
        client: whose callbacks are called.
        url: ws, wss, http or https; with Phoenix it ends in /websocket.
        options: the fields of `Configuration`.

    Raises:
        ConfigurationError: an option cannot be used.
        ConnectError: there is no connection, and no further attempt is made; `ConnectionRejected` is one, too.
        ConnectionLost: the connection ended, and no further attempt is made.
        SlowConsumer: messages were dropped, and `overflow` is "raise".
        RuntimeError: it is running already.
        TypeError: it is no `Client`, but its class perhaps.
        InternalError: a bug.
        Exception: what a callback raised, unchanged.
    """
    _check_client(client)
    options.setdefault("retry_first", True)
    configuration = configure(url, options)
    await trio.lowlevel.checkpoint_if_cancelled()
    await client._begin().run(configuration)


def _check_client(client: object) -> None:
    """Raise TypeError for what is no client; to give its class is easily done."""
    if not isinstance(client, Client):
        hint = f"; write {client.__name__}()" if isinstance(client, type) else ""
        raise TypeError(f"client: an object whose class is derived from Client{hint}")
