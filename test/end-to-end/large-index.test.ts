import { expect, test } from 'bun:test';
import { Sandbox } from '../fixtures/executable/index.ts';
import { Pusher, startRegistry } from '../fixtures/registry/index.ts';
import { tarOf } from '../fixtures/tree/index.ts';

// As many as are worth a thread, and content that is more than one span, so that a pushed index is taken unread.
const FILES = 10_000;
const NOISE = 9 * 1024 * 1024;

function crowdedLayer(): Uint8Array {
  const noise = new Uint8Array(NOISE);
  for (let at = 0; at < NOISE; at += 65_536) crypto.getRandomValues(noise.subarray(at, at + 65_536));
  const files = Array.from({ length: FILES }, (_, n) => ({ name: `file-${n}`, data: `${n}` }));
  return tarOf([{ name: 'noise', data: noise }, ...files]);
}

test('the executable works on large indexes in threads, and complains of none', async () => {
  await using registry = await startRegistry();
  const { reference } = await new Pusher(registry).image({ layers: [crowdedLayer()] });
  await using builder = await Sandbox.make();
  const add = (sandbox: Sandbox, ...options: string[]) =>
    sandbox.run(['image', 'add', reference, '--json', ...options]);
  // It reads the layer, and then finds it known.
  for (const _ of ['read', 'known']) {
    const added = await add(builder);
    expect(added).toMatchObject({ code: 0, stderr: '' });
    expect(JSON.parse(added.stdout)).toMatchObject({ index_origin: 'local', file_count: FILES + 2 });
  }
  expect(await builder.run(['index', 'push', reference])).toMatchObject({ code: 0, stderr: '' });

  await using edge = await Sandbox.make();
  const added = await add(edge, '--index', 'require');
  expect(added).toMatchObject({ code: 0, stderr: '' });
  expect(JSON.parse(added.stdout)).toMatchObject({ index_origin: 'registry', file_count: FILES + 2 });
}, 60_000);
