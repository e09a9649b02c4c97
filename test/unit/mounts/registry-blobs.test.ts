import { describe, expect, test } from 'bun:test';
import type { LayerSource } from '../../../src/index/index.ts';
import { RegistryBlobs } from '../../../src/mounts/registry-blobs.ts';
import { digestOf } from '../../../src/reference/index.ts';
import { RegistryError } from '../../../src/registry/index.ts';

const layer: LayerSource = {
  digest: digestOf(new Uint8Array(1)),
  diffId: digestOf(new Uint8Array(2)),
  compression: 'gzip',
  size: 10,
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
};

/** A registry that answers a 429 with this `Retry-After` until it is told not to. */
function limited(retryAfterMs: number | undefined) {
  const state = { asked: 0, limited: true, now: 0 };
  const client = {
    trouble: undefined,
    async readRange() {
      state.asked += 1;
      if (state.limited) {
        throw new RegistryError('REGISTRY_ERROR', 'HTTP 429', {
          transient: true,
          ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
        });
      }
      return { kind: 'range' as const, bytes: new Uint8Array(1) };
    },
  };
  const blobs = new RegistryBlobs(client, 'team/app', { now: () => state.now });
  const read = () =>
    blobs.readRange(layer, 0, 1, { priority: 'demand' }).then(
      () => 'read',
      (error: unknown) => (error as RegistryError).message,
    );
  return { state, blobs, read };
}

describe('a registry that asks not to be asked for an hour', () => {
  test('is left alone, and who reads is told what it said', async () => {
    const { state, read } = limited(3_600_000);
    for (let n = 0; n < 5; n += 1) expect(await read()).toBe('HTTP 429');
    expect(state.asked).toBe(1);
  });

  test('is asked again after five minutes: it may be well by then', async () => {
    const { state, read } = limited(3_600_000);
    await read();
    state.limited = false;
    state.now = 299_999;
    expect(await read()).toBe('HTTP 429');
    state.now = 300_000;
    expect(await read()).toBe('read');
  });

  test('is asked again with another login', async () => {
    const { state, blobs, read } = limited(3_600_000);
    await read();
    state.limited = false;
    blobs.askAgain();
    expect(await read()).toBe('read');
  });
});

test.each([undefined, 30_000])('a pause of %p ms is the client’s own matter', async (retryAfterMs) => {
  const { state, read } = limited(retryAfterMs);
  await read();
  await read();
  expect(state.asked).toBe(2);
});
