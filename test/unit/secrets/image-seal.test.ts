import { describe, expect, test } from 'bun:test';
import { newImage } from '../database/world.ts';
import { openSecretWorld } from './world.ts';

async function openImageWorld() {
  const world = await openSecretWorld();
  const { store } = world.secrets;
  const wanted = newImage('app', { indexArtifact: `sha256:${'a'.repeat(64)}` });
  const images = world.database.workspace(world.workspace).images;
  const { image } = images.register({
    ...wanted,
    indexSeal: await store.sealImage(world.workspace, wanted),
  });
  const read = () => images.get(image.id);
  return { ...world, store, wanted, images, image, read };
}

describe('the seal of an image', () => {
  test('holds for the row as it was written', async () => {
    await using world = await openImageWorld();
    await world.store.checkImage(world.read());
  });

  test.each([
    ['reference', 'registry.test/other:1'],
    ['registry', 'evil.test'],
    ['repository', 'other'],
    ['platform', 'linux/arm64'],
    ['manifest_digest', `sha256:${'b'.repeat(64)}`],
    ['index_digest', 'c'.repeat(64)],
    ['index_artifact', null],
    ['index_seal', new Uint8Array(32)],
    ['index_seal', null],
  ])('does not hold once %s is changed past the repositories', async (column, value) => {
    await using world = await openImageWorld();
    if (value === null) world.tamper(`UPDATE images SET ${column} = NULL`);
    else world.tamper(`UPDATE images SET ${column} = ?`, value);
    await expect(world.store.checkImage(world.read())).rejects.toMatchObject({ code: 'CORRUPT' });
  });

  test('is made with the workspace’s own key', async () => {
    await using world = await openImageWorld();
    const other = (await world.secrets.workspaces.ensure('other')).id;
    const there = world.database.workspace(other).images.register({
      ...world.wanted,
      indexSeal: world.image.indexSeal,
    }).image;
    await expect(world.store.checkImage(there)).rejects.toMatchObject({ code: 'CORRUPT' });
  });

  test('does not depend on which secret opens the registry', async () => {
    await using world = await openImageWorld();
    const before = world.read();
    world.images.setImageCredentialSecret(before.id, undefined);
    await world.store.checkImage(world.read());
  });
});
