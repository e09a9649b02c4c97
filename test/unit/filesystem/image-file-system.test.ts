import { describe, expect, test } from 'bun:test';
import { createImageFileSystem } from '../../../src/filesystem/index.ts';
import { ROOT_INODE } from '../../../src/index/index.ts';
import { buildImage, noise } from '../content/support/image.ts';
import { scratch } from '../content/support/scratch.ts';
import { MemorySource } from '../content/support/source.ts';

const { store, content } = scratch();
const image = await buildImage([
  [
    { name: 'b', bytes: noise(1000, 1) },
    { name: 'a', bytes: noise(10, 2) },
  ],
]);
const open = async () => {
  const source = new MemorySource(image.layers);
  return { source, fs: createImageFileSystem(image.index, content(image.index, await store(), source)) };
};
const bytesOf = (name: string) => new TextEncoder().encode(name);

describe('an image as a file system', () => {
  test('names lead to inodes, and inodes to attributes', async () => {
    const { fs, source } = await open();
    const ino = fs.lookup(ROOT_INODE, bytesOf('b'));
    expect(fs.getattr(ino)).toMatchObject({ ino, size: 1000, nlink: 1, uid: 0 });
    expect(fs.getattr(ino).mode & 0o170000).toBe(0o100000);
    expect(fs.lookup(ROOT_INODE, bytesOf('c'))).toBe(0);
    expect(fs.parent(ROOT_INODE)).toBe(ROOT_INODE);
    expect(source.requests).toHaveLength(0);
  });

  test('a directory lists its names', async () => {
    const { fs } = await open();
    const count = fs.entryCount(ROOT_INODE);
    const names = Array.from({ length: count }, (_, i) =>
      new TextDecoder().decode(fs.entry(ROOT_INODE, i).name),
    );
    expect(names).toEqual(['a', 'b']);
  });

  test('content comes through read, and then through readNow', async () => {
    const { fs } = await open();
    const ino = fs.lookup(ROOT_INODE, bytesOf('b'));
    const into = new Uint8Array(2000);
    expect(fs.readNow(ino, 0, into)).toBe(-1);
    expect(await fs.read(ino, 0, into)).toBe(1000);
    expect(into.slice(0, 1000)).toEqual(noise(1000, 1));
    expect(fs.extents(ino).map((extent) => extent.length)).toEqual([1000]);
  });

  test('what has no extended attributes says so', async () => {
    const { fs } = await open();
    const ino = fs.lookup(ROOT_INODE, bytesOf('a'));
    expect(fs.listxattr(ino)).toEqual([]);
    expect(fs.getxattr(ino, bytesOf('user.x'))).toBeUndefined();
  });

  test('statfs answers with sizes that overlayfs accepts', async () => {
    const { fs } = await open();
    expect(fs.statfs()).toEqual({
      blockSize: 4096,
      blocks: 1,
      freeBlocks: 0,
      files: 3,
      freeFiles: 0,
      nameMax: 255,
    });
  });
});
