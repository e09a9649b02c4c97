import { expect, test } from 'bun:test';
import { type FleetMember, waitingReason } from '../../../src/gateway/waiting-reason.ts';
import type { Supply } from '../../../src/protocol/index.ts';

const NOW = 1_000_000;
const LEASE_MS = 30_000;
const GIB = 2 ** 30;

const member = (name: string, supply: Partial<Supply> = {}, more: Partial<FleetMember> = {}): FleetMember => {
  const whole = { slots: 4, cpus: 4, memoryBytes: 24 * GIB, labels: { worker: name }, ...supply };
  return { name, draining: false, silentMs: 0, whole, left: whole, ...more };
};
const full = { slots: 0, cpus: 0, memoryBytes: 0, labels: {} };
const silent = { silentMs: 300_000 };
const zone = (value: string) => ({ labels: { zone: value } });

const cases: [
  why: string | undefined,
  spec: { overrides?: object; worker_labels?: object },
  fleet: FleetMember[],
][] = [
  ['no worker has registered', {}, []],
  ['no worker was heard of in the last 30 s', {}, [member('a', {}, silent)]],
  ['no worker has the label zone=b', { worker_labels: { zone: 'b' } }, [member('a', zone('a')), member('c')]],
  [
    'no worker has all of the labels zone=a, gpu=yes',
    { worker_labels: { zone: 'a', gpu: 'yes' } },
    [member('a', zone('a')), member('b', { labels: { gpu: 'yes' } })],
  ],
  [
    'it needs 64 GiB of memory, the largest worker has 24 GiB',
    { overrides: { memory_bytes: 64 * GIB } },
    [member('a'), member('b', { memoryBytes: 512 << 20 })],
  ],
  [
    'it needs 2 GiB of memory, the largest worker with zone=b has 512 MiB',
    { overrides: { memory_bytes: 2 * GIB }, worker_labels: { zone: 'b' } },
    [member('a'), member('b', { memoryBytes: 512 << 20, ...zone('b') })],
  ],
  ['it needs 8 CPUs, the largest worker has 4', { overrides: { cpus: 8 } }, [member('a')]],
  [
    'no worker has both 8 CPUs and 16 GiB of memory',
    { overrides: { cpus: 8, memory_bytes: 16 * GIB } },
    [member('a'), member('b', { cpus: 16, memoryBytes: GIB })],
  ],
  [
    'only b could run it, and nothing is heard of it for 300 s',
    { worker_labels: { zone: 'b' } },
    [member('a'), member('b', zone('b'), silent)],
  ],
  ['a, b could run it, and they drain', {}, ['a', 'b'].map((name) => member(name, {}, { draining: true }))],
  [
    'only b could run it, and it drains',
    { overrides: { cpus: 2 } },
    [member('a', { cpus: 1 }), member('b', {}, { draining: true })],
  ],
  ['only a could run it, and it has no room now', {}, [member('a', {}, { left: full })]],
  [
    '4 workers could run it, and they have no room now',
    {},
    ['a', 'b', 'c', 'd'].map((name) => member(name, {}, { left: full })),
  ],
  [undefined, { overrides: { cpus: 4 } }, [member('a', {}, { left: full }), member('b')]],
];

test.each(cases)('%s', (why, spec, fleet) => {
  const row = { state: 'pending', spec: JSON.parse(JSON.stringify(spec)), notBefore: 0 } as const;
  expect(waitingReason(row, fleet, LEASE_MS, NOW)).toBe(why as string);
});

test('a restart that is put off says until when, and what does not wait has no reason to', () => {
  const row = { spec: {}, notBefore: NOW + 5_000 };
  expect(waitingReason({ ...row, state: 'pending' }, [member('a')], LEASE_MS, NOW)).toBe(
    'it is started again at 1970-01-01T00:16:45.000Z',
  );
  for (const state of ['assigned', 'running', 'exited'] as const)
    expect(waitingReason({ ...row, state }, [], LEASE_MS, NOW)).toBeUndefined();
});
