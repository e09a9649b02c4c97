import { Database as Sqlite } from 'bun:sqlite';
import { describe, expect, test } from 'bun:test';
import {
  CONTAINER_STATES,
  type ContainerRow,
  type ContainerState,
  isFinal,
  TRANSITIONS,
} from '../../../src/database/index.ts';
import { addContainers, addImage, addWorker, addWorkspace, openWorld } from './world.ts';

function setUp(count: number) {
  const world = openWorld();
  const workspace = addWorkspace(world.database, 'default');
  const image = addImage(world.database, workspace, 'a');
  const worker = addWorker(world.database, 'w');
  addContainers(world.database, workspace, image, count);
  const { queue } = world.database;
  const claim = (leaseMs = 1000): ContainerRow => {
    const [next] = queue.candidates(1);
    const row = next && queue.claim(next.id, worker.id, leaseMs);
    if (row === undefined) throw new Error('nothing to claim');
    return row;
  };
  return { ...world, workspace, image, worker, queue, claim };
}

const STEPS: Readonly<Record<ContainerState, readonly ContainerState[]>> = {
  pending: [],
  assigned: ['assigned'],
  preparing: ['assigned', 'preparing'],
  running: ['assigned', 'preparing', 'running'],
  stopping: ['assigned', 'preparing', 'running', 'stopping'],
  exited: ['assigned', 'preparing', 'running', 'exited'],
  failed: ['failed'],
  cancelled: ['cancelled'],
};

describe('transitions', () => {
  for (const from of CONTAINER_STATES) {
    for (const to of CONTAINER_STATES) {
      if (to === 'assigned') continue;
      const allowed = TRANSITIONS[from].includes(to);
      test(`${from} → ${to} ${allowed ? 'happens' : 'changes nothing'}`, () => {
        using world = setUp(1);
        const id = world.queue.candidates(1)[0]?.id;
        if (id === undefined) throw new Error('no candidate');
        let attempt = 0;
        for (const step of STEPS[from]) {
          if (step === 'assigned') attempt = world.claim().attempt;
          else world.queue.transition(id, step, { attempt }, { exitCode: 0 });
        }
        const before = world.queue.find(id);
        expect(before?.state).toBe(from);
        const after = world.queue.transition(id, to, { attempt }, { exitCode: 3 });
        expect(after?.state).toBe(allowed ? to : undefined);
        if (!allowed) expect(world.queue.find(id)).toEqual(before);
        else expect(after?.finishedAt !== undefined).toBe(isFinal(to));
      });
    }
  }

  test('a report under an earlier attempt, or by another worker, no longer counts', () => {
    using world = setUp(1);
    const first = world.claim();
    world.clock.now += 1000;
    const second = world.claim();
    expect(second).toMatchObject({ id: first.id, attempt: 2, state: 'assigned' });
    const other = addWorker(world.database, 'other');
    expect(
      world.queue.transition(first.id, 'preparing', { workerId: world.worker.id, attempt: 1 }),
    ).toBeUndefined();
    expect(world.queue.transition(first.id, 'preparing', { workerId: other.id, attempt: 2 })).toBeUndefined();
    expect(world.queue.reportFetches(first.id, { workerId: world.worker.id, attempt: 1 }, {})).toBe(false);
    expect(
      world.queue.transition(first.id, 'preparing', { workerId: world.worker.id, attempt: 2 })?.state,
    ).toBe('preparing');
  });

  test('a restart waits for its time, counts, and forgets how the last run ended once the next one runs', () => {
    using world = setUp(1);
    const row = world.claim();
    const holder = { workerId: world.worker.id, attempt: row.attempt };
    world.queue.transition(row.id, 'preparing', holder);
    world.queue.transition(row.id, 'running', holder);
    const back = world.queue.transition(row.id, 'pending', holder, {
      exitCode: 7,
      reason: 'failed with 7',
      restart: true,
      notBefore: world.clock.now + 500,
    });
    expect(back).toMatchObject({
      restartCount: 1,
      exitCode: 7,
      workerId: undefined,
      leaseExpiresAt: undefined,
    });
    expect(world.queue.candidates(1)).toEqual([]);
    expect(world.queue.claim(row.id, world.worker.id, 1000)).toBeUndefined();
    world.clock.now += 500;
    const again = world.claim();
    world.queue.transition(row.id, 'preparing', { attempt: again.attempt });
    expect(world.queue.transition(row.id, 'running', { attempt: again.attempt })).toMatchObject({
      exitCode: undefined,
      reason: undefined,
      attempt: 2,
    });
  });
});

test('what the scheduler asks again and again does not slow down with the number of rows', () => {
  const typical = (rows: number, ask: (world: ReturnType<typeof setUp>) => unknown) => {
    using world = setUp(rows);
    const raw = new Sqlite(world.database.path);
    raw.run("UPDATE containers SET state = 'failed', finished_at = 1 WHERE sequence % 2 = 0");
    raw.close();
    const times = Array.from({ length: 41 }, () => {
      const start = Bun.nanoseconds();
      ask(world);
      return Bun.nanoseconds() - start;
    });
    return times.sort((a, b) => a - b)[10] ?? 0;
  };
  const asks = [
    (world: ReturnType<typeof setUp>) => world.queue.candidates(1),
    (world: ReturnType<typeof setUp>) => world.queue.lapsed(10),
    (world: ReturnType<typeof setUp>) => world.queue.heldBy(world.worker.id),
  ];
  // A scan of the table takes 100 times as long for 5,000 rows as for 50.
  for (const ask of asks) expect(typical(5000, ask) / typical(50, ask)).toBeLessThan(10);
});

