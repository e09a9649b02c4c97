/** Serves the bench's image at the mount points given, by the driver given, until its standard input ends. */
import { openSync } from 'node:fs';
import path from 'node:path';
import { Presence } from '../../src/content/index.ts';
import { mountFuseNative } from '../../src/filesystem/drivers/fuse-native/index.ts';
import { mountKernel } from '../../src/filesystem/drivers/kernel/index.ts';
import { openLocalTree } from '../../src/filesystem/drivers/kernel/local-tree.ts';
import { openImageIndex } from '../../src/index/index.ts';
import type { BenchData } from './data.ts';

export interface ServerSettings {
  readonly driver: 'kernel' | 'fuse-native';
  readonly data: BenchData;
  readonly mountpoints: readonly string[];
  readonly passthrough?: boolean;
  readonly threads?: number;
}

const settings: ServerSettings = JSON.parse(process.argv[2] ?? '');
const { data, driver, mountpoints } = settings;
const index = openImageIndex(Bun.mmap(data.index));
const fd = openSync(data.layer, 'r');
const layers = index.layers.map((layer) => {
  const presence = Presence.allocate(layer.spanCount);
  for (let n = 0; n < layer.spanCount; n++) presence.set(n);
  return { fd, presence: presence.buffer, touched: new SharedArrayBuffer(Math.max(1, layer.spanCount) * 4) };
});
const threadData = { indexPath: data.index, layers, touchCounter: new SharedArrayBuffer(4) };
const local = openLocalTree(threadData);
const fs = {
  getattr: local.getattr.bind(local),
  lookup: local.lookup.bind(local),
  readlink: local.readlink.bind(local),
  entryCount: local.entryCount.bind(local),
  entry: local.entry.bind(local),
  parent: local.parent.bind(local),
  getxattr: local.getxattr.bind(local),
  listxattr: (ino: number) => [...local.listxattr(ino)],
  readNow: local.readNow.bind(local),
  read: async (ino: number, offset: number, into: Uint8Array) => local.readNow(ino, offset, into),
  statfs: () => ({ ...local.statfs(), freeBlocks: 0, freeFiles: 0 }),
};
const big = index.lookup(1, new TextEncoder().encode('big'));
const mounts = [];
for (const mountpoint of mountpoints) {
  mounts.push(
    driver === 'fuse-native'
      ? await mountFuseNative(fs, mountpoint)
      : await mountKernel(fs, mountpoint, {
          threadData,
          ...(settings.threads === undefined ? {} : { threads: settings.threads }),
          ...(settings.passthrough === true
            ? { backingFile: (ino: number) => (ino === big ? path.join(data.host, 'big') : undefined) }
            : {}),
        }),
  );
}
console.log('ready');
for await (const line of console) {
  if (line === 'memory') {
    Bun.gc(true);
    console.log(String(process.memoryUsage().rss));
  }
}
await Promise.all(mounts.map((mount) => mount.unmount()));
process.exit(0);
