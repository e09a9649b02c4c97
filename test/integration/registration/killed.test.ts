import { expect, test } from 'bun:test';
import { watch } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Pusher, startFaultProxy, startRegistry } from '../../fixtures/registry/index.ts';
import { tarOf } from '../../fixtures/tree/index.ts';

const ENTRY = join(import.meta.dir, 'registering-process.ts');

const start = (directory: string, reference: string) =>
  Bun.spawn([process.execPath, ENTRY, directory, reference, 'all'], { stdout: 'pipe', stderr: 'inherit' });

/** Resolves once a layer's table is complete on disk. */
async function firstTable(directory: string): Promise<void> {
  const changed = Promise.withResolvers<void>();
  const complete = async () => (await readdir(directory)).some((name) => name.endsWith('.layer'));
  const watcher = watch(directory, () => {
    void complete().then((there) => there && changed.resolve());
  });
  if (!(await complete())) await changed.promise;
  watcher.close();
}

test('a registration that is killed midway goes on from the last finished layer', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'imgcred-killed-'));
  const tables = join(directory, 'layers');
  await using registry = await startRegistry();
  const image = await new Pusher(registry).image({
    layers: ['first', 'second', 'third'].map((name) =>
      tarOf([{ name, data: crypto.getRandomValues(new Uint8Array(65_536)) }]),
    ),
  });
  await using proxy = await startFaultProxy(registry.url);
  // A layer that is known is read no further than it takes to see that the registry has it: a span.
  const requestsOf = (layer: number) =>
    proxy.requests.filter(
      ({ path, headers }) => path.endsWith(image.layers[layer]?.digest ?? '') && headers.range === undefined,
    ).length;
  proxy.fault = ({ path }) =>
    path.endsWith(image.layers[1]?.digest ?? '') ? { stall: { afterBytes: 10_000 } } : undefined;
  const reference = image.reference.replace(registry.host, proxy.host);
  try {
    await Bun.$`mkdir -p ${tables}`.quiet();
    const killed = start(directory, reference);
    await firstTable(tables);
    killed.kill('SIGKILL');
    await killed.exited;
    const finished = (await readdir(tables)).filter((name) => name.endsWith('.layer'));
    expect(finished.length).toBeLessThan(3);
    const before = [0, 1, 2].map(requestsOf);

    proxy.fault = () => undefined;
    const again = start(directory, reference);
    expect(await again.stdout.text()).toStartWith('done ');
    expect(await again.exited).toBe(0);
    // What the killed one had begun is not left lying about.
    expect((await readdir(tables)).every((name) => name.endsWith('.layer'))).toBe(true);
    for (const [layer, { digest }] of image.layers.entries()) {
      const known = finished.includes(`${digest.slice('sha256:'.length)}.layer`);
      expect(requestsOf(layer) - (before[layer] ?? 0)).toBe(known ? 0 : 1);
    }
    // What the killed one had begun to keep is swept away.
    expect(await readdir(join(directory, 'worker', 'cache', 'incoming'))).toEqual([]);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
