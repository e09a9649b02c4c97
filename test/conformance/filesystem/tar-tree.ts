import type { MemoryAttributes, MemoryContent } from '../../fixtures/memory-file-system.ts';
import { S_IFBLK, S_IFCHR, S_IFIFO, type TreeBuilder } from './tree.ts';

const BLOCK = 512;
const S_IFMT = 0o170000;
const SPECIAL_TYPES = new Map([
  [S_IFCHR, '3'],
  [S_IFBLK, '4'],
  [S_IFIFO, '6'],
]);
// What fits the octal fields of a header; what does not goes into a PAX record.
const MAX_NAME = 100;
const MAX_ID = 0o7777777;
const MAX_SIZE = 0o77777777777;

interface Header {
  readonly path: string;
  readonly type: string;
  readonly mode: number;
  readonly attributes: MemoryAttributes;
  readonly size?: number;
  readonly target?: string;
  readonly device?: readonly [major: number, minor: number];
  readonly records?: readonly (readonly [key: string, value: Uint8Array | string])[];
}

/**
 * Writes the suite's tree as the tar of a layer, with PAX records for what the old header cannot say.
 *
 * @see https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_01
 */
export class TarTree implements TreeBuilder {
  readonly #chunks: Uint8Array[] = [];
  readonly #paths: string[] = [];

  directory(path: string, attributes: MemoryAttributes = {}): void {
    this.#header({ path: `${path}/`, type: '5', mode: attributes.mode ?? 0o755, attributes });
  }

  file(
    path: string,
    content: MemoryContent | Uint8Array | string,
    attributes: MemoryAttributes = {},
  ): number {
    const header = { path, type: '0', mode: attributes.mode ?? 0o644, attributes };
    if (typeof content === 'string' || content instanceof Uint8Array) {
      const bytes = typeof content === 'string' ? Buffer.from(content, 'latin1') : content;
      this.#header({ ...header, size: bytes.length });
      this.#padded(bytes);
    } else if (content.data === undefined) {
      this.#header({ ...header, size: content.size });
      this.#padded(filled(content, 0, content.size));
    } else {
      this.#sparse(header, content, content.data);
    }
    return this.#paths.push(path) - 1;
  }

  symlink(path: string, target: string, attributes: MemoryAttributes = {}): void {
    this.#header({ path, type: '2', mode: 0o777, attributes, target });
  }

  special(path: string, mode: number, major: number, minor: number, attributes: MemoryAttributes = {}): void {
    const type = SPECIAL_TYPES.get(mode & S_IFMT);
    if (type === undefined) return; // a socket: tar has none
    this.#header({ path, type, mode: mode & ~S_IFMT, attributes, device: [major, minor] });
  }

  hardLink(path: string, file: number): void {
    this.#header({ path, type: '1', mode: 0o644, attributes: {}, target: relative(this.#paths[file] ?? '') });
  }

  /** The whole tar, with its end. */
  finish(): Uint8Array {
    this.#chunks.push(new Uint8Array(2 * BLOCK));
    return Buffer.concat(this.#chunks);
  }

  // GNU's sparse format 1.0: a map in decimal, padded to a block, then the pieces.
  #sparse(
    header: Omit<Header, 'size' | 'records'>,
    content: MemoryContent,
    data: readonly { offset: number; length: number }[],
  ): void {
    const numbers = [data.length, ...data.flatMap(({ offset, length }) => [offset, length])];
    const map = pad(Buffer.from(`${numbers.join('\n')}\n`));
    const body = Buffer.concat([map, ...data.map(({ offset, length }) => filled(content, offset, length))]);
    const records: [string, string][] = [
      ['GNU.sparse.major', '1'],
      ['GNU.sparse.minor', '0'],
      ['GNU.sparse.name', relative(header.path)],
      ['GNU.sparse.realsize', String(content.size)],
    ];
    this.#header({ ...header, size: body.length, records });
    this.#padded(body);
  }

