import { expect, test } from 'bun:test';
import { Nodes, type NodesOptions, WorkerSessions } from '../../../src/gateway/index.ts';
import type { ImageOrder, NodeServices } from '../../../src/protocol/index.ts';
import { LEASE_MS, openGatewayWorld } from './world.ts';

/** The machines of a gateway's workers; `asked` is whom a session was asked of. */
async function world(options: Partial<Pick<NodesOptions, 'own' | 'beside' | 'images'>> = {}) {
  const gateway = await openGatewayWorld();
  const asked: string[] = [];
  const sessions = new WorkerSessions({
    calls: { call: (workerId) => void asked.push(workerId), recall: () => {} },
    workerName: () => undefined,
    comesWithinMs: 1,
  });
  const nodes = new Nodes({
    workers: gateway.database.workers,
    own: async () => undefined,
    images: undefined,
    beside: async () => undefined,
    ...options,
    sessions,
    leaseMs: LEASE_MS,
    now: () => gateway.clock.now,
  });
  return { ...gateway, nodes, asked };
}

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'none',
    (thrown: { code?: string }) => thrown.code,
  );
/** Asks a machine something: nobody comes for the session that this takes. */
const ask = (node: Promise<NodeServices<ImageOrder>>) => codeOf(node.then((there) => there.listPins()));

test('a worker is asked by name or id, unless it was not heard of for a lease', async () => {
  await using w = await world();
  const id = await w.enrol('edge');
  expect(await ask(w.nodes.of('edge'))).toBe('SERVER_UNREACHABLE');
  expect(await ask(w.nodes.of(id))).toBe('SERVER_UNREACHABLE');
  expect(w.asked).toEqual([id, id]);
  w.clock.now += LEASE_MS;
  expect(await codeOf(w.nodes.of('edge'))).toBe('NO_WORKER');
  expect(await codeOf(w.nodes.of('nobody'))).toBe('NOT_FOUND');
  expect(w.asked).toHaveLength(2);
});

test('without a name it is the worker of this machine, or none', async () => {
  await using none = await world();
  await none.enrol('edge');
  expect(await codeOf(none.nodes.here())).toBe('UNSUPPORTED');
  let id = 'wrk_not_registered';
  await using beside = await world({ beside: async () => id });
  // It is registered with another server.
  expect(await codeOf(beside.nodes.here())).toBe('UNSUPPORTED');
  id = await beside.enrol('edge');
  expect(await ask(beside.nodes.here())).toBe('SERVER_UNREACHABLE');
  expect(beside.asked).toEqual([id]);
});

test('the worker of this process is given images with their credential, by whatever name it is called', async () => {
  const mounted: unknown[] = [];
  const image = { workspace_id: 'ws_1', credential_version: 'none' };
  const node = { mountImage: async (...given: unknown[]) => void mounted.push(given) };
  let workerId = '';
  await using w = await world({
    // What matters here is what reaches it.
    own: async () => ({ workerId, node: node as never }),
    images: { requestImage: async () => image as never },
  });
  workerId = await w.enrol('own');
  const order = { workspace_id: 'ws_1', image_id: 'img_1', actor: 'ada', purpose: 'mount' };
  for (const here of [w.nodes.here(), w.nodes.of('own')]) await (await here).mountImage(order, '/mnt');
  expect(mounted).toEqual([
    [image, '/mnt'],
    [image, '/mnt'],
  ]);
  expect(w.asked).toEqual([]);
});
