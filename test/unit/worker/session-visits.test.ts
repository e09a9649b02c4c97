import { describe, expect, test } from 'bun:test';
import { z } from 'zod';
import { ImgcredError } from '../../../src/errors/index.ts';
import { createLogger } from '../../../src/observability/index.ts';
import type {
  ContainerServices,
  ImageRequest,
  NodeServices,
  SessionOrder,
} from '../../../src/protocol/index.ts';
import { SessionVisits } from '../../../src/worker/session-visits.ts';

const SESSION = '5e'.repeat(32);
const ORDER: SessionOrder = { session_id: SESSION };
const logger = createLogger({ level: 'error', write: () => {} });

/** A gateway that answers what it is told to: `refuse`, or the opening of a session. */
function gateway(answers: readonly ('refuse' | object)[]) {
  const said: unknown[] = [];
  const over = Promise.withResolvers<void>();
  let visits = 0;
  const server = Bun.serve<object>({
    hostname: '127.0.0.1',
    port: 0,
    fetch: (request, self) => {
      const answer = answers[visits] ?? 'refuse';
      visits += 1;
      if (answer === 'refuse') return new Response(null, { status: 404 });
      return self.upgrade(request, { data: answer }) ? undefined : new Response(null, { status: 400 });
    },
    websocket: {
      open: (socket) => void socket.send(JSON.stringify(socket.data)),
      message: (_, message) => void said.push(JSON.parse(String(message))),
      close: () => over.resolve(),
    },
  });
  return {
    said,
    over: over.promise,
    get visits() {
      return visits;
    },
    join: () => new WebSocket(`ws://127.0.0.1:${server.port}/v1/worker/session/${SESSION}`),
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}

/** A worker's containers, of which these tests need to know only what signals they got. */
function containers() {
  const signals: string[] = [];
  const unasked = () => Promise.reject(new Error('nobody asked for that'));
  const services: ContainerServices = {
    workerId: 'wrk_1',
    attach: unasked,
    exec: unasked,
    usage: unasked,
    kill: async (id, signal) => void signals.push(`${id} ${signal}`),
  };
  return { signals, services: { containers: services, node: machine({}) } };
}

/** A worker's machine that can do what it is told to, and nothing else. */
function machine(able: Partial<NodeServices>): NodeServices {
  const unasked = () => Promise.reject(new Error('nobody asked for that'));
  const all = { mountImage: unasked, unmountImage: unasked, listMounts: unasked, imageState: unasked };
  const rest = { unpin: unasked, listPins: unasked, cache: unasked, cachePrune: unasked };
  return {
    ...all,
    ...rest,
    // biome-ignore lint/correctness/useYield: it only fails
    async *pin() {
      await unasked();
    },
    ...able,
  };
}

const KILL = { open: 'kill', container_id: 'ctr_1', signal: 'HUP' };

test('a session that is told of twice is come for once, until it is acknowledged', async () => {
  await using far = gateway([KILL]);
  const { signals, services } = containers();
  const visits = new SessionVisits(far.join, services, logger);
  visits.begin(ORDER);
  visits.begin(ORDER);
  await far.over;
  expect([far.visits, signals, far.said]).toEqual([1, ['ctr_1 HUP'], [{ event: 'signaled' }]]);
  expect(visits.begun()).toEqual([SESSION]);
  visits.told([SESSION]);
  expect(visits.begun()).toEqual([]);
});

test('a gateway that is not there yet is tried again, and what the container says goes to it', async () => {
  await using far = gateway(['refuse', { open: 'usage', container_id: 'ctr_1' }]);
  const visits = new SessionVisits(far.join, containers().services, logger);
  visits.begin(ORDER);
  await far.over;
  expect(far.visits).toBe(2);
  expect(far.said).toMatchObject([{ event: 'failed', error: { message: 'nobody asked for that' } }]);
});

test('what is not understood is answered, and does nothing', async () => {
  await using far = gateway([{ open: 'reboot', container_id: 'ctr_1' }]);
  const { signals, services } = containers();
  new SessionVisits(far.join, services, logger).begin(ORDER);
  await far.over;
  expect(far.said).toMatchObject([{ event: 'failed', error: { code: 'UNSUPPORTED' } }]);
  expect(signals).toEqual([]);
});

test('in one process nobody is called, and nothing is come for', () => {
  const visits = new SessionVisits(() => undefined, containers().services, logger);
  visits.begin(ORDER);
  visits.end();
  expect(visits.begun()).toEqual([SESSION]);
});

describe('a session for the worker’s machine', () => {
  const IMAGE: ImageRequest = {
    workspace_id: 'ws_1',
    image: {
      id: 'img_1',
      reference: 'r.test/app:1',
      registry: 'r.test',
      repository: 'app',
      manifest_digest: `sha256:${'a'.repeat(64)}`,
      index_digest: 'b'.repeat(64),
      config: {},
    },
    credential_version: 'none',
  };
  const visit = async (call: object, node: NodeServices, image?: SessionOrder['image']) => {
    await using far = gateway([{ open: 'node', call }]);
    const targets = { containers: containers().services.containers, node };
    const order = image === undefined ? ORDER : { ...ORDER, image };
    new SessionVisits(far.join, targets, logger).begin(order);
    await far.over;
    return far.said;
  };

  test('mounts the image that came with the order, and no other', async () => {
    const mounted: unknown[] = [];
    const node = machine({
      mountImage: async (image, target) => {
        mounted.push([image, target]);
        throw new ImgcredError('CONFLICT', 'something is there');
      },
    });
    const said = await visit({ op: 'mount', target: '/mnt' }, node, IMAGE);
    expect(mounted).toEqual([[IMAGE, '/mnt']]);
    expect(said).toMatchObject([{ event: 'failed', error: { code: 'CONFLICT' } }]);
    expect(await visit({ op: 'mount', target: '/mnt' }, node)).toMatchObject([{ event: 'failed' }]);
    expect(mounted).toHaveLength(1);
  });

  test('hands on why the order came without its image', async () => {
    const refused = { code: 'NOT_FOUND', message: 'its secret is gone' };
    expect(await visit({ op: 'pin' }, machine({}), { refused })).toEqual([
      { event: 'failed', error: refused },
    ]);
  });

  test('gives an answer that is longer than a message in parts', async () => {
    const text = '\u{1f40b}é"'.repeat(100_000);
    const listing = { entries: [], status: { directory: text } };
    // What matters here is its length.
    const node = machine({ cache: () => Promise.resolve(listing as never) });
    const said = z
      .array(z.object({ event: z.string(), text: z.string().optional() }))
      .parse(await visit({ op: 'cache' }, node));
    expect(said.filter(({ event }) => event === 'part').length).toBeGreaterThan(1);
    expect(said.at(-1)?.event).toBe('answered');
    expect(JSON.parse(said.map((part) => part.text ?? '').join(''))).toEqual(listing);
  });

  test('lets a pin end where it is when nobody waits for it any more', async () => {
    const begun = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<void>();
    const node = machine({
      async *pin(_, signal) {
        yield { kind: 'progress', missing_bytes: 2, missing_spans: 1 };
        begun.resolve();
        await new Promise((resolve) => signal?.addEventListener('abort', resolve));
        ended.resolve();
      },
    });
    await using far = gateway([{ open: 'node', call: { op: 'pin' } }]);
    const visits = new SessionVisits(
      far.join,
      { containers: containers().services.containers, node },
      logger,
    );
    visits.begin({ ...ORDER, image: IMAGE });
    await begun.promise;
    visits.end();
    await ended.promise;
  });
});
