import { expect, test } from 'bun:test';
import { ChangeSignals } from '../../../src/protocol/index.ts';

const LONG = 60_000;

async function settled(promise: Promise<void>): Promise<boolean> {
  let done = false;
  void promise.then(() => {
    done = true;
  });
  await new Promise(setImmediate);
  return done;
}

test('a signal wakes all who wait for its key, and nobody else', async () => {
  const signals = new ChangeSignals();
  const [a, b, other] = [signals.wait(['k'], LONG), signals.wait(['k'], LONG), signals.wait(['x'], LONG)];
  signals.signal('k');
  expect([await settled(a), await settled(b), await settled(other)]).toEqual([true, true, false]);
  signals.signal('x');
  await other;
});

test('who waits for several keys is woken by the first, once', async () => {
  const signals = new ChangeSignals();
  const waiter = signals.wait(['a', 'b'], LONG);
  signals.signal('b');
  await waiter;
  signals.signal('a');
});

test('a signal before the wait is not kept', async () => {
  const signals = new ChangeSignals();
  signals.signal('k');
  const waiter = signals.wait(['k'], LONG);
  expect(await settled(waiter)).toBe(false);
  signals.signal('k');
  await waiter;
});

test('a waiter wakes by itself after its time', async () => {
  await new ChangeSignals().wait(['k'], 1);
});

test('an abort wakes a waiter, and one that came before lets nobody wait', async () => {
  const abort = new AbortController();
  const waiter = new ChangeSignals().wait(['k'], LONG, abort.signal);
  abort.abort();
  await waiter;
  await new ChangeSignals().wait(['k'], LONG, abort.signal);
});

test('a waiter that was woken may wait again at once without being woken twice', async () => {
  const signals = new ChangeSignals();
  let woken = 0;
  const loop = async () => {
    await signals.wait(['k'], LONG);
    woken++;
    await signals.wait(['k'], LONG);
    woken++;
  };
  const running = loop();
  signals.signal('k');
  await new Promise(setImmediate);
  expect(woken).toBe(1);
  signals.signal('k');
  await running;
  expect(woken).toBe(2);
});

test('who waits for a kind is woken by any of it, and nobody of it by another', async () => {
  const signals = new ChangeSignals();
  const [all, one] = [signals.wait(['container:'], LONG), signals.wait(['container:b'], LONG)];
  signals.signal('container:a');
  expect([await settled(all), await settled(one)]).toEqual([true, false]);
  signals.signal('container:b');
  await one;
});
