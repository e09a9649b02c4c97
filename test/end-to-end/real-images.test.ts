import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Sandbox } from '../fixtures/executable/index.ts';
import { type DebianImage, debianImage, sh } from '../fixtures/images/index.ts';
import { type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';
import {
  differences,
  overlayTree,
  snapshotInThread,
  type Tree,
  withoutOverlayTraits,
} from '../fixtures/tree/index.ts';

const PASSWORD = 'real-password';
const install = (packages: string) =>
  `apt-get update -qq; apt-get install -y -qq --no-install-recommends ${packages}`;
// What Dockerfiles do last: remove and replace, change modes and owners, link.
const TIDY = `rm -rf /usr/share/doc/* /usr/share/locale; mkdir /usr/share/locale
  useradd --create-home --uid 70000 app; install -d -o app /srv/app; ln -s /srv/app /app; mv /etc/issue /etc/issue.old
  chmod u-s /usr/bin/chfn; ln -f /usr/bin/env /usr/local/bin/env; rm -rf /opt; echo none > /opt; truncate -s 5M /srv/app/hole`;

interface RealImage {
  readonly name: string;
  readonly stages: readonly string[];
  /** How skopeo writes the layers to the registry. */
  readonly copy: string;
  readonly index: 'local' | 'auto';
}

// Three take five minutes to make and to read. One is made always: it has layers, files and links of all kinds.
const ALL_IMAGES: readonly RealImage[] = [
  { name: 'Python with numpy', stages: [install('python3-numpy'), TIDY], copy: '', index: 'local' },
  {
    name: 'Node',
    stages: [install('nodejs npm'), TIDY],
    copy: '--dest-compress-format zstd',
    index: 'local',
  },
  {
    name: 'a compiler',
    stages: [install('gcc g++ libc6-dev'), TIDY],
    copy: '--dest-compress-format zstd:chunked',
    index: 'auto',
  },
];
const IMAGES = process.env.IMGCRED_REAL_IMAGES === undefined ? ALL_IMAGES.slice(0, 1) : ALL_IMAGES;

describe.each(IMAGES)('a Debian image with $name', ({ stages, copy, index }) => {
  let registry: RegistryFixture;
  let sandbox: Sandbox;
  let work: string;
  let image: DebianImage;
  let reference: string;
  let unpacked: Tree;

  beforeAll(async () => {
    work = await mkdtemp(join(tmpdir(), 'imgcred-debian-'));
    registry = await startRegistry({ htpasswd: { real: PASSWORD } });
    sandbox = await Sandbox.make();
    image = await debianImage(work, stages);
    const unpack = async () => {
      await sh(`umoci raw unpack --image ${image.layout} ${work}/unpacked`);
      return await snapshotInThread(join(work, 'unpacked'));
    };
    const register = async () => {
      reference = `${registry.host}/debian:1`;
      await sh(`skopeo copy --quiet --dest-creds real:${PASSWORD} --dest-tls-verify=false ${copy} \
        oci:${image.layout} docker://${reference}`);
      const env = { REGISTRY_USERNAME: 'real', REGISTRY_PASSWORD: PASSWORD };
      const creds = ['--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'];
      const added = await sandbox.run(
        ['image', 'add', reference, ...creds, '--index', index, '--keep', 'none'],
        { env },
      );
      expect(added).toMatchObject({ code: 0 });
      const shown = JSON.parse((await sandbox.run(['image', 'show', reference, '--json'])).stdout);
      expect(shown).toMatchObject({ index_origin: index === 'auto' ? 'registry' : 'local' });
    };
    [unpacked] = await Promise.all([unpack(), register()]);
  }, 900_000);

  afterAll(async () => {
    await sandbox?.[Symbol.asyncDispose]();
    await registry?.stop();
    if (work !== undefined) await rm(work, { recursive: true, force: true });
  }, 60_000);

  for (const driver of ['kernel', 'fuse-native']) {
    test(`equals what umoci unpacks, mounted by the ${driver} driver`, async () => {
      const server = await sandbox.serve(['--fuse-driver', driver]);
      await using _ = { [Symbol.asyncDispose]: async () => void (await server.stop()) };
      const target = join(sandbox.directory, driver);
      await mkdir(target);
      const mounted = await sandbox.run(['mount', reference, target, '--json']);
      expect(mounted).toMatchObject({ code: 0 });
      expect(JSON.parse(mounted.stdout)).toMatchObject({ driver });
      const seen = await snapshotInThread(target);
      expect(seen.size).toBeGreaterThan(5000);
      expect(differences(unpacked, seen)).toEqual([]);
      expect(await sandbox.run(['umount', target])).toMatchObject({ code: 0 });
    }, 300_000);
  }

  test('equals what the kernel’s overlayfs shows of its layers', () => {
    const merged = withoutOverlayTraits(overlayTree(image.tars));
    expect(differences(merged, withoutOverlayTraits(unpacked))).toEqual([]);
  }, 300_000);
});
