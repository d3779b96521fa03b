// What the scenarios share: sockets of the official client, and lines of JSON for the test that started this.
import { createInterface } from "node:readline";
import { LongPoll, Presence, Socket } from "phoenix";
import WebSocket from "ws";

export { Presence };

/** Whether the client polls, and brings no binary frames home. */
export const polls = process.argv[4] === "longpoll";

/** Tell the test something. */
export function say(what, value) {
  process.stdout.write(JSON.stringify([what, value === undefined ? null : value]) + "\n");
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Wait until the test says something. */
export async function told() {
  const { value } = await lines.next();
  return value;
}

/**
 * Make a socket that tells of its opening, errors and closing. It is not quiet about anything unexpected.
 *
 * Its time limits are longer than a busy machine may stand still: where one passes, a polling client opens another
 * session, and the server shows its user twice until the first one is given up.
 */
export function makeSocket(url, options = {}, name = "socket") {
  const socket = new Socket(url, {
    transport: polls ? LongPoll : WebSocket,
    timeout: 120_000,
    longpollerTimeout: 120_000,
    heartbeatIntervalMs: 120_000,
    reconnectAfterMs: () => 20,
    rejoinAfterMs: () => 20,
    ...options,
  });
  socket.onOpen(() => say(`${name} opened`));
  socket.onError((error) => say(`${name} failed`, String(error.message ?? "")));
  socket.onClose((event) => say(`${name} closed`, event.code));
  return socket;
}

/** Make a socket, and connect it. */
export function connect(url, options, name) {
  const socket = makeSocket(url, options, name);
  socket.connect();
  return socket;
}

/** Join, or push: resolves to the status and the response. */
export function answered(push) {
  return new Promise((resolve) => {
    for (const status of ["ok", "error", "timeout", "custom"]) {
      push.receive(status, (response) => resolve([status, response ?? null]));
    }
  });
}

/** Join a topic of a connected socket. */
export async function join(socket, topic, params = {}) {
  const channel = socket.channel(topic, params);
  say(`join ${topic}`, await answered(channel.join()));
  return channel;
}

/** Resolve to the payload of the next message of an event. */
export function next(channel, event) {
  return new Promise((resolve) => {
    const ref = channel.on(event, (payload) => {
      channel.off(event, ref);
      resolve(payload);
    });
  });
}

/** Disconnect, and resolve when that is done. */
export function disconnect(socket, code, reason) {
  return new Promise((resolve) => socket.disconnect(resolve, code, reason));
}

/** Resolve when `condition()` holds. */
export async function until(condition) {
  while (!condition()) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Turn an ArrayBuffer into an array of numbers. */
export function bytes(buffer) {
  return buffer instanceof ArrayBuffer ? [...new Uint8Array(buffer)] : `no ArrayBuffer: ${typeof buffer}`;
}
