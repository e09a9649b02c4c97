import { describe, expect, test } from 'bun:test';
import { WorkerSessions } from '../../../src/gateway/index.ts';
import {
  encodeOutput,
  type NodeMessage,
  type SessionMessage,
  type SocketSession,
  WINDOW_BYTES,
} from '../../../src/protocol/index.ts';

const PIECE = 32 << 10;

/** Sessions with a worker that comes at once, or not at all, and says what it is told to. */
function world(options: { comes?: boolean; comesWithinMs?: number } = {}) {
  const { comes = true, comesWithinMs = 60_000 } = options;
  const calls: string[] = [];
  const images: unknown[] = [];
  const recalled: string[] = [];
  const heard: (string | Uint8Array)[] = [];
  const closed = Promise.withResolvers<number>();
  const came = Promise.withResolvers<SocketSession>();
  const sessions = new WorkerSessions({
    calls: {
      call: (_, id, image) => {
        calls.push(id);
        if (image !== undefined) images.push(image);
        if (!comes) return;
        queueMicrotask(() => {
          const session = sessions.take(id);
          session.opened({
            send: (message) =>
              void heard.push(typeof message === 'string' ? message : Uint8Array.from(message)),
            close: (code) => closed.resolve(code),
          });
          came.resolve(session);
        });
      },
      recall: (_, id) => void recalled.push(id),
    },
    workerName: () => 'edge-1',
    comesWithinMs,
  });
  return {
    sessions,
    calls,
    recalled,
    heard,
    closed: closed.promise,
    containers: sessions.of('wrk_1'),
    node: sessions.node('wrk_1'),
    images,
    /** What the worker says. */
    say: async (...messages: (SessionMessage | NodeMessage | Uint8Array)[]) => {
      const session = await came.promise;
      for (const each of messages) session.received(each instanceof Uint8Array ? each : JSON.stringify(each));
    },
    leave: async () => (await came.promise).closed(),
  };
}

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'none',
    (thrown: { code?: string }) => thrown.code,
  );
const until = async (there: () => boolean) => {
  while (!there()) await new Promise((resolve) => setImmediate(resolve));
};

describe('a session with a worker', () => {
  test('is for one visit of whoever knows its id', async () => {
    const { sessions, containers, calls, recalled, say } = world();
    const usage = containers.usage('ctr_1');
    await say({ event: 'usage', usage: { processes: 3 } });
    expect(await usage).toMatchObject({ processes: 3 });
    expect(recalled).toEqual(calls);
    expect(() => sessions.take(calls[0] ?? '')).toThrow('nobody waits');
    expect(() => sessions.take('5e'.repeat(32))).toThrow('nobody waits');
  });

  test('says what is wanted first, and to nobody else', async () => {
    const { containers, heard, say } = world();
    const killed = containers.kill('ctr_1', 'HUP');
    await say({ event: 'signaled' });
    await killed;
    expect(heard).toEqual(['{"open":"kill","container_id":"ctr_1","signal":"HUP"}']);
  });

  test('that the worker does not come for fails in time, and is recalled', async () => {
    const { sessions, containers, calls, recalled } = world({ comes: false, comesWithinMs: 1 });
    expect(await codeOf(containers.attach('ctr_1'))).toBe('SERVER_UNREACHABLE');
    expect(recalled).toEqual(calls);
    expect(() => sessions.take(calls[0] ?? '')).toThrow('nobody waits');
  });

  test('that nobody wants any more is recalled at once', async () => {
    const { containers, calls, recalled } = world({ comes: false });
    const abort = new AbortController();
    const attaching = containers.attach('ctr_1', abort.signal);
    abort.abort(new Error('gone'));
    await expect(attaching).rejects.toThrow('gone');
    expect(recalled).toEqual(calls);
  });

  test('gives an error of the worker as it was, with its exit code', async () => {
    const { containers, say } = world();
    const request = { command: ['/bin/nonesuch'], env: {}, terminal: false, interactive: false };
    const exec = containers.exec('ctr_1', request);
    const error = { code: 'CONTAINER_FAILED', message: 'there is no /bin/nonesuch' };
    await say({ event: 'failed', exit_code: 127, error });
    await expect(exec).rejects.toMatchObject({ ...error, exitCode: 127 });
  });

  test('ends with an error where the connection breaks, after the output that came', async () => {
    const { containers, say, leave } = world();
    const attaching = containers.attach('ctr_1');
    await say({ event: 'started' }, encodeOutput('stdout', Buffer.from('half')));
    const streams = await attaching;
    await leave();
    const output = await Array.fromAsync(streams.output());
    expect(output.map(({ bytes }) => Buffer.from(bytes).toString())).toEqual(['half']);
    expect(await codeOf(streams.exit)).toBe('SERVER_UNREACHABLE');
  });

  test('keeps a window of input that the worker has not taken, and no more', async () => {
    const { containers, heard, say } = world();
    const attaching = containers.attach('ctr_1');
    await say({ event: 'started' });
    const streams = await attaching;
    let written = false;
    const writing = streams.write(new Uint8Array(WINDOW_BYTES + PIECE)).then(() => (written = true));
    const sent = () =>
      heard.filter((each) => typeof each !== 'string').reduce((sum, each) => sum + each.length, 0);
    await until(() => sent() === WINDOW_BYTES);
    expect(written).toBe(false);
    await say({ event: 'taken', bytes: PIECE });
    await writing;
    expect(sent()).toBe(WINDOW_BYTES + PIECE);
  });

  test('asks for more output when what came is passed on, and ends with a worker that sends more than that', async () => {
    const { containers, heard, say, closed } = world();
    const attaching = containers.attach('ctr_1');
    const piece = encodeOutput('stdout', new Uint8Array(PIECE));
    const window = Array.from({ length: WINDOW_BYTES / PIECE }, () => piece);
    await say({ event: 'started' }, ...window);
    const streams = await attaching;
    const output = streams.output();
    await output.next();
    expect(heard).toHaveLength(1);
    await output.next();
    expect(heard.at(-1)).toBe(JSON.stringify({ op: 'taken', bytes: PIECE }));
    await say(piece);
    expect(await Promise.race([closed, Promise.resolve('open')])).toBe('open');
    await say(piece);
    expect(await closed).toBe(1008);
    expect(await codeOf(streams.exit)).toBe('INTERNAL');
  });
});

