import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { PathResolver } from '../../../src/filesystem/drivers/fuse-native/path-resolver.ts';
import { MemoryFileSystem } from '../../fixtures/memory-file-system.ts';

class CountingFileSystem extends MemoryFileSystem {
  lookups = 0;
  override lookup(parent: number, name: Uint8Array): number {
    this.lookups++;
    return super.lookup(parent, name);
  }
}

function tree(): { fs: CountingFileSystem; inodes: Map<string, number> } {
  const fs = new CountingFileSystem();
  const inodes = new Map([['/', 1]]);
  for (const path of ['/a', '/a/b', '/a/b/c', '/\xff']) inodes.set(path, fs.directory(path));
  for (const path of ['/f', '/a/f', '/a/b/f', '/a/b/c/f', '/\xff/\xfe']) inodes.set(path, fs.file(path, ''));
  return { fs, inodes };
}

test('each path is found, in any order and however little is remembered', () => {
  const { fs, inodes } = tree();
  const paths = fc.array(fc.constantFrom(...inodes.keys(), '/x', '/a/x', '/x/y/z', '/f/x'), {
    maxLength: 40,
  });
  fc.assert(
    fc.property(paths, fc.integer({ min: 0, max: 20 }), (sequence, limit) => {
      const resolver = new PathResolver(fs, 1, limit);
      for (const path of sequence) expect(resolver.resolve(path)).toBe(inodes.get(path) ?? 0);
    }),
  );
});

test('a known directory costs its files one lookup each, a repeated path none', () => {
  const { fs } = tree();
  const resolver = new PathResolver(fs, 1);
  resolver.resolve('/a/b/c/f');
  fs.lookups = 0;
  resolver.resolve('/a/b/c/g');
  expect(fs.lookups).toBe(1);
  resolver.resolve('/a/b/c/g');
  expect(fs.lookups).toBe(1);
});

test('a very deep path does not exhaust the stack', () => {
  const fs = new MemoryFileSystem();
  let path = '';
  for (let depth = 0; depth < 2_000; depth++) {
    path += '/d';
    fs.directory(path);
  }
  expect(new PathResolver(fs, 1).resolve(path)).toBeGreaterThan(1);
});
