import { describe, expect, test } from 'bun:test';
import { silentLogger } from '../../../src/observability/index.ts';
import { HostSlots, RegistryError } from '../../../src/registry/index.ts';
import { Patience } from '../../../src/registry/patience.ts';

function setUp() {
  const clock = { now: 0 };
  const waits: number[] = [];
  const sleep = async (ms: number) => {
    waits.push(ms);
    clock.now += ms;
  };
  const slots = new HostSlots({ now: () => clock.now, sleep });
  const policy = { attempts: 3, baseMs: 100, capMs: 1000, retryAfterCapMs: 10_000 };
  const patience = new Patience({ policy, random: () => 1, sleep, slots, host: 'a', logger: silentLogger });
  return { patience, waits, slots, clock };
}
const transient = (retryAfterMs?: number) =>
  new RegistryError('REGISTRY_ERROR', 'busy', { transient: true, retryAfterMs });

describe('Patience', () => {
  test('ends after the last try, with its error', async () => {
    const { patience, waits } = setUp();
    await patience.after(transient());
    await patience.after(transient());
    const last = transient();
    await expect(patience.after(last)).rejects.toBe(last);
    expect(waits).toEqual([100, 200]);
  });

  test('starts again after progress', async () => {
    const { patience, waits } = setUp();
    for (let round = 0; round < 5; round++) {
      await patience.after(transient());
      patience.progress();
    }
    expect(waits).toEqual([100, 100, 100, 100, 100]);
  });

  test('does not wait for what will not change', async () => {
    const { patience, waits } = setUp();
    const final = new RegistryError('MANIFEST_UNKNOWN', 'no');
    await expect(patience.after(final)).rejects.toBe(final);
    await expect(patience.after(new TypeError('a defect'))).rejects.toThrow(TypeError);
    expect(waits).toEqual([]);
  });

  test('lets a host that names a time be left alone by all', async () => {
    const { patience, slots, clock, waits } = setUp();
    const gate = Promise.withResolvers<void>();
    const told = patience.after(transient(5000)).then(gate.resolve);
    clock.now = 1000;
    await slots.acquire('a');
    await told;
    // Whoever came meanwhile waited for the end of the same pause.
    expect(waits[0]).toBe(5000);
    expect(clock.now).toBeGreaterThanOrEqual(5000);
  });

  test('reports a wait that is longer than anybody has', async () => {
    const { patience, waits } = setUp();
    await expect(patience.after(transient(11_000))).rejects.toMatchObject({ retryAfterMs: 11_000 });
    expect(waits).toEqual([]);
  });
});
