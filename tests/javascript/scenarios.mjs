// node scenarios.mjs NAME URL [longpoll]: run a scenario against the server at that URL, and tell of it in lines of JSON.
import { randomBytes } from "node:crypto";
import WebSocket from "ws";
import { Presence, answered, bytes, connect, disconnect, join, next, polls, say, told, until } from "./client.mjs";

const scenarios = {
  async join(url) {
    const socket = connect(url);
    const channel = await join(socket, "echo:1", { name: "Ada" });
    say("state", channel.state);
    await disconnect(socket);
  },

  async replies(url) {
    const socket = connect(url);
    const channel = await join(socket, "echo:1");
    say("ok", await answered(channel.push("echo", { a: [1, "ü", null] })));
    say("bare", await answered(channel.push("ok_bare", {})));
    say("error", await answered(channel.push("fail", { reason: "no" })));
    say("custom", await answered(channel.push("status", { status: "custom" })));
    say("timeout", await answered(channel.push("noreply", {}, 50)));
    say("later", await answered(channel.push("slow", { ms: 20 })));
    await disconnect(socket);
  },

  async pushedBeforeJoined(url) {
    const socket = connect(url);
    const channel = socket.channel("echo:1");
    const joining = answered(channel.join());
    const pushes = [1, 2, 3].map((n) => answered(channel.push("echo", { n })));
    say("joined", await joining);
    say("answered", await Promise.all(pushes));
    await disconnect(socket);
  },

  async joinsRefused(url) {
    const socket = connect(url);
    for (const topic of ["auth:1", "crashjoin:1", "nowhere"]) {
      const channel = await join(socket, topic, { token: "bad" });
      say("state", channel.state);
      channel.leave();
    }
    await join(socket, "auth:1", { token: "good" });
    await disconnect(socket);
  },

  async joinTimesOut(url) {
    const socket = connect(url, { rejoinAfterMs: () => 150 });
    let ms = 120;
    const channel = socket.channel("slowjoin:1", () => ({ ms }));
    const push = channel.join(40);
    const again = new Promise((resolve) => push.receive("ok", resolve));
    say("first", await answered(push));
    say("state", channel.state);
    ms = 1;
    say("again", await again);
    say("state", channel.state);
    await disconnect(socket);
  },

  async crashAndRejoin(url) {
    const socket = connect(url);
    const channel = socket.channel("echo:1");
    const joined = [];
    const push = channel.join().receive("ok", () => joined.push(channel.joinRef()));
    await answered(push);
    const failed = new Promise((resolve) => channel.onError(resolve));
    channel.push("crash", {});
    say("channel failed", await failed);
    await until(() => joined.length === 2);
    say("new ref", joined[0] !== joined[1]);
    say("echo", await answered(channel.push("echo", { after: "crash" })));
    await disconnect(socket);
  },

  async serverStopsChannel(url) {
    const socket = connect(url);
    const channel = await join(socket, "echo:1");
    const closed = new Promise((resolve) => channel.onClose(resolve));
    say("reply", await answered(channel.push("stop", { reason: "normal" })));
    await closed;
    say("state", channel.state);
    await disconnect(socket);
  },

  async leaveAndJoinAgain(url) {
    const socket = connect(url);
    const channel = await join(socket, "echo:1");
    channel.onClose(() => say("channel closed"));
    say("leave", await answered(channel.leave()));
    say("state", channel.state);
    const again = await join(socket, "echo:1");
    say("echo", await answered(again.push("echo", { n: 2 })));
    await disconnect(socket);
  },

  async joinedTwice(url) {
    const socket = connect(url);
    const first = await join(socket, "echo:1");
    first.onClose(() => say("first closed"));
    const second = await join(socket, "echo:1", { n: 2 });
    say("states", [first.state, second.state]);
    say("echo", await answered(second.push("echo", { n: 2 })));
    await disconnect(socket);
  },

  async serverPushes(url) {
    const socket = connect(url);
    const channel = socket.channel("echo:1", { push_on_join: 2 });
    const welcomes = [];
    channel.on("welcome", (payload) => welcomes.push(payload.i));
    await answered(channel.join());
    await until(() => welcomes.length === 2);
    const pushed = next(channel, "pushed");
    channel.push("push_back", { n: 1 });
    say("pushed", await pushed);
    say("welcomes", welcomes);
    await disconnect(socket);
  },

  async broadcasts(url) {
    const [one, other] = [connect(url, {}, "one"), connect(url, {}, "other")];
    const [mine, theirs] = [await join(one, "echo:1"), await join(other, "echo:1")];
    const all = [next(mine, "broadcasted"), next(theirs, "broadcasted")];
    mine.push("broadcast", { n: 1 });
    say("to all", await Promise.all(all));
    mine.on("broadcasted_from", () => say("an echo of one's own"));
    const others = next(theirs, "broadcasted_from");
    say("sent", await answered(mine.push("broadcast_from", { n: 2 })));
    say("to the others", await others);
    await disconnect(one);
    await disconnect(other);
  },

  async binary(url) {
    const [one, other] = [connect(url, {}, "one"), connect(url, {}, "other")];
    const [mine, theirs] = [await join(one, "echo:1"), await join(other, "echo:1")];
    const data = Uint8Array.from([0, 1, 127, 128, 255]).buffer;
    const [status, response] = await answered(mine.push("binary", data));
    say("reply", [status, bytes(response)]);
    const [failed, problem] = await answered(mine.push("binary_fail", data));
    say("error", [failed, bytes(problem)]);
    const [empty, nothing] = await answered(mine.push("binary", new ArrayBuffer(0)));
    say("empty", [empty, bytes(nothing)]);
    const pushed = next(mine, "binary_pushed");
    mine.push("binary_push", data);
    say("push", bytes(await pushed));
    const all = [next(mine, "binary_broadcasted"), next(theirs, "binary_broadcasted")];
    mine.push("binary_broadcast", data);
    say("broadcast", (await Promise.all(all)).map(bytes));
    await disconnect(one);
    await disconnect(other);
  },

  async presence(url) {
    const seen = (name, channel) => {
      const presence = new Presence(channel);
      presence.onJoin((id, current) => say(`${name}: join`, [id, current !== undefined]));
      presence.onLeave((id, current, left) => say(`${name}: leave`, [id, current.metas.length, left.metas.length]));
      presence.onSync(() => say(`${name}: sync`, presence.list((id, { metas }) => [id, metas.map((meta) => meta.mood)])));
      return presence;
    };
    const one = connect(url, { params: { user_id: "ada" } }, "one");
    const mine = one.channel("presence:1", { meta: { mood: "calm" } });
    const presence = seen("ada", mine);
    mine.join();
    await until(() => presence.list().length === 1);
    const other = connect(url, { params: { user_id: "bob" } }, "other");
    const theirs = other.channel("presence:1", { meta: { mood: "glad" } });
    const theirPresence = seen("bob", theirs);
    theirs.join();
    await until(() => presence.list().length === 2 && theirPresence.list().length === 2);
    theirs.push("update", { mood: "sad" });
    const sad = ({ metas }) => metas[0].mood === "sad";
    // Both: who leaves before its next poll has come back does not hear of its own change any more.
    await until(() => presence.list().some(sad) && theirPresence.list().some(sad));
    await answered(theirs.leave());
    await until(() => presence.list().length === 1);
    await disconnect(other);
    await disconnect(one);
  },

  async heartbeats(url) {
    const socket = connect(url, { heartbeatIntervalMs: 30 });
    await join(socket, "echo:1");
    const beats = [];
    socket.onMessage(({ topic, payload }) => topic === "phoenix" && beats.push(payload.status));
    await until(() => beats.length >= 3);
    say("beats", beats.slice(0, 3));
    say("ping", await new Promise((resolve) => socket.ping((rtt) => resolve(rtt >= 0))));
    await disconnect(socket);
  },

  async heartbeatUnanswered(url) {
    const socket = connect(url, { heartbeatIntervalMs: 100 });
    const channel = socket.channel("echo:1");
    let joins = 0;
    channel.join().receive("ok", () => say("joined", (joins += 1)));
    await until(() => joins === 2); // the test lets the server go deaf in between
    say("echo", await answered(channel.push("echo", { n: 1 })));
    await disconnect(socket);
  },

  async reconnects(url) {
    const socket = connect(url);
    const channel = socket.channel("echo:1");
    let joins = 0;
    channel.join().receive("ok", () => say("joined", (joins += 1)));
    await until(() => joins === 1);
    say("ready");
    await told(); // the connection is gone now, for whatever reason
    await until(() => joins === 2);
    say("echo", await answered(channel.push("echo", { after: "the loss" })));
    await disconnect(socket);
  },

  async pushesWhileOffline(url) {
    const socket = connect(url, { reconnectAfterMs: () => 100 });
    const channel = await join(socket, "echo:1");
    const closed = new Promise((resolve) => socket.onClose(resolve));
    channel.push("kill_socket", {});
    await closed;
    say("buffered", await answered(channel.push("echo", { while: "offline" })));
    await disconnect(socket);
  },

  async token(url) {
    for (const authToken of ["s3cr3t", "who>>>"]) {
      const socket = connect(url, { authToken });
      const channel = await join(socket, "echo:1");
      const [status, { auth_token }] = await answered(channel.push("whoami", {}));
      say("token", [status, auth_token]);
      await disconnect(socket);
    }
  },

  async params(url) {
    let asked = 0;
    const socket = connect(url, { params: () => ({ user_id: `u${(asked += 1)}`, nested: "a b&c=ü" }) });
    const channel = await join(socket, "echo:1");
    const [, { params }] = await answered(channel.push("whoami", {}));
    say("params", params);
    await disconnect(socket);
  },

  async refused(url) {
    let token = "bad";
    const socket = connect(url, { params: () => ({ token }) });
    const failures = new Promise((resolve) => socket.onError(resolve));
    await failures;
    token = "good";
    await until(() => socket.isConnected());
    await join(socket, "echo:1");
    await disconnect(socket);
  },

  async fallsBack(url) {
    const socket = connect(url, { longPollFallbackMs: 5_000 });
    await join(socket, "echo:1");
    say("polls", socket.transport !== WebSocket);
    await disconnect(socket);
  },

  async longTopic(url) {
    const socket = connect(url);
    const channel = socket.channel(`echo:${"t".repeat(5000)}`);
    say("joined", await answered(channel.join()));
    say("echo", await answered(channel.push("echo", { n: 1 })));
    await disconnect(socket);
  },

  async firstVersion(url) {
    const serializer = {
      encode: (message, callback) => callback(JSON.stringify(message)),
      decode: (text, callback) => callback(JSON.parse(text)),
    };
    const socket = connect(url, { vsn: "1.0.0", encode: serializer.encode, decode: serializer.decode });
    const channel = await join(socket, "echo:1", { n: 1 });
    say("echo", await answered(channel.push("echo", { n: 2 })));
    const heard = next(channel, "broadcasted");
    channel.push("broadcast", { n: 3 });
    say("broadcast", await heard);
    say("leave", await answered(channel.leave()));
    await disconnect(socket);
  },

  async manyChannels(url) {
    const socket = connect(url);
    await until(() => socket.isConnected());
    const topics = Array.from({ length: 101 }, (_, n) => `echo:${n}`);
    const channels = topics.map((topic) => socket.channel(topic));
    const joins = await Promise.all(channels.map((channel) => answered(channel.join())));
    say("joined", joins.filter(([status]) => status === "ok").length);
    say("refused", joins[100]);
    const echoes = await Promise.all(channels.slice(0, 100).map((channel, n) => answered(channel.push("echo", { n }))));
    say("echoes", echoes.every(([status, { n }], i) => status === "ok" && n === i));
    await disconnect(socket);
  },

  async largePayloads(url) {
    const socket = connect(url);
    const channel = await join(socket, "echo:1");
    const size = 1024 * 1024;
    const data = new Uint8Array(randomBytes(size));
    const text = Buffer.from(data).toString("base64");
    const [status, echoed] = await answered(channel.push("echo", { text }));
    say("text", [status, echoed.text === text]);
    if (!polls) {
      const [binary, back] = await answered(channel.push("binary", data.buffer));
      say("binary", [binary, Buffer.from(back).equals(data)]);
    }
    const ticks = [];
    channel.on("tick", ({ i }) => ticks.push(i));
    await answered(channel.push("burst", { n: 1000 }));
    say("burst", ticks.length === 1000 && ticks.every((tick, n) => tick === n + 1));
    await disconnect(socket);
  },

  async disconnects(url) {
    const socket = connect(url);
    await join(socket, "echo:1");
    await disconnect(socket, 4001, "bye");
    say("connected", socket.isConnected());
  },

  async serverCloses(url) {
    const socket = connect(url, { params: { user_id: "7" } });
    const channel = socket.channel("echo:1");
    let joins = 0;
    channel.join().receive("ok", () => (joins += 1));
    for (const [event, payload] of [["close_socket", { code: 4002 }], ["kick", {}], ["crash_socket", {}], ["drain_me", {}]]) {
      const before = joins;
      await until(() => channel.state === "joined");
      channel.push(event, payload);
      await until(() => joins > before + (before === 0 ? 1 : 0));
    }
    await disconnect(socket);
  },

  async together(url) {
    const socket = connect(url, { params: { user_id: "js" } });
    const room = socket.channel("room:1", { name: "js" });
    const presence = new Presence(room);
    room.on("said", ({ by, text }) => say("heard", [by, text]));
    room.on("bytes", (data) => say("bytes", bytes(data)));
    say("joined", await answered(room.join()));
    await until(() => presence.list().length === 2);
    say("present", presence.list((id) => id).sort());
    say("ok", await answered(room.push("say", { text: "hello from node" })));
    room.push("bytes", Uint8Array.from([1, 2, 3]).buffer);
    await until(() => presence.list().length === 1);
    say("alone");
    await disconnect(socket);
  },
};

const [name, url] = process.argv.slice(2);
if (!(name in scenarios)) {
  console.error(`no scenario ${name}; there are ${Object.keys(scenarios).join(", ")}`);
  process.exit(2);
}
await scenarios[name](url);
say("done");
process.exit(0);
