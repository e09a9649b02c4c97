import { describe, expect, test } from 'bun:test';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import {
  differences,
  snapshotDirectory,
  snapshotIndex,
  type Tree,
  tarOf,
  testLayer,
} from '../../fixtures/tree/index.ts';
import { LAYERED_CASES } from './support/layered-cases.ts';
import { indexOf, run, TemporaryDirectory } from './support/oci-image.ts';

/** Unpacks one layer by itself, its whiteouts in the form that overlayfs reads. */
function unpackForOverlay(tar: Uint8Array, directory: string): void {
  mkdirSync(directory);
  const archive = `${directory}.tar`;
  writeFileSync(archive, tar);
  run([
    'tar',
    '-xpf',
    archive,
    '-C',
    directory,
    '--xattrs',
    '--xattrs-include=*',
    '--numeric-owner',
    '--delay-directory-restore',
  ]);
  const hidden = run(['find', directory, '-name', '.wh.*', '-print0'])
    .split('\0')
    .filter((path) => path !== '');
  for (const path of hidden) {
    const parent = dirname(path);
    const name = basename(path).slice('.wh.'.length);
    rmSync(path);
    if (name === '.wh..opq') run(['setfattr', '-n', 'trusted.overlay.opaque', '-v', 'y', parent]);
    // What the layer itself brings covers anyway; a directory must not let the lower one through.
    else if (run(['find', parent, '-maxdepth', '1', '-name', name]) === '')
      run(['mknod', join(parent, name), 'c', '0', '0']);
    else
      run([
        'sh',
        '-c',
        '[ ! -d "$1" ] || setfattr -n trusted.overlay.opaque -v y "$1"',
        'sh',
        join(parent, name),
      ]);
  }
}

function mountedOverlay(tars: readonly Uint8Array[]): Tree {
  using directory = new TemporaryDirectory();
  const layers = tars.map((tar, at) => {
    unpackForOverlay(tar, `${directory.path}/${at}`);
    return `${directory.path}/${at}`;
  });
  const mountpoint = `${directory.path}/merged`;
  mkdirSync(mountpoint);
  run([
    'mount',
    '-t',
    'overlay',
    'overlay',
    '-o',
    `ro,lowerdir=${layers.toReversed().join(':')}`,
    mountpoint,
  ]);
  try {
    return snapshotDirectory(mountpoint);
  } finally {
    run(['umount', mountpoint]);
  }
}

describe('the merged tree is the one that the kernel shows from the same layers', () => {
  for (const { name, layers, notOverlay } of LAYERED_CASES) {
    if (layers.length < 2 || notOverlay !== undefined) continue;
    test(name, async () => {
      const tars = layers.map(tarOf);
      const expected = mountedOverlay(tars);
      const index = snapshotIndex(await indexOf(tars.map((tar) => testLayer(tar, 'zstd'))));
      // overlayfs says 1 for directories; taking a whiteout's file away changes the time of its directory.
      const directories = new Set(
        [...expected].filter(([, node]) => node.type === 'directory').map(([path]) => path),
      );
      const flat = (tree: Tree): Tree =>
        new Map(
          [...tree].map(([path, node]) => [path, node.type === 'directory' ? { ...node, nlink: 1 } : node]),
        );
      expect(differences(flat(expected), flat(index), { anyMtime: directories })).toEqual([]);
    });
  }
});
