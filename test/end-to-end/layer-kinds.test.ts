import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { digestOf } from '../../src/reference/index.ts';
import { Sandbox } from '../fixtures/executable/index.ts';
import { sh } from '../fixtures/images/index.ts';
import { Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';
import { differences, snapshotInThread, type Tree } from '../fixtures/tree/index.ts';

const PASSWORD = 'kinds-password';
const CREDS = ['--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'];
const ENV = { REGISTRY_USERNAME: 'kinds', REGISTRY_PASSWORD: PASSWORD };
const OCI = 'application/vnd.oci.image.layer.v1.tar';
const DOCKER = 'application/vnd.docker.image.rootfs.diff.tar';

interface Kind {
  readonly name: string;
  /** Writes the tar of the directory `.` to stdout. */
  readonly pack: string;
  /** The same for umoci, where it can't read that: it knows no sparse files of the old kind. */
  readonly packForUmoci?: string;
  /** From stdin to stdout. */
  readonly compress: string;
  readonly mediaType: string;
}

const PAX = "tar --format=pax --xattrs --xattrs-include='*' --numeric-owner --sort=name";
// Each program and form once; what they have in common is what a user's layers have.
const KINDS: readonly Kind[] = [
  { name: 'gzip', pack: `${PAX} -c .`, compress: 'gzip', mediaType: `${OCI}+gzip` },
  {
    name: 'docker-stored',
    pack: `${PAX} -Sc --sparse-version=0.0 .`,
    compress: 'pigz -0',
    mediaType: `${DOCKER}.gzip`,
  },
  {
    name: 'members',
    pack: `${PAX} -Sc --sparse-version=0.1 .`,
    compress: 'split -b 100000 --filter="gzip -1"',
    mediaType: `${OCI}+gzip`,
  },
  {
    name: 'zstd-frame',
    pack: `${PAX} -Sc --sparse-version=1.0 .`,
    compress: 'zstd',
    mediaType: `${OCI}+zstd`,
  },
  {
    name: 'zstd-frames',
    pack: 'tar --format=gnu -Sc --numeric-owner .',
    packForUmoci: 'tar --format=gnu -c --numeric-owner .',
    compress: 'split -b 300000 --filter=zstd',
    mediaType: `${DOCKER}.zstd`,
  },
  {
    name: 'plain',
    pack: 'tar --format=oldgnu -Sc --numeric-owner .',
    packForUmoci: 'tar --format=oldgnu -c --numeric-owner .',
    compress: 'cat',
    mediaType: OCI,
  },
  {
    name: 'bsdtar',
    pack: 'bsdtar --format=pax --xattrs -cf - .',
    compress: 'pigz --rsyncable -i',
    mediaType: `${OCI}+gzip`,
  },
  {
    name: 'ustar',
    pack: `tar --format=ustar -c --numeric-owner .`,
    compress: 'gzip -9',
    mediaType: `${DOCKER}.gzip`,
  },
  { name: 'busybox', pack: 'busybox tar -c .', compress: 'busybox gzip', mediaType: `${OCI}+gzip` },
];

// What each layer brings, below a directory of its name; all but the first change what the ones below it left.
const CONTENT = `
  mkdir -p $NAME/sub shared; cd $NAME
  seq 300000 > text; head -c 2500000 /dev/urandom > noise; : > empty; echo $NAME > sub/name
  truncate -s 3M hole; printf middle | dd of=hole bs=1 seek=1000000 conv=notrunc status=none
  ln text sub/same; ln -s sub/name soft; mkfifo fifo; mknod null c 1 3; mknod disk b 8 17
  chmod 4711 sub/name; chown 1000:2000 sub; touch -d @1234567890 text; cd ..
  echo $NAME > shared/last; echo $NAME > shared/$NAME; touch shared/.wh.$BELOW
`;

const NAMES = Array.from({ length: 100_000 }, (_, at) => `a-name-among-very-many-${at}`).sort();

let registry: RegistryFixture;
let reference: string;
let crowded: string;
let work: string;
let unpacked: Tree;

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { kinds: PASSWORD } });
  work = await mkdtemp(join(tmpdir(), 'imgcred-kinds-'));
  await sh('umoci init --layout oci; umoci new --image oci:t', work);
  const pusher = new Pusher(registry, 'kinds', PASSWORD);
  const descriptors = [];
  const diffIds = [];
  for (const [at, { name, pack, packForUmoci, compress, mediaType }] of KINDS.entries()) {
    const environment = `NAME=${name} BELOW=${KINDS[at - 1]?.name ?? 'nothing'}`;
    await sh(
      `set -e; umask 022; mkdir ${name}; cd ${name}; export ${environment}; ${CONTENT}
       ${pack} > ../layer.tar; ${packForUmoci ?? pack} > ../umoci.tar; cd ..
       (${compress}) < layer.tar > layer.packed
       umoci raw add-layer --image oci:t umoci.tar; rm -r ${name}`,
      work,
    );
    diffIds.push(digestOf(await readFile(join(work, 'layer.tar'))));
    const { digest, size } = await pusher.blob('kinds', await readFile(join(work, 'layer.packed')));
    descriptors.push({ mediaType, digest, size });
  }
  await sh('umoci raw unpack --image oci:t unpacked', work);
  unpacked = await snapshotInThread(join(work, 'unpacked'));
  const image = await pusher.image({
    repository: 'kinds',
    tag: '1',
    layers: [],
    config: { rootfs: { type: 'layers', diff_ids: diffIds } },
    manifest: { layers: descriptors },
  });
  ({ reference } = image);

  await writeFile(join(work, 'names'), NAMES.join('\n'));
  await sh('mkdir -p many/all; cd many/all; xargs touch < ../../names; cd ..; tar -cf ../many.tar .', work);
  const many = await readFile(join(work, 'many.tar'));
  crowded = (await pusher.image({ repository: 'many', layers: [many] })).reference;
}, 120_000);

