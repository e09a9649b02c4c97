import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { firstOutput, mountsBelow, Sandbox } from '../fixtures/executable/index.ts';
import { busyboxLayer, layerOf, sh } from '../fixtures/images/index.ts';
import { type PushedImage, Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';
import { differences, snapshotDirectory, type Tree } from '../fixtures/tree/index.ts';

const PASSWORD = 'tree-password';
let registry: RegistryFixture;
let image: PushedImage;
let unpacked: Tree;

// Everything that layers are known to do to each other.
const layers = async () => [
  await busyboxLayer(),
  await layerOf(`
    mkdir -p data/keep data/gone data/opaque/old links deep/a/b/c
    for name in keep/a keep/b gone/x opaque/old/y; do echo "$name" > data/$name; done
    echo original > links/one; ln links/one links/two; ln -s ../data/keep/a links/soft; ln -s /nonexistent links/dangling
    echo replaced-by-directory > kind-a; mkdir kind-b; echo inside > kind-b/file
    mknod links/fifo p; mknod links/null c 1 3; mknod links/loop b 7 300
    echo setuid > suid; chmod 4755 suid; echo setgid > sgid; chmod 2750 sgid; chown 1000:2000 sgid
    echo old > old-file; touch -d '1965-03-04 05:06:07.123456789Z' old-file; touch -d '2033-01-02 03:04:05.987654321Z' links/one
    echo far > high-owner; chown 3000000000:4000000000 high-owner
    setfattr -n user.note -v 'a value' data/keep/a; setfattr -n trusted.mark -v 0x00ff10 data/keep/b
    cp /bin/true capable; setcap cap_net_raw+ep capable
    truncate -s 5M sparse; printf end >> sparse; dd if=/dev/urandom of=big bs=64k count=90 2>/dev/null
    touch "$(printf 'na\\303\\257ve')" "$(printf 'raw-\\377\\376-bytes')" 'with space' "$(printf 'new\\nline')"
    touch "$(head -c 250 /dev/zero | tr '\\0' n)"; : > empty
  `),
  await layerOf(`
    mkdir -p data/opaque data/keep links
    touch data/.wh.gone data/keep/.wh.b links/.wh.one
    touch data/opaque/.wh..wh..opq; echo new > data/opaque/new
    mkdir kind-a; echo now-a-directory > kind-a/file; echo now-a-file > kind-b
    echo changed > data/keep/a; chmod 600 data/keep/a; ln data/keep/a links/to-a
    mkdir -p deep/a; chmod 700 deep/a; chown 7:8 deep/a
  `),
  await layerOf(
    `mkdir -p data/gone links; echo again > data/gone/x; echo three > links/one; touch .wh.empty`,
  ),
];

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { tree: PASSWORD } });
  image = await new Pusher(registry, 'tree', PASSWORD).image({
    repository: 'tree',
    tag: '1',
    layers: await layers(),
  });
  const work = await mkdtemp(join(tmpdir(), 'imgcred-umoci-'));
  try {
    await sh(
      `skopeo copy --quiet --src-creds tree:${PASSWORD} --src-tls-verify=false docker://${image.reference} oci:layout:latest && umoci unpack --image layout:latest bundle`,
      work,
    );
    unpacked = snapshotDirectory(join(work, 'bundle', 'rootfs'));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}, 120_000);

afterAll(() => registry?.stop());

describe('the tree that a container sees', () => {
  for (const driver of ['kernel', 'fuse-native']) {
    test(`equals what umoci unpacks, through the ${driver} driver`, async () => {
      await using sandbox = await Sandbox.make();
      await sandbox.serve(['--fuse-driver', driver]);
      const env = { REGISTRY_USERNAME: 'tree', REGISTRY_PASSWORD: PASSWORD };
      const added = await sandbox.run(
        ['image', 'add', image.reference, '--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'],
        { env },
      );
      expect(added).toMatchObject({ code: 0 });
      const started = await sandbox.run([
        'run',
        '--detach',
        image.reference,
        '--',
        '/bin/sh',
        '-c',
        'echo up; sleep 600',
      ]);
      const id = started.stdout.trim();
      await firstOutput(sandbox, id, 'up');
      const [mountpoint] = await lazyMounts(sandbox);
      const seen = snapshotDirectory(mountpoint ?? '');
      expect(seen.size).toBeGreaterThan(40);
      expect(differences(unpacked, seen)).toEqual([]);
      expect((await sandbox.run(['container', 'stop', '--kill', id])).code).toBe(0);
      expect((await sandbox.run(['container', 'wait', id])).code).toBe(137);
    });
  }
});

async function lazyMounts(sandbox: Sandbox): Promise<string[]> {
  const found = await mountsBelow(join(sandbox.dataDirectory, 'worker'));
  return found.filter((path) => path.includes('/mounts/'));
}
