"""The callback client: a class to subclass, whose methods are called as things happen."""

import inspect
import logging
import re
from typing import Any, Final, Unpack

import trio

from ...errors.base import did_you_mean
from ...protocol import Message
from ...protocol.message import check_topic, checked_push
from ..buffer import Gap
from ..channel import Channel
from ..configuration import DEFAULT, ConnectOptions, Timeout, checked_seconds, chosen, configure, with_options
from ..handshake import OrCallable
from ..socket import Socket
from ..status import check_trio
from .runner import Caller, Reply, Runner, of_callback

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
    thread use `trio.from_thread`. Casts and infos made before the client runs are handled when it does, calls after the
    first `handle_connect`.

    A callback that takes long, or never returns, does not make memory grow. Of messages, `buffer` wait for each channel
    at most, and as many casts and infos together; a push of another task waits while so many replies have not been
    handled. Connections, joins and ends that became outdated before they could be told are left out, so that what is
    told last is true.
    """

    __runner: Runner | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_callbacks(cls)

    def __repr__(self) -> str:
        runner, socket = self.__runner, self.socket
        ended = "has ended" if runner and runner.ended else "does not run"
        return f"<{type(self).__name__} {ended if socket is None else f'runs on {socket!r}'}>"

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
        """A message has come, other than a reply.

        Parameters:
            channel: the channel that it came on.
            message: the message; its event is `message.event`, its payload `message.payload`.
        """

    async def handle_reply(self, ref: str, reply: Reply) -> None:
        """A push has ended: with the server's reply, or without one. Every push that returned a ref comes here once.

        Parameters:
            ref: the ref that `push` returned.
            reply: the reply, or the error that ended the push.
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
        """A message was given to `info`.

        Parameters:
            message: the message.
        """

    async def handle_call(self, message: Any, caller: Caller) -> Any:
        """A task waits in `call`. The return value is the answer, unless it is `NO_REPLY`.

        The default lets the caller have a `NotImplementedError`.

        Parameters:
            message: the message of the call.
            caller: with `NO_REPLY` returned, answer later by `caller.reply(value)` or `caller.fail(error)`.
        """
        sort = type(message).__name__
        caller.fail(NotImplementedError(f"{type(self).__name__} has no handle_call: a {sort} was not answered"))

    async def handle_cast(self, message: Any) -> None:
        """A message was given to `cast`. The default logs that it was dropped.

        Parameters:
            message: the message.
        """
        logger.warning("%s has no handle_cast: a %s was dropped", type(self).__name__, type(message).__name__)

    async def terminate(self, reason: BaseException | None) -> None:
        """The client ends: called last, once, and before channels are left and the connection is closed.

        It is shielded from cancellation, and has `close_timeout`. What it raises leaves `run_client`, unless another
        exception does.

        Parameters:
            reason: the exception that will leave `run_client`, `trio.Cancelled` among them; None for a normal end.
        """

    # For callbacks, and other tasks

    @property
    def socket(self) -> Socket | None:
        """The socket, None while the client does not run."""
        runner = self.__runner
        return runner.socket if runner is not None and not runner.ended else None

    async def join(self, topic: str, payload: Any = None) -> None:
        """Ask to join a topic, now or with the next connection; the answer comes to `handle_join`.

        A topic that is joined already, or about to be, stays as it is. One that is being left is awaited first.

        Parameters:
            topic: the topic, such as "room:lobby".
            payload: the join's payload, a JSON value, which is fixed at this call; or a (sync or async) function that
                returns it, called for each join and rejoin when there is a connection to send it on. One that raises,
                or takes longer than `join_timeout`, is a failed join: `handle_topic_close` tells of it. None is {}.

        Raises:
            ClientStopped: the client does not run.
            ConnectionLost: there will be no connection any more.
            SerializationError: the topic is not a string, or the payload not a JSON value.
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
        """Push a message; returns its ref when it is queued. Its end comes to `handle_reply`, with this ref.

        No other push of this client gets that ref: refs go on across connections.

        A topic that is not joined ends the push at once, with `ChannelClosed`. While the topic is being joined, or the
        connection is lost, this waits, within `timeout`, and so do the other callbacks if it is called by one:
        `handle_join` is a better place to push than `handle_connect`. If nothing comes of that, another task is raised
        the error; a callback gets a ref, and `handle_reply` the error.

        Pushes on a topic leave in the order of the calls. Those of callbacks do not wait for replies to be handled, so
        they may overtake those of other tasks that do.

        Parameters:
            topic: the topic.
            event: the event's name.
            payload: a JSON value, or `bytes` (a `bytearray`, a `memoryview`) for a binary frame; None is {}.
            timeout: seconds to wait for the reply, None for ever; by default `push_timeout`.

        Raises:
            ClientStopped: the client does not run.
            ValueError: the event is one of the protocol's, such as "phx_leave".
            SlipstreamError: what `Channel.push` raises for its arguments, or a topic that is not a string; in another
                task, also what it raises while it waits to be queued.
        """
        check_topic(topic)
        payload = checked_push(event, payload)
        runner = self.__ready()
        seconds = chosen(timeout, runner.running_socket()._options.push_timeout)
        return await runner.push(topic, event, payload, seconds)

    async def disconnect(self) -> None:
        """Close the connection for good, and wait until that is done.

        Everything that came before is handled still, then `handle_disconnect` and `terminate` are called, and
        `run_client` returns. A callback that raises `ConnectionLost` because of it just ends.

        Raises:
            ClientStopped: the client does not run.
        """
        await self.__ready().running_socket().disconnect()

    def stop(self) -> None:
        """End: the callback that runs now is the last but `terminate`, then `run_client` returns.

        Everything that waits to be handled is dropped. A client that does not run yet ends as soon as it does.
        """
        self.__ready().stop()

    # For other tasks

    def info(self, message: Any) -> None:
        """Let `handle_info` have a message.

        Raises:
            ClientBusy: `buffer` infos and casts wait already.
            ClientStopped: the client has ended.
        """
        self.__ready().post("handle_info", message)

    def cast(self, message: Any) -> None:
        """Let `handle_cast` have a message; raises what `info` does."""
        self.__ready().post("handle_cast", message)

    async def call(self, message: Any, *, timeout: float | None = 5.0) -> Any:
        """Let `handle_call` have a message, and return its answer.

        A call made before the first `handle_connect` waits for that. One that times out, or is cancelled, before it is
        handled is dropped.

        Parameters:
            message: the message.
            timeout: seconds to wait for the answer, None for ever.

        Raises:
            ConfigurationError: `timeout` is not a number of seconds above 0.
            CallTimeout: there was no answer in time.
            ClientStopped: the client has ended, or ends before it has answered; `__cause__` is the exception that
                ended it, None if it was asked to end.
            RuntimeError: a callback calls its own client, which would deadlock.
        """
        return await self.__ready().call(message, checked_seconds("timeout", timeout))

    def __ready(self) -> Runner:
        # Not in __init__, so that subclasses need not call that one.
        if self.__runner is None:
            check_trio()
            self.__runner = Runner(self)
        return self.__runner

    def _begin(self) -> Runner:
        """Return the runner for the next run; for `run_client`."""
        if self.__ready().ended:
            self.__runner = Runner(self)
        return self.__ready()


@with_options
async def run_client(
    client: Client,
    url: OrCallable[str],
    *,
    task_status: trio.TaskStatus[Socket] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ConnectOptions],
) -> None:
    """Run a client until it stops, is cancelled, or has lost its connection for good.

    It starts without a server, too: the first attempt to connect is retried as the later ones are (`retry_first` is
    True unless said otherwise). A client that has ended may be run again.

    Parameters:
        client: the client whose callbacks are called.
        url: ws, wss, http or https; with Phoenix it ends in /websocket.
        task_status: of `nursery.start(run_client, …)`, which returns the socket once the client can be used; that may
            be before the first connection.
        options: the fields of `Configuration`.

    Raises:
        ConfigurationError: an option cannot be used.
        ConnectError: there is no connection, and no further attempt is made; `ConnectionRejected` is one, too.
        ConnectionLost: the connection ended, and no further attempt is made.
        SlowConsumer: messages were dropped, and `overflow` is "raise".
        RuntimeError: the client is running already.
        TypeError: the client is an object of another class, or the class itself.
        InternalError: a bug.
        Exception: what a callback raised, unchanged.
    """
    check_trio()
    _check_client(client)
    options.setdefault("retry_first", True)
    configuration = configure(url, options)
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        # That of `Client`: a derived class may have a method of this name.
        await Client._begin(client).run(configuration, task_status)
    except BaseException as error:
        error.with_traceback(of_callback(error.__traceback__))
        raise


def _check_client(client: object) -> None:
    if not isinstance(client, Client):
        hint = f"; write {client.__name__}()" if isinstance(client, type) else ""  # which is easily mistaken
        raise TypeError(f"client: an object whose class is derived from Client{hint}")


def _check_callbacks(cls: type) -> None:
    """Raise `TypeError` for what a class derived from `Client` defines in a way in which it could not be used."""
    known = {name: value for name, value in vars(Client).items() if not name.startswith("_")}
    for name, value in vars(cls).items():
        own = f"{cls.__name__}.{name}"
        if not inspect.isfunction(value):
            continue
        if inspect.isfunction(known.get(name)):
            _check_kind(own, value, known[name])
        elif name.startswith(("handle_", "on_", "termin")):
            spelt = re.sub("^on_", "handle_", name)
            if hint := did_you_mean(spelt, known, 0.85):  # a method of the user's own may be called handle_order
                raise TypeError(f"{own}: Client has no such callback, so it would never be called{hint}")


def _check_kind(own: str, value: Any, defined: Any) -> None:
    function, is_async = inspect.unwrap(value), inspect.iscoroutinefunction(defined)
    if inspect.isasyncgenfunction(function):
        raise TypeError(f"{own} has a `yield`, and nobody would iterate over it: return, or await, in its place")
    if inspect.iscoroutinefunction(function) != is_async:
        kind, word = ("async", "`async def`") if is_async else ("synchronous", "`def`")
        raise TypeError(f"{own} has to be {kind}: write {word}")
    given = [each for each in inspect.signature(defined).parameters.values() if each.kind is not each.KEYWORD_ONLY]
    try:
        inspect.signature(value, follow_wrapped=False).bind(*given)
    except TypeError:
        names = ", ".join(each.name for each in given)
        raise TypeError(f"{own} would be called with other parameters: write ({names})") from None