afterAll(async () => {
  await registry?.stop();
  if (work !== undefined) await rm(work, { recursive: true, force: true });
});

/** Registers the image and mounts it; gives the directory. */
async function mounted(sandbox: Sandbox, image: string, driver: string, index: string): Promise<string> {
  await sandbox.serve(['--fuse-driver', driver]);
  const added = await sandbox.run(['image', 'add', image, ...CREDS, '--index', index, '--keep', 'none'], {
    env: ENV,
  });
  expect(added).toMatchObject({ code: 0 });
  const target = join(sandbox.directory, 'mounted');
  await mkdir(target);
  expect(await sandbox.run(['mount', image, target])).toMatchObject({ code: 0 });
  return target;
}

describe.each(['kernel', 'fuse-native'])('mounted by the %s driver', (driver) => {
  test('an image with a layer of each kind is what umoci unpacks', async () => {
    await using sandbox = await Sandbox.make();
    const target = await mounted(sandbox, reference, driver, 'local');
    const seen = await snapshotInThread(target);
    expect(seen.size).toBeGreaterThan(KINDS.length * 12);
    expect(differences(unpacked, seen)).toEqual([]);
    expect(await sandbox.run(['umount', target])).toMatchObject({ code: 0 });
  }, 120_000);

  test('a directory of 100,000 entries has them all', async () => {
    await using sandbox = await Sandbox.make();
    const target = await mounted(sandbox, crowded, driver, 'local');
    expect((await readdir(join(target, 'all'))).sort()).toEqual(NAMES);
    expect(await sandbox.run(['umount', target])).toMatchObject({ code: 0 });
  }, 120_000);
});

test('what skopeo makes of them with tables of contents is the same, without a layer being read', async () => {
  const chunked = `${registry.host}/chunked:1`;
  await sh(
    `skopeo copy --quiet --src-creds kinds:${PASSWORD} --src-tls-verify=false --dest-creds kinds:${PASSWORD} \
     --dest-tls-verify=false --dest-compress-format zstd:chunked \
     oci:${work}/oci:t docker://${chunked}`,
  );
  await using sandbox = await Sandbox.make();
  const target = await mounted(sandbox, chunked, 'kernel', 'auto');
  const shown = JSON.parse((await sandbox.run(['image', 'show', chunked, '--json'])).stdout);
  expect(shown).toMatchObject({ index_origin: 'registry' });
  expect(differences(unpacked, await snapshotInThread(target))).toEqual([]);
  expect(await sandbox.run(['umount', target])).toMatchObject({ code: 0 });
}, 120_000);