describe('a session with a worker’s machine', () => {
  const ORDER = { workspace_id: 'ws_1', image_id: 'img_1', actor: 'token ada', purpose: 'pin' };

  test('has the image told to the worker by the one who calls it, and is not told it itself', async () => {
    const { node, images, heard, say } = world();
    const lines = Array.fromAsync(node.pin(ORDER));
    const line = { kind: 'done' as const, bytes_fetched: 7 };
    await say({ event: 'line', line }, { event: 'answered' });
    expect(await lines).toEqual([line]);
    expect(images).toEqual([ORDER]);
    expect(heard).toEqual(['{"open":"node","call":{"op":"pin"}}']);
  });

  test('puts an answer together from its parts', async () => {
    const { node, say } = world();
    const pruned = node.cachePrune({});
    await say({ event: 'part', text: '{"bytes":1' }, { event: 'part', text: '2,"entries":3}' });
    await say({ event: 'answered' });
    expect(await pruned).toEqual({ bytes: 12, entries: 3 });
  });

  test('gives the worker’s error as it was, and one of its own for an answer that is none', async () => {
    const refused = world();
    const mounting = refused.node.mountImage(ORDER, '/mnt');
    const error = { code: 'CONFLICT', message: 'something is there', hint: 'look' };
    await refused.say({ event: 'failed', error });
    await expect(mounting).rejects.toMatchObject(error);
    const odd = world();
    const listing = odd.node.listPins();
    await odd.say({ event: 'part', text: '{"pins":1}' }, { event: 'answered' });
    expect(await codeOf(listing)).toBe('INTERNAL');
  });

  test('ends with an error where the connection breaks, and when nobody waits for it any more', async () => {
    const broken = world();
    const listing = broken.node.listMounts();
    await broken.leave();
    expect(await codeOf(listing)).toBe('SERVER_UNREACHABLE');
    const left = world();
    const abort = new AbortController();
    const lines = left.node.pin(ORDER, abort.signal);
    const first = lines.next();
    await left.say({ event: 'line', line: { kind: 'progress', missing_bytes: 2, missing_spans: 1 } });
    expect((await first).value).toMatchObject({ missing_bytes: 2 });
    const second = codeOf(lines.next());
    abort.abort();
    expect(await second).toBe('CANCELLED');
    expect(await left.closed).toBe(1000);
  });
});
