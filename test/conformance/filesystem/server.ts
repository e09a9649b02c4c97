/**
 * Serves the suite's tree, of the source given, at the mountpoints given, by the driver given, until told to stop. It is a process of
 * its own because whoever serves a mount must not use it.
 *
 * Commands come on standard input, one a line: `release NAME`, `fail NAME`, `heal NAME`, `unmount`. Answers go to
 * standard output: `ready`, then one `ok` or `error …` a command.
 */
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { type MemoryContent, MemoryFileSystem } from '../../fixtures/memory-file-system.ts';
import { DRIVERS } from './drivers.ts';
import { openPreparedImage } from './prepared-image.ts';
import { IMAGE, MEMORY } from './sources.ts';
import { populate } from './tree.ts';

class RemoteContent implements MemoryContent {
  readonly size: number;
  readonly fill: MemoryContent['fill'];
  ready: Promise<void> | undefined;
  #arrival = Promise.withResolvers<void>();

  constructor(content: MemoryContent) {
    this.size = content.size;
    this.fill = content.fill;
    this.#wait();
  }

  release(): void {
    this.ready = undefined;
    this.#arrival.resolve();
  }

  fail(): void {
    this.#arrival.reject(new Error('the registry is down'));
  }

  heal(): void {
    this.#arrival = Promise.withResolvers();
    this.#wait();
    this.release();
  }

  #wait(): void {
    this.ready = this.#arrival.promise;
    this.ready.catch(() => {}); // nobody may be reading yet
  }
}

const [driverName, sourceName, inputs = '', ...mountpoints] = process.argv.slice(2);
const driver = DRIVERS.find(({ name }) => name === driverName);
if (driver === undefined) throw new Error(`no driver ${driverName}`);

const remote = new Map<string, RemoteContent>();
// Beside the mountpoints, in the directory that the test removes.
const storeDirectory = join(dirname(mountpoints[0] ?? ''), 'store');
const fs =
  sourceName === IMAGE.name ? await openPreparedImage(inputs, storeDirectory) : await treeInMemory(inputs);

const mounts = await Promise.all(mountpoints.map((mountpoint) => driver.mount(fs, mountpoint)));
console.log('ready');

for await (const line of createInterface({ input: process.stdin })) {
  try {
    await obey(line);
    console.log('ok');
  } catch (error) {
    console.log(`error ${error instanceof Error ? error.message : error}`);
  }
}
await Promise.all(mounts.map((mount) => mount.unmount()));
process.exit(0);

async function treeInMemory(programPaths: string): Promise<MemoryFileSystem> {
  const programs: Record<string, Uint8Array> = {};
  for (const path of programPaths.split(':').filter((part) => part !== '')) {
    programs[basename(path)] = await Bun.file(path).bytes();
  }
  const memory = new MemoryFileSystem();
  populate(memory, {
    programs,
    sparseSize: MEMORY.sparseSize,
    remote: (name, content) => {
      const held = new RemoteContent(content);
      remote.set(name, held);
      return held;
    },
  });
  return memory;
}

async function obey(line: string): Promise<void> {
  const [command, name = ''] = line.split(' ');
  if (command === 'unmount') {
    await Promise.all(mounts.map((mount) => mount.unmount()));
    return;
  }
  const content = remote.get(name);
  if (content === undefined) throw new Error(`no remote file ${name}`);
  if (command === 'release') content.release();
  else if (command === 'fail') content.fail();
  else if (command === 'heal') content.heal();
  else throw new Error(`no command ${command}`);
}
