import type { ImageFileSystem } from '../../image-file-system.ts';

const HEADER = 10; // inode and mode, 32 bits each, and the name's length, 16 bits
const NAME_MAX = 255;
const TYPE_DIRECTORY = 0o040000;
const DOT = Uint8Array.of(0x2e);
const DOT_DOT = Uint8Array.of(0x2e, 0x2e);

/** The first `length` bytes hold a directory in the form that `imgcred_signal_readdir` reads. */
export interface PackedDirectory {
  readonly bytes: Uint8Array;
  readonly length: number;
}

/** Packs a whole directory, `.` and `..` first. */
export function packDirectory(fs: ImageFileSystem, directory: number): PackedDirectory {
  const count = fs.entryCount(directory);
  const writer = new EntryWriter((count + 2) * 40);
  writer.add(directory, TYPE_DIRECTORY, DOT);
  writer.add(fs.parent(directory), TYPE_DIRECTORY, DOT_DOT);
  for (let i = 0; i < count; i++) {
    const entry = fs.entry(directory, i);
    writer.add(entry.ino, entry.mode, entry.name);
  }
  return { bytes: writer.bytes, length: writer.length };
}

class EntryWriter {
  bytes: Uint8Array;
  length = 0;
  #view: DataView;

  constructor(capacity: number) {
    this.bytes = new Uint8Array(capacity);
    this.#view = new DataView(this.bytes.buffer);
  }

  add(ino: number, mode: number, name: Uint8Array): void {
    if (name.length > NAME_MAX) return; // the kernel refuses such a name; the index has none
    const at = this.length;
    if (at + HEADER + name.length > this.bytes.length) this.#grow();
    this.#view.setUint32(at, ino, true);
    this.#view.setUint32(at + 4, mode, true);
    this.#view.setUint16(at + 8, name.length, true);
    this.bytes.set(name, at + HEADER);
    this.length = at + HEADER + name.length;
  }

  #grow(): void {
    const larger = new Uint8Array(this.bytes.length * 2 + HEADER + NAME_MAX);
    larger.set(this.bytes);
    this.bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}