describe('leases', () => {
  test('a lapsed lease is claimed again only where nothing was started', () => {
    using world = setUp(2);
    const assigned = world.claim();
    const running = world.claim();
    world.queue.transition(running.id, 'preparing', { attempt: 1 });
    world.queue.transition(running.id, 'running', { attempt: 1 });
    expect(world.queue.candidates(10)).toEqual([]);
    world.clock.now += 1000;
    expect(world.queue.candidates(10).map((row) => row.id)).toEqual([assigned.id]);
    expect(world.queue.lapsed(10).map((row) => row.id)).toEqual([running.id]);
    const other = addWorker(world.database, 'other');
    expect(world.queue.claim(assigned.id, other.id, 1000)).toMatchObject({ workerId: other.id, attempt: 2 });
    expect(world.queue.claim(running.id, other.id, 1000)).toBeUndefined();
  });

  test('a heartbeat prolongs what a worker names, under the attempt that it has', () => {
    using world = setUp(4);
    const [named, unnamed, stale] = [world.claim(), world.claim(), world.claim()];
    world.clock.now += 999;
    const attempts = [
      { containerId: named.id, attempt: 1 },
      { containerId: stale.id, attempt: 2 },
    ];
    world.queue.renewLeases(world.worker.id, attempts, 1000);
    world.clock.now += 999;
    const lapsed = world.queue.candidates(10).map((row) => row.id);
    expect(lapsed).toContain(unnamed.id);
    expect(lapsed).toContain(stale.id);
    expect(lapsed).not.toContain(named.id);
    expect(lapsed).toHaveLength(3);
  });

  test('a scheduler that starts gives every lease its full length', () => {
    using world = setUp(2);
    world.claim();
    world.clock.now += 5000;
    expect(world.queue.candidates(10)).toHaveLength(2);
    expect(world.queue.extendLeases(1000)).toBe(1);
    expect(world.queue.candidates(10)).toHaveLength(1);
    world.clock.now += 1000;
    expect(world.queue.candidates(10)).toHaveLength(2);
  });
});

test('candidates are fair: a workspace with little going on comes before one with much', () => {
  using world = setUp(50);
  const quiet = addWorkspace(world.database, 'quiet');
  addContainers(world.database, quiet, addImage(world.database, quiet, 'b'), 3);
  const order = world.queue.candidates(6).map((row) => (row.workspaceId === quiet ? 'quiet' : 'busy'));
  expect(order).toEqual(['busy', 'quiet', 'busy', 'quiet', 'busy', 'quiet']);
  const busy = world.database.workspace(world.workspace).containers.list().slice(0, 4);
  for (const { id } of busy) world.queue.claim(id, world.worker.id, 1000);
  const next = world.queue.candidates(4).map((row) => (row.workspaceId === quiet ? 'quiet' : 'busy'));
  expect(next).toEqual(['quiet', 'quiet', 'quiet', 'busy']);
});

test('counts what is in which state, and forgets what ended long ago', () => {
  using world = setUp(3);
  const row = world.claim();
  world.queue.transition(row.id, 'failed', { attempt: row.attempt }, { reason: 'no such image' });
  expect(world.queue.counts()).toEqual({ pending: 2, failed: 1 });
  expect(world.queue.forgetEnded(world.clock.now)).toBe(0);
  expect(world.queue.forgetEnded(world.clock.now + 1)).toBe(1);
  expect(world.queue.counts()).toEqual({ pending: 2 });
});

const CLAIMER = `
  import { openDatabase } from '${import.meta.dir}/../../../src/database/index.ts';
  using database = openDatabase(process.argv[1]);
  const worker = database.workers.get(process.argv[2]);
  console.log('ready');
  for await (const _ of console) break;
  const claimed = [];
  for (let missed = 0; missed < 3; ) {
    const [candidate] = database.queue.candidates(1);
    const row = candidate && database.queue.claim(candidate.id, worker.id, 60_000);
    if (!candidate) missed++;
    if (row) claimed.push(row.id);
    // Lets the others at the lock: the last one to hold it would else win it again and again.
    await Bun.sleep(1);
  }
  console.log(claimed.join(' '));`;

test('workers in several processes that claim at once get each request exactly once', async () => {
  using world = setUp(200);
  const children = ['w1', 'w2', 'w3'].map((name) => {
    addWorker(world.database, name);
    const command = [process.execPath, '-e', CLAIMER, world.directory, name];
    return Bun.spawn(command, { stdin: 'pipe', stdout: 'pipe' });
  });
  const outputs = children.map((child) => lines(child.stdout));
  for (const output of outputs) expect((await output.next()).value).toBe('ready');
  world.clock.now = Date.now();
  for (const child of children) {
    child.stdin.write('go\n');
    child.stdin.end();
  }
  const claimed: string[] = [];
  for (const output of outputs) {
    const ids = String((await output.next()).value).split(' ');
    expect(ids.length).toBeGreaterThan(1);
    claimed.push(...ids);
  }
  await Promise.all(children.map((child) => child.exited));
  expect(claimed).toHaveLength(200);
  expect(new Set(claimed).size).toBe(200);
  expect(world.queue.counts()).toEqual({ assigned: 200 });
});

async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of stream) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = parts.pop() ?? '';
    yield* parts;
  }
}
