import { describe, expect, test } from 'bun:test';
import { ImgcredError } from '../../../src/errors/index.ts';
import { NoThreadError, runTask, Semaphore } from '../../../src/threads/index.ts';
import { Gate } from '../../fixtures/gate.ts';
import type { HeldOrder } from './held-thread.ts';

const run = (order: HeldOrder) => runTask({ entry: '../test/unit/threads/held-thread', name: 'test', order });

describe('a task in a thread', () => {
  test('holds up nobody while it is held up itself, and gives its result', async () => {
    await using gate = await Gate.make();
    let done = false;
    const running = run({ gate: gate.path }).finally(() => {
      done = true;
    });
    await gate.reached();
    // A turn of the event loop, with the thread in the middle of a system call.
    await new Promise((resolve) => setImmediate(resolve));
    expect(done).toBe(false);
    await gate.open('go');
    expect(await running).toEqual({ read: 'go', bytes: new Uint8Array([1, 2, 3]) });
  });

  test('fails with the error that it failed with', async () => {
    const refused = await run({ fail: 'known' }).catch((thrown: unknown) => thrown);
    expect(refused).toBeInstanceOf(ImgcredError);
    expect(refused).toMatchObject({
      code: 'CONFLICT',
      message: 'it is there already',
      hint: 'move it away',
    });
    await expect(run({ fail: 'unforeseen' })).rejects.toMatchObject({
      code: 'INTERNAL',
      message: 'x is not a y',
    });
  });

  test('fails when its thread dies', async () => {
    await expect(run({ fail: 'later' })).rejects.toMatchObject({
      code: 'INTERNAL',
      message: expect.stringContaining('out of turn'),
    });
  });

  test('is not begun where there is no thread', async () => {
    const refused = await runTask({ entry: 'no/such-thread', name: 'test', order: {} }).catch(
      (thrown: unknown) => thrown,
    );
    expect(refused).toBeInstanceOf(NoThreadError);
  });
});

describe('a semaphore', () => {
  test('lets so many in, and the next in the order in which they came', async () => {
    const semaphore = new Semaphore(1);
    await semaphore.enter();
    const order: string[] = [];
    const gone = new AbortController();
    const first = semaphore.enter().then(() => order.push('first'));
    const never = semaphore.enter(gone.signal);
    const second = semaphore.enter().then(() => order.push('second'));
    gone.abort(new Error('gone'));
    await expect(never).rejects.toThrow('gone');
    semaphore.leave();
    await first;
    expect(order).toEqual(['first']);
    semaphore.leave();
    await second;
    expect(order).toEqual(['first', 'second']);
  });
});
