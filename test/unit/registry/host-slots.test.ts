import { describe, expect, setSystemTime, test } from 'bun:test';
import { HostSlots, type Priority } from '../../../src/registry/index.ts';

/** Lets everything that is ready run, without waiting for time to pass. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

describe('HostSlots', () => {
  test('lets no more run at a host than its limit, and counts hosts apart', async () => {
    const slots = new HostSlots({ limit: 2 });
    const releases = [await slots.acquire('a'), await slots.acquire('a')];
    let third = false;
    const waiting = slots.acquire('a').then(() => {
      third = true;
    });
    await slots.acquire('b');
    await settle();
    expect(third).toBe(false);
    releases[0]?.();
    await waiting;
    expect(third).toBe(true);
  });

  test('lets demand pass prefetch, and keeps a slot free of prefetch', async () => {
    const slots = new HostSlots({ limit: 4 });
    const order: string[] = [];
    const ask = (name: string, priority: Priority) =>
      slots.acquire('a', priority).then((release) => {
        order.push(name);
        return release;
      });
    const prefetches = [1, 2, 3, 4].map((number) => ask(`p${number}`, 'prefetch'));
    await settle();
    expect(order).toEqual(['p1', 'p2', 'p3']);
    const demands = [ask('d1', 'demand'), ask('d2', 'demand')];
    await settle();
    expect(order).toEqual(['p1', 'p2', 'p3', 'd1']);
    (await prefetches[0])?.();
    await settle();
    expect(order).toEqual(['p1', 'p2', 'p3', 'd1', 'd2']);
    (await demands[0])?.();
    await settle();
    expect(order.at(-1)).toBe('p4');
  });

  test('forgets a waiter that is cancelled, and returns a slot once', async () => {
    const slots = new HostSlots({ limit: 1 });
    const release = await slots.acquire('a');
    const abortion = new AbortController();
    const cancelledWaiter = slots.acquire('a', 'demand', abortion.signal);
    abortion.abort();
    await expect(cancelledWaiter).rejects.toMatchObject({ code: 'CANCELLED' });
    release();
    release();
    await slots.acquire('a');
    let second = false;
    void slots.acquire('a').then(() => {
      second = true;
    });
    await settle();
    expect(second).toBe(false);
  });

  test('keeps a pause as long as it was asked for when the clock is set back', async () => {
    const slots = new HostSlots({
      sleep: async (ms) => {
        expect(ms).toBeLessThanOrEqual(1000);
        await Bun.sleep(ms);
      },
    });
    slots.pause('a', 20);
    setSystemTime(new Date('2001-01-01'));
    try {
      (await slots.acquire('a'))();
    } finally {
      setSystemTime();
    }
  });

  test('holds everybody back while a host wants a pause', async () => {
    let now = 0;
    const slept: number[] = [];
    const slots = new HostSlots({
      now: () => now,
      sleep: async (ms) => {
        slept.push(ms);
        now += ms;
      },
    });
    slots.pause('a', 5000);
    slots.pause('a', 1000);
    await slots.acquire('a');
    await slots.acquire('a', 'prefetch');
    await slots.acquire('b');
    expect(slept).toEqual([5000]);
  });
});
