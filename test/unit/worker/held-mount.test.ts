import { describe, expect, test } from 'bun:test';
import { Secret } from '../../../src/credentials/index.ts';
import { HeldMount } from '../../../src/worker/held-mount.ts';

const REQUEST = {
  mount_id: 'm',
  mountpoint: '/m',
  index_path: '/i',
  workspace_id: 'ws_1',
  image: {
    id: 'img_a',
    reference: 'r/a:1',
    registry: 'r',
    repository: 'a',
    manifest_digest: 'sha256:0',
    index_digest: '0',
  },
};
const opening = (version: string) => ({ credential: new Secret(version), version });

/** A mount that two tags of one image share. */
function shared() {
  const held = new HeldMount(REQUEST);
  held.add('ctr_1', 'img_a');
  held.add('mount:/mnt', 'img_b');
  const [a, b] = [opening('a@1'), opening('b@1')];
  held.opened('img_a', a);
  held.opened('img_b', b);
  return { held, a, b };
}

describe('a mount that two tags share', () => {
  test('reads with what came last, and knows what each tag was opened with', () => {
    const { held, b } = shared();
    expect(held.current).toBe(b);
    expect([held.versionOf('img_a'), held.versionOf('img_b')]).toEqual(['a@1', 'b@1']);
    expect(held.better).toBeUndefined();
  });

  test('has the other’s to read with when one is taken away', () => {
    const { held, a } = shared();
    held.closed('img_b', 'none');
    expect(held.better).toBe(a);
    held.reads(a);
    expect(held.better).toBeUndefined();
    held.closed('img_a', 'none');
    expect(held.better?.credential).toBeUndefined();
  });

  test('does not go on with what opened a tag that nobody uses any more', () => {
    const { held, a } = shared();
    expect(held.remove('mount:/mnt')).toBe(true);
    expect(held.better).toBe(a);
    expect(held.remove('ctr_1')).toBe(false);
  });

  test('tells those users that are no containers', () => {
    const { held } = shared();
    expect([...held.ownImages]).toEqual(['img_b']);
    expect([...held.images]).toEqual(['img_a', 'img_b']);
  });
});