  #header(header: Header): void {
    const { attributes, target = '' } = header;
    const { uid = 0, gid = 0, mtimeSeconds = 1_700_000_000, mtimeNanoseconds = 0, xattrs = {} } = attributes;
    const path = relative(header.path);
    const records = [...(header.records ?? [])];
    if (path.length > MAX_NAME) records.push(['path', Buffer.from(path, 'latin1')]);
    if (target.length > MAX_NAME) records.push(['linkpath', Buffer.from(target, 'latin1')]);
    if (uid > MAX_ID) records.push(['uid', String(uid)]);
    if (gid > MAX_ID) records.push(['gid', String(gid)]);
    if (mtimeNanoseconds !== 0 || mtimeSeconds < 0 || mtimeSeconds > MAX_SIZE) {
      records.push(['mtime', decimalTime(mtimeSeconds, mtimeNanoseconds)]);
    }
    for (const [name, value] of Object.entries(xattrs)) records.push([`SCHILY.xattr.${name}`, value]);
    if (records.length > 0) {
      const body = Buffer.concat(records.map(([key, value]) => paxRecord(key, value)));
      this.#chunks.push(
        ustar({ name: 'PaxHeaders/0', type: 'x', mode: 0o644, size: body.length }),
        pad(body),
      );
    }
    this.#chunks.push(
      ustar({
        name: path.slice(0, MAX_NAME),
        type: header.type,
        mode: header.mode,
        uid: Math.min(uid, MAX_ID),
        gid: Math.min(gid, MAX_ID),
        size: header.size ?? 0,
        mtime: Math.max(0, Math.min(mtimeSeconds, MAX_SIZE)),
        target: target.slice(0, MAX_NAME),
        device: header.device ?? [0, 0],
      }),
    );
  }

  #padded(bytes: Uint8Array): void {
    this.#chunks.push(pad(bytes));
  }
}

interface UstarFields {
  readonly name: string;
  readonly type: string;
  readonly mode: number;
  readonly size: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: number;
  readonly target?: string;
  readonly device?: readonly [major: number, minor: number];
}

function ustar(fields: UstarFields): Uint8Array {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, width: number) =>
    block.write(value.toString(8).padStart(width - 1, '0'), at, 'latin1');
  block.write(fields.name, 0, 'latin1');
  octal(fields.mode, 100, 8);
  octal(fields.uid ?? 0, 108, 8);
  octal(fields.gid ?? 0, 116, 8);
  octal(fields.size, 124, 12);
  octal(fields.mtime ?? 0, 136, 12);
  block.write('        ', 148, 'latin1'); // the checksum counts as blanks while it is made
  block.write(fields.type, 156, 'latin1');
  block.write(fields.target ?? '', 157, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  octal(fields.device?.[0] ?? 0, 329, 8);
  octal(fields.device?.[1] ?? 0, 337, 8);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** `LENGTH KEY=VALUE\n`, where the length counts its own digits. */
function paxRecord(key: string, value: Uint8Array | string): Uint8Array {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'latin1') : value;
  const rest = 1 + key.length + 1 + bytes.length + 1;
  let length = rest;
  while (length !== rest + String(length).length) length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`, 'latin1'), bytes, Buffer.from('\n')]);
}

function decimalTime(seconds: number, nanoseconds: number): string {
  const total = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
  const digits = (total < 0n ? -total : total).toString().padStart(10, '0');
  return `${total < 0n ? '-' : ''}${digits.slice(0, -9)}.${digits.slice(-9)}`;
}

function filled(content: MemoryContent, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  content.fill(offset, bytes);
  return bytes;
}

function pad(bytes: Uint8Array): Uint8Array {
  const rest = bytes.length % BLOCK;
  return rest === 0 ? bytes : Buffer.concat([bytes, new Uint8Array(BLOCK - rest)]);
}

function relative(path: string): string {
  return path.slice(1);
}
