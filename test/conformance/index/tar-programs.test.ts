import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import {
  closeSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import {
  differences,
  snapshotDirectory,
  snapshotIndex,
  type Tree,
  tarOf,
  testLayer,
} from '../../fixtures/tree/index.ts';
import { indexOf, layersOfLayout, run, TemporaryDirectory } from './support/oci-image.ts';

/** Real programs pack a real tree; the index must describe that tree. */
const temporary = new TemporaryDirectory();
const source = `${temporary.path}/source`;
let expected: Tree;

beforeAll(() => {
  mkdirSync(`${source}/dir/sub`, { recursive: true });
  // With the directory before it, as long as a path may be in one system call.
  mkdirSync(
    `${source}/deep/${Array.from({ length: 15 }, (_, i) => String.fromCharCode(97 + i).repeat(250)).join('/')}`,
    {
      recursive: true,
    },
  );
  writeFileSync(`${source}/dir/file`, 'content\n'.repeat(10_000), { mode: 0o640 });
  linkSync(`${source}/dir/file`, `${source}/another name`);
  linkSync(`${source}/dir/file`, `${source}/dir/sub/${'n'.repeat(200)}`);
  symlinkSync('dir/file', `${source}/link`);
  symlinkSync(`/${'t'.repeat(300)}`, `${source}/long link`);
  writeFileSync(Buffer.from(`${source}/\u00e9\xff\xfe`, 'latin1'), 'odd name');
  run(['mkfifo', '-m', '600', `${source}/fifo`]);
  run(['mknod', `${source}/null`, 'c', '1', '3']);
  run(['mknod', `${source}/disk`, 'b', '259', '100000']);
  run(['chown', '-h', '12345:54321', `${source}/link`]);
  run(['chmod', '6755', `${source}/null`]);
  run(['setfattr', '-n', 'user.test', '-v', 'a value', `${source}/dir/file`]);
  run(['setfattr', '-n', 'user.bytes', '-v', '0x00ff0a3d', `${source}/dir`]);
  run(['setcap', 'cap_net_raw+ep', `${source}/dir/file`]);
  lutimesSync(`${source}/dir/sub`, 1234567890, 1234567890.5);
  sparseFile(`${source}/sparse`, [0, 5_000_000, 5_200_000, 40_000_000], 50_000_000);
  sparseFile(`${source}/hole`, [], 3_000_000);
  sparseFile(
    `${source}/many`,
    Array.from({ length: 60 }, (_, i) => i * 262_144),
    60 * 262_144,
  );
  expected = snapshotDirectory(source);
});
afterAll(() => temporary[Symbol.dispose]());

function sparseFile(path: string, offsets: readonly number[], size: number): void {
  const descriptor = openSync(path, 'w');
  for (const offset of offsets) writeSync(descriptor, `data at ${offset}`, offset);
  closeSync(descriptor);
  truncateSync(path, size);
}

function packed(...options: string[]): Uint8Array {
  const path = `${temporary.path}/packed.tar`;
  run(['tar', '-C', source, '-cf', path, ...options, '.']);
  return new Uint8Array(readFileSync(path));
}

/** What the plain formats cannot hold: whole seconds only, no xattrs. */
function withoutPax(tree: Tree): Tree {
  return new Map(
    [...tree].map(([path, node]) => [
      path,
      { ...node, xattrs: {}, mtimeNanoseconds: (node.mtimeNanoseconds / 1_000_000_000n) * 1_000_000_000n },
    ]),
  );
}

const PAX = ['--format=posix', '--xattrs', '--xattrs-include=*', '--numeric-owner'];

describe('GNU tar', () => {
  test('--format=posix keeps everything', async () => {
    const index = await indexOf([testLayer(packed(...PAX))]);
    expect(differences(expected, snapshotIndex(index))).toEqual([]);
  });
  for (const version of ['0.0', '0.1', '1.0']) {
    test(`--format=posix --sparse-version=${version}`, async () => {
      const tar = packed(...PAX, '-S', `--sparse-version=${version}`);
      expect(tar.length).toBeLessThan(10_000_000);
      expect(differences(expected, snapshotIndex(await indexOf([testLayer(tar)])))).toEqual([]);
    });
  }
  for (const format of ['gnu', 'oldgnu']) {
    test(`--format=${format} --sparse`, async () => {
      const tar = packed(`--format=${format}`, '-S', '--numeric-owner');
      expect(differences(withoutPax(expected), snapshotIndex(await indexOf([testLayer(tar)])))).toEqual([]);
    });
  }
  for (const format of ['ustar', 'v7']) {
    test(`--format=${format}`, async () => {
      const tar = packed(
        `--format=${format}`,
        '--numeric-owner',
        '--exclude=deep/*',
        '--exclude=*nnnnn*',
        '--exclude=long link',
        '--exclude=[nd][ui][ls][lk]',
        '--exclude=fifo',
      );
      const index = snapshotIndex(await indexOf([testLayer(tar)]));
      const known = new Map([...withoutPax(expected)].filter(([path]) => index.has(path)));
      expect(index.size).toBeGreaterThan(8);
      // A link was left out, and with it one of the names.
      expect(differences(known, index, { except: ['nlink'] })).toEqual([]);
    });
  }
});

test('GNU tar unpacks what global PAX headers say, and so does the index', async () => {
  const [from, to] = [`${temporary.path}/global`, `${temporary.path}/unpacked`];
  const path = `${temporary.path}/global.tar`;
  for (const directory of [from, to]) mkdirSync(directory);
  writeFileSync(`${from}/whole second`, 'x');
  writeFileSync(`${from}/with a fraction`, 'y');
  lutimesSync(`${from}/whole second`, 1_000_000_000, 1_000_000_000);
  lutimesSync(`${from}/with a fraction`, 1_000_000_000, 1_000_000_000.5);
  const records = 'delete=atime,delete=ctime,mtime=1234567890.25,uid=77,comment=of all files';
  run(['tar', '-C', from, '-cf', path, '--format=posix', `--pax-option=${records}`, '.']);
  run(['tar', '-C', to, '-xpf', path, '--numeric-owner']);
  const unpacked = snapshotDirectory(to);
  // The time of its own counts for the one, that of all for the other.
  expect(unpacked.get('with a fraction')).toMatchObject({ uid: 77, mtimeNanoseconds: 1000000000500000000n });
  expect(unpacked.get('whole second')).toMatchObject({ uid: 77, mtimeNanoseconds: 1234567890250000000n });
  const index = await indexOf([testLayer(new Uint8Array(readFileSync(path)))]);
  expect(differences(unpacked, snapshotIndex(index))).toEqual([]);
});

describe('bsdtar', () => {
  const packedBy = (...options: string[]): Uint8Array => {
    const path = `${temporary.path}/packed.tar`;
    run(['bsdtar', '-C', source, '-cf', path, ...options, '.']);
    return new Uint8Array(readFileSync(path));
  };
  test('--format=pax keeps everything', async () => {
    const tar = packedBy('--format=pax', '--xattrs');
    expect(tar.length).toBeLessThan(10_000_000);
    expect(Buffer.from(tar).includes('LIBARCHIVE.xattr.user.bytes=')).toBe(true);
    expect(differences(expected, snapshotIndex(await indexOf([testLayer(tar)])))).toEqual([]);
  });
  test('--format=gnutar', async () => {
    const index = await indexOf([testLayer(packedBy('--format=gnutar'))]);
    expect(differences(withoutPax(expected), snapshotIndex(index))).toEqual([]);
  });
});

describe('compressors', () => {
  const commands: readonly (readonly [command: string, kind: 'gzip' | 'zstd'])[] = [
    ['gzip -9', 'gzip'],
    ['gzip --rsyncable', 'gzip'],
    ['pigz -b 128', 'gzip'],
    // zopfli's search
    ['pigz -11 -I 1', 'gzip'],
    ['pigz --huffman', 'gzip'],
    // as bgzip: a member every 64 KiB
    ['split -b 65280 --filter="gzip -6"', 'gzip'],
    ['zstd -19 --long=27', 'zstd'],
    ['zstd --ultra -22', 'zstd'],
    ['zstd --rsyncable -T2', 'zstd'],
    ['split -b 300000 --filter=zstd', 'zstd'],
    ['pzstd -p 2', 'zstd'],
  ];
  test.each(commands)('%s', async (command, kind) => {
    const tar = packed(...PAX, '-S');
    const blob = Bun.spawnSync(['sh', '-c', command.startsWith('split') ? command : `${command} -c`], {
      stdin: new Uint8Array(tar),
    }).stdout;
    const index = await indexOf([testLayer(tar, kind, new Uint8Array(blob))]);
    expect(differences(expected, snapshotIndex(index))).toEqual([]);
  });
});

test('an image that skopeo has copied, zstd-compressed', async () => {
  const layout = `${temporary.path}/oci`;
  run(['umoci', 'init', '--layout', layout]);
  run(['umoci', 'new', '--image', `${layout}:t`]);
  const path = `${temporary.path}/layer.tar`;
  writeFileSync(path, packed(...PAX));
  run(['umoci', 'raw', 'add-layer', '--image', `${layout}:t`, path]);
  writeFileSync(path, tarOf([{ name: '.wh.sparse' }, { name: 'dir/sub/new', type: '1', link: 'dir/file' }]));
  run(['umoci', 'raw', 'add-layer', '--image', `${layout}:t`, path]);
  run([
    'skopeo',
    'copy',
    '-q',
    '--dest-compress-format',
    'zstd',
    `oci:${layout}:t`,
    `oci:${temporary.path}/zstd:t`,
  ]);
  run(['umoci', 'raw', 'unpack', '--image', `${layout}:t`, `${temporary.path}/root`]);
  const unpacked = snapshotDirectory(`${temporary.path}/root`);
  for (const copy of [layout, `${temporary.path}/zstd`]) {
    const index = await indexOf(layersOfLayout(copy, 't'));
    expect(differences(unpacked, snapshotIndex(index))).toEqual([]);
  }
});
