import { afterEach, beforeEach, expect, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SchedulerLink } from '../../../src/cli/scheduler-link.ts';
import { createLogger } from '../../../src/observability/index.ts';
import {
  ChangeSignals,
  containerSignal,
  type ImageOrder,
  QUEUE_SIGNAL,
  type SocketSession,
} from '../../../src/protocol/index.ts';
import { GatewayLink } from '../../../src/scheduler/index.ts';

const SESSION = '5e'.repeat(32);
/** Longer than the test may take: who waits so long is woken by a signal, or not at all. */
const FOR_EVER_MS = 600_000;

let directory: string;
let path: string;
let near: ChangeSignals;
let link: SchedulerLink;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'imgcred-link-'));
  path = join(directory, 'scheduler.sock');
  near = new ChangeSignals();
  link = new SchedulerLink(path, near, createLogger({ level: 'error', write: () => {} }));
});
afterEach(() => {
  link.close();
  rmSync(directory, { recursive: true });
});

/** A scheduler's end on the socket, with the calls that it was told of. */
function scheduler() {
  const signals = new ChangeSignals();
  const calls: unknown[][] = [];
  const note = (what: string) => (workerId: string, sessionId: string, image?: ImageOrder) => {
    calls.push([what, workerId, sessionId, ...(image === undefined ? [] : [image])]);
    signals.signal('noted');
  };
  rmSync(path, { force: true });
  const server = Bun.serve<SocketSession>({
    unix: path,
    fetch: (request, self) => {
      const data = new GatewayLink(signals, { call: note('call'), recall: note('recall') });
      return self.upgrade(request, { data }) ? undefined : new Response(null, { status: 400 });
    },
    websocket: {
      open: (socket) => {
        socket.data.opened({
          send: (message) => void socket.send(message),
          close: (code, reason) => socket.close(code, reason),
        });
      },
      message: (socket, message) => socket.data.received(message),
      close: (socket) => socket.data.closed(),
    },
  });
  return { signals, calls, [Symbol.asyncDispose]: () => server.stop(true) };
}

/** A scheduler to which the link is connected: whoever waits is woken then, for he can't know what changed before. */
async function connected() {
  const woken = near.wait(['connected'], FOR_EVER_MS);
  const far = scheduler();
  await woken;
  return far;
}

test('what one process signals wakes who waits in the other, and nobody who waits for something else', async () => {
  await using far = await connected();
  let other = 0;
  const abort = new AbortController();
  const unmoved = near.wait(['other'], FOR_EVER_MS, abort.signal).then(() => (other += 1));
  const here = near.wait([containerSignal('ctr_1')], FOR_EVER_MS);
  far.signals.signal(containerSignal('ctr_1'));
  await here;
  const there = far.signals.wait([QUEUE_SIGNAL], FOR_EVER_MS);
  near.signal(QUEUE_SIGNAL);
  await there;
  expect(other).toBe(0);
  abort.abort();
  await unmoved;
});

test('who waits is woken when the scheduler comes back: what it changed before is not known', async () => {
  await (await connected())[Symbol.asyncDispose]();
  const waiting = near.wait([containerSignal('ctr_1')], FOR_EVER_MS);
  await using _ = scheduler();
  await waiting;
});

test('calls for workers get through, those of before too, and those that were recalled do not', async () => {
  const image = { workspace_id: 'ws_1', image_id: 'img_1', actor: 'token ada', purpose: 'pin' };
  link.call('wrk_1', SESSION, image);
  link.call('wrk_2', SESSION.replaceAll('5', '6'));
  link.recall('wrk_2', SESSION.replaceAll('5', '6'));
  await using far = scheduler();
  while (far.calls.length < 1) await far.signals.wait(['noted'], FOR_EVER_MS);
  link.recall('wrk_1', SESSION);
  while (far.calls.length < 2) await far.signals.wait(['noted'], FOR_EVER_MS);
  expect(far.calls).toEqual([
    ['call', 'wrk_1', SESSION, image],
    ['recall', 'wrk_1', SESSION],
  ]);
});
