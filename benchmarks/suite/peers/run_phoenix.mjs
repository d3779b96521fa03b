// The official JavaScript client: commands on standard input, a line of JSON for what each took.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const require = createRequire(process.env.SUITE_PEERS + "/");
const { Socket } = require("phoenix");
const WebSocket = require("ws");

const settled = (push) => new Promise((resolve, reject) => push.receive("ok", resolve).receive("error", reject));

async function connected(url) {
  const socket = new Socket(url.replace(/\/websocket$/, ""), { transport: WebSocket });
  socket.connect();
  const channel = socket.channel("room:0", {});
  await settled(channel.join());
  return { socket, channel };
}

async function measured(count, operation) {
  const wall = process.hrtime.bigint();
  globalThis.gc();
  const memory = process.memoryUsage().rss;
  const before = process.cpuUsage();
  await operation();
  const { user, system } = process.cpuUsage(before);
  const took = { wall: Number(process.hrtime.bigint() - wall) / 1e9, cpu: (user + system) / 1e6, count };
  globalThis.gc();
  took.memory = process.memoryUsage().rss - memory;
  process.stdout.write(JSON.stringify(took) + "\n");
}

const runners = {
  async burst({ url, count, size }) {
    const { socket, channel } = await connected(url);
    let left = count;
    let done;
    channel.on("tick", () => {
      left -= 1;
      if (left === 0) done();
    });
    await measured(count, () => {
      channel.push("burst", { count, size });
      return new Promise((resolve) => (done = resolve));
    });
    socket.disconnect();
  },

  async echo({ url, count, size, at_once }) {
    const { socket, channel } = await connected(url);
    const payload = { pad: "x".repeat(size - 50) };
    const each = Math.max(1, Math.floor(count / at_once));
    const one = async () => {
      for (let number = 0; number < each; number += 1) await settled(channel.push("echo", payload));
    };
    await measured(each * at_once, () => Promise.all(Array.from({ length: at_once }, one)));
    socket.disconnect();
  },

  async hold({ url, count, at_once }) {
    const held = [];
    const one = async (most) => {
      while (held.length < most) {
        const place = held.push(null) - 1;
        held[place] = await connected(url);
      }
    };
    const openMany = (most) => Promise.all(Array.from({ length: at_once }, () => one(most)));
    await openMany(2 * at_once);
    await measured(count, () => openMany(2 * at_once + count));
    await new Promise(() => setInterval(() => held, 1e6));
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  await runners[command.do](command);
}
process.exit(0);
