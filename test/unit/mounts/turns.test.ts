import { expect, test } from 'bun:test';
import { Turns } from '../../../src/mounts/turns.ts';

test('work on one thing happens in order of arrival, also after work that failed', async () => {
  const turns = new Turns();
  const seen: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = turns.take('a', async () => {
    await gate.promise;
    seen.push('first');
    throw new Error('first fails');
  });
  const second = turns.take('a', async () => seen.push('second'));
  const third = turns.take('a', async () => seen.push('third'));
  expect(turns.busy).toBe(1);
  gate.resolve();
  expect(await first.catch((error: Error) => error.message)).toBe('first fails');
  await Promise.all([second, third]);
  expect(seen).toEqual(['first', 'second', 'third']);
  expect(turns.busy).toBe(0);
});

test('work on different things happens at once', async () => {
  const turns = new Turns();
  const gate = Promise.withResolvers<void>();
  const waiting = turns.take('a', () => gate.promise);
  expect(await turns.take('b', async () => 'done')).toBe('done');
  gate.resolve();
  await waiting;
});

test('idle waits for what comes while it waits', async () => {
  const turns = new Turns();
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  let idle = false;
  const first = turns.take('a', async () => gates[0]?.promise);
  const waiting = turns.idle().then(() => (idle = true));
  const second = turns.take('a', async () => gates[1]?.promise);
  gates[0]?.resolve();
  await first;
  expect(idle).toBe(false);
  gates[1]?.resolve();
  await second;
  await waiting;
  expect(idle).toBe(true);
});
