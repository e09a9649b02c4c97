/**
 * Serves a real image of one uncompressed layer, given as a tar, by threads that answer from its index. Spans
 * may be absent; the main thread then "fetches" them. Ends when its standard input does.
 */
import { existsSync, openSync, readSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import {
  type KernelFileSystem,
  mountKernel,
  resumeKernel,
  type ThreadData,
} from '../../../src/filesystem/drivers/kernel/index.ts';
import { buildImageIndex, indexLayer, openImageIndex } from '../../../src/index/index.ts';
import { digestOf } from '../../../src/reference/index.ts';

const Settings = z.object({
  mountpoint: z.string(),
  tar: z.string(),
  /** Where to find the index, or write it. */
  indexPath: z.string(),
  absent: z.enum(['none', 'odd', 'all']),
  /** How long a fetch takes, in milliseconds. */
  fetchMs: z.number().default(0),
  statePath: z.string().optional(),
  resume: z.boolean().default(false),
  resend: z.boolean().default(true),
});

const { mountpoint, tar, indexPath, absent, fetchMs, statePath, resume, resend } = Settings.parse(
  JSON.parse(process.argv[2] ?? '{}'),
);
if (!existsSync(indexPath)) {
  const bytes = await Bun.file(tar).bytes();
  const digest = digestOf(bytes);
  const mediaType = 'application/vnd.oci.image.layer.v1.tar';
  const source = { digest, diffId: digest, compression: 'none', size: bytes.length, mediaType } as const;
  const indexed = await indexLayer(source, Bun.file(tar).stream(), { spanSize: 64 * 1024 });
  writeFileSync(indexPath, buildImageIndex([indexed]));
}
const index = openImageIndex(Bun.mmap(indexPath));

const spans = index.spanCount(0);
const presence = new Int32Array(new SharedArrayBuffer(Math.ceil(spans / 32) * 4));
const bring = (span: number) => Atomics.or(presence, span >>> 5, 1 << (span & 31));
const has = (span: number) => (Atomics.load(presence, span >>> 5) & (1 << (span & 31))) !== 0;
for (let span = 0; span < spans; span++)
  if (absent === 'none' || (absent === 'odd' && span % 2 === 0)) bring(span);
const touched = new SharedArrayBuffer(spans * 4);
const touchCounter = new SharedArrayBuffer(4);
const fd = openSync(tar, 'r');
const threadData: ThreadData = {
  indexPath,
  layers: [{ fd, presence: presence.buffer, touched }],
  touchCounter,
};

let fetched = 0;
function read(ino: number, offset: number, into: Uint8Array, mayFetch: boolean): number {
  const length = Math.max(0, Math.min(into.length, index.size(ino) - offset));
  into.fill(0, 0, length);
  for (const extent of index.extents(ino)) {
    const from = Math.max(offset, extent.fileOffset);
    const to = Math.min(offset + length, extent.fileOffset + extent.length);
    if (from >= to) continue;
    const at = extent.layerOffset + from - extent.fileOffset;
    for (let span = index.spanAt(0, at); span <= index.spanAt(0, at + (to - from) - 1); span++) {
      if (has(span)) continue;
      if (!mayFetch) return -1;
      fetched++;
      bring(span);
    }
    readSync(fd, into, from - offset, to - from, at);
  }
  return length;
}

const fs: KernelFileSystem = {
  getattr: (ino) => index.attributes(ino),
  lookup: (parent, name) => index.lookup(parent, name),
  readlink: (ino) => index.readlink(ino),
  entryCount: (directory) => index.entryCount(directory),
  entry: (directory, position) => index.entry(directory, position),
  parent: (directory) => index.parent(directory),
  getxattr: (ino, name) => index.xattr(ino, name),
  listxattr: (ino) => index.xattrNames(ino),
  readNow: (ino, offset, into) => read(ino, offset, into, false),
  read: async (ino, offset, into) => {
    await Bun.sleep(fetchMs);
    return read(ino, offset, into, true);
  },
  statfs: () => ({ blockSize: 4096, blocks: 1, files: 1, nameMax: 255 }),
};
const options = { threadData, resend, ...(statePath === undefined ? {} : { statePath }) };
const mount =
  resume && statePath !== undefined
    ? await resumeKernel(fs, mountpoint, 3, { ...options, statePath })
    : await mountKernel(fs, mountpoint, options);
process.stdout.write(`${JSON.stringify({ ready: true, descriptor: mount.descriptor })}\n`);
for await (const line of console) {
  const { threadReads } = mount.stats();
  const touchedSpans = new Int32Array(touched).filter((place) => place > 0).length;
  process.stdout.write(`${JSON.stringify({ done: line, threadReads, fetched, spans, touchedSpans })}\n`);
  if (line === 'unmount') break;
}
await mount.unmount();
