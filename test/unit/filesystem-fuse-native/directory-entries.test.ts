import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { packDirectory } from '../../../src/filesystem/drivers/fuse-native/directory-entries.ts';
import { MemoryFileSystem } from '../../fixtures/memory-file-system.ts';

const NAME = fc
  .uint8Array({ minLength: 1, maxLength: 255 })
  .map((bytes) => Buffer.from(bytes).toString('latin1').replace(/[/\0]/g, '_'));

test('a directory packs to "." and ".." and its entries in order', () => {
  fc.assert(
    fc.property(fc.uniqueArray(NAME, { maxLength: 60 }), (names) => {
      const fs = new MemoryFileSystem();
      const parent = fs.directory('/p');
      const directory = fs.directory('/p/d');
      const inodes = names.map((name) => fs.file(`/p/d/${name}`, ''));
      expect(unpack(packDirectory(fs, directory))).toEqual([
        { name: '.', ino: directory, type: 0o040000 },
        { name: '..', ino: parent, type: 0o040000 },
        ...names.map((name, i) => ({ name, ino: inodes[i] ?? 0, type: 0o100000 })),
      ]);
    }),
    { numRuns: 50 },
  );
});

function unpack({ bytes, length }: { bytes: Uint8Array; length: number }) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, length);
  const entries: { name: string; ino: number; type: number }[] = [];
  for (let at = 0; at < length; ) {
    const end = at + 10 + view.getUint16(at + 8, true);
    const name = Buffer.from(bytes.subarray(at + 10, end)).toString('latin1');
    entries.push({ name, ino: view.getUint32(at, true), type: view.getUint32(at + 4, true) & 0o170000 });
    at = end;
  }
  return entries;
}
