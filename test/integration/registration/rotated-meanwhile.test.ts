import { expect, test } from 'bun:test';
import { Secret } from '../../../src/credentials/index.ts';
import { Pusher, startRegistry } from '../../fixtures/registry/index.ts';
import { tarOf } from '../../fixtures/tree/index.ts';
import { ME } from '../../unit/secrets/world.ts';
import { openNode } from '../index-artifact/node.ts';

const value = (password: string) =>
  new Secret(JSON.stringify({ REGISTRY_USERNAME: 'user', REGISTRY_PASSWORD: password }));

test('a value that a secret is given while an image is registered with it is proved for that image too', async () => {
  await using registry = await startRegistry({ htpasswd: { user: 'right' } });
  const image = await new Pusher(registry, 'user', 'right').image({
    layers: [tarOf([{ name: 'file', data: new Uint8Array(9) }])],
  });
  await using node = await openNode();
  const { store } = node.secrets;
  // Written as a user may spell it: the same registry.
  await store.create(
    node.workspace,
    { name: 'login', value: value('right'), kind: 'registry', registry: registry.host },
    ME,
  );
  let rotated: Promise<unknown> | undefined;
  const { image: row, warnings } = await node.register(
    { reference: image.reference, secret: 'login' },
    () => {
      // No image uses the secret yet, so nothing is there to prove the new value with.
      rotated ??= store.set(node.workspace, 'login', value('wrong'), ME, { verify: async () => true });
    },
  );
  await rotated;
  expect(row.credential?.secretName).toBe('login');
  expect(warnings).toEqual([expect.stringContaining('login')]);
});
