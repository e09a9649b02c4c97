import { afterAll, beforeAll, expect, test } from 'bun:test';
import type { WorkspaceId } from '../../../src/database/index.ts';
import type { RegisterImage } from '../../../src/protocol/index.ts';
import {
  type PushedImage,
  Pusher,
  type RegistryFixture,
  type ScriptedServer,
  startFaultProxy,
  startRegistry,
  startScriptedServer,
} from '../../fixtures/registry/index.ts';
import { tarOf } from '../../fixtures/tree/index.ts';
import { ME } from '../../unit/secrets/world.ts';
import { openNode } from '../index-artifact/node.ts';

// Two layers of several spans each, which don't compress.
const noise = () => crypto.getRandomValues(new Uint8Array(65_536));
const layerOf = (name: string) => tarOf([{ name, data: Buffer.concat(Array.from({ length: 160 }, noise)) }]);

let registry: RegistryFixture;
let image: PushedImage;
beforeAll(async () => {
  registry = await startRegistry();
  image = await new Pusher(registry).image({ layers: [layerOf('one'), layerOf('two')] });
});
afterAll(() => registry.stop());

/** A registry that knows what the image is made of, and has nothing of its layers but what `blob` gives. */
function pretender(blob: (path: string, range: string | null) => Response): ScriptedServer {
  return startScriptedServer(({ path, headers }) => {
    if (path.includes('/manifests/') && !path.includes('/sha256-')) {
      const type = 'application/vnd.oci.image.manifest.v1+json';
      return new Response(image.manifest, { headers: { 'content-type': type } });
    }
    if (path.endsWith(image.config.digest)) return new Response(image.config.bytes);
    return path.includes('/blobs/') ? blob(path, headers.get('range')) : new Response('{}', { status: 404 });
  });
}

const nothing = () => new Response('{}', { status: 404 });

/** Other bytes, of the right length. */
function forged(path: string, range: string | null): Response {
  const layer = image.layers.find(({ digest }) => path.endsWith(digest));
  const [, from = '0', to = ''] = /^bytes=(\d+)-(\d*)$/.exec(range ?? '') ?? [];
  const size = layer?.size ?? 0;
  const end = to === '' ? size - 1 : Number(to);
  const body = crypto.getRandomValues(new Uint8Array(65_536));
  const bytes = Buffer.alloc(end - Number(from) + 1, body);
  return range === null
    ? new Response(bytes)
    : new Response(bytes, { status: 206, headers: { 'content-range': `bytes ${from}-${end}/${size}` } });
}

async function openTwo() {
  const node = await openNode();
  const other = (await node.secrets.workspaces.ensure('other')).id;
  const register = (workspace: WorkspaceId, request: RegisterImage) =>
    node.registration.register(workspace, request, ME);
  return { node, other, register };
}

const codeOf = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => 'done',
    (error: { code?: unknown }) => error.code,
  );

test.each([
  ['has no such layer', nothing, 'MANIFEST_UNKNOWN'],
  ['has other bytes in its place', forged, 'CORRUPT'],
] as const)(
  'what one workspace has read is not opened to another whose registry %s',
  async (_, blob, code) => {
    const { node, other, register } = await openTwo();
    await using _node = node;
    await register(node.workspace, { reference: image.reference });
    await using fake = pretender(blob);
    const reference = `${fake.host}/team/app:latest`;
    expect(await codeOf(register(other, { reference }))).toBe(code);
    expect(node.database.workspace(other).images.list()).toEqual([]);
  },
);

test('an image whose index came with it is not pushed with what another workspace has read', async () => {
  const { node, other, register } = await openTwo();
  await using _node = node;
  await using fake = pretender(nothing);
  const { image: row } = await register(node.workspace, { reference: image.reference });
  const theirs = node.database.workspace(other).images.register({
    ...row,
    registry: fake.host,
    credential: undefined,
    indexArtifact: row.manifestDigest,
  });
  expect(await codeOf(node.publication.push(theirs.image, {}, ME))).toBe('MANIFEST_UNKNOWN');
});

test('another workspace whose registry has the layers reads a span of each, and after that nothing', async () => {
  const { node, other, register } = await openTwo();
  await using _node = node;
  await using proxy = await startFaultProxy(registry.url);
  const reference = image.reference.replace(registry.host, proxy.host);
  const total = image.layers.reduce((sum, { size }) => sum + size, 0);
  await register(node.workspace, { reference });
  const [first] = [proxy.bytesSent];
  await register(other, { reference });
  const second = proxy.bytesSent - first;
  expect(second).toBeGreaterThan(100_000);
  expect(second).toBeLessThan(0.9 * total);
  await register(other, { reference });
  expect(proxy.bytesSent - first - second).toBeLessThan(10_000);
});
