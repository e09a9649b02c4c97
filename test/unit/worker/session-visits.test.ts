import { expect, test } from 'bun:test';
import { createLogger } from '../../../src/observability/index.ts';
import type { ContainerServices } from '../../../src/protocol/index.ts';
import { SessionVisits } from '../../../src/worker/session-visits.ts';

const SESSION = '5e'.repeat(32);
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
  return { signals, services };
}

const KILL = { open: 'kill', container_id: 'ctr_1', signal: 'HUP' };

test('a session that is told of twice is come for once, until it is acknowledged', async () => {
  await using far = gateway([KILL]);
  const { signals, services } = containers();
  const visits = new SessionVisits(far.join, services, logger);
  visits.begin(SESSION);
  visits.begin(SESSION);
  await far.over;
  expect([far.visits, signals, far.said]).toEqual([1, ['ctr_1 HUP'], [{ event: 'signaled' }]]);
  expect(visits.begun()).toEqual([SESSION]);
  visits.told([SESSION]);
  expect(visits.begun()).toEqual([]);
});

test('a gateway that is not there yet is tried again, and what the container says goes to it', async () => {
  await using far = gateway(['refuse', { open: 'usage', container_id: 'ctr_1' }]);
  const visits = new SessionVisits(far.join, containers().services, logger);
  visits.begin(SESSION);
  await far.over;
  expect(far.visits).toBe(2);
  expect(far.said).toMatchObject([{ event: 'failed', error: { message: 'nobody asked for that' } }]);
});

test('what is not understood is answered, and does nothing', async () => {
  await using far = gateway([{ open: 'reboot', container_id: 'ctr_1' }]);
  const { signals, services } = containers();
  new SessionVisits(far.join, services, logger).begin(SESSION);
  await far.over;
  expect(far.said).toMatchObject([{ event: 'failed', error: { code: 'UNSUPPORTED' } }]);
  expect(signals).toEqual([]);
});

test('in one process nobody is called, and nothing is come for', () => {
  const visits = new SessionVisits(() => undefined, containers().services, logger);
  visits.begin(SESSION);
  visits.end();
  expect(visits.begun()).toEqual([SESSION]);
});
