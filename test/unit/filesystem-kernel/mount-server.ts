/**
 * A server process for the mount tests: mounts (or resumes, when descriptor 3 is a connection) an image made up
 * in memory, and obeys the lines of its standard input. Nothing may touch a mount from the process that serves
 * it, hence a process of its own.
 */

import { z } from 'zod';
import { type KernelMount, mountKernel, resumeKernel } from '../../../src/filesystem/drivers/kernel/index.ts';
import { createLogger } from '../../../src/observability/index.ts';
import { MemoryFileSystem } from '../../fixtures/memory-file-system.ts';

// Only where a test is about that: its threads look for a file at every request.
const breakThread =
  process.env.IMGCRED_TEST_BREAK_THREAD === undefined
    ? undefined
    : (await import('./breakable-threads.ts')).breakThread;

const Settings = z.object({
  mountpoints: z.array(z.string()).min(1),
  /** Whether the file `late` can be read. */
  ready: z.boolean().default(true),
  bigSize: z.number().default(4 << 20),
  /** The content of `big`: turns passthrough on. */
  backing: z.string().optional(),
  backingReady: z.boolean().default(true),
  statePath: z.string().optional(),
  resume: z.boolean().default(false),
  threads: z.number().optional(),
  suidAndDevices: z.boolean().optional(),
  resend: z.boolean().default(true),
});
export type ServerSettings = z.input<typeof Settings>;

/** The byte at `offset` of every made-up file. */
export function contentByte(offset: number): number {
  return (offset ^ (offset >>> 8) ^ (offset >>> 16) ^ (offset >>> 20)) & 0xff;
}

function fill(offset: number, into: Uint8Array): void {
  for (let i = 0; i < into.length; i++) into[i] = contentByte(offset + i);
}

if (import.meta.main) await main(Settings.parse(JSON.parse(process.argv[2] ?? '{}')));

async function main(settings: z.output<typeof Settings>): Promise<void> {
  const fs = new MemoryFileSystem();
  fs.directory('/bin', { mode: 0o755 });
  fs.file('/bin/hello', 'hello world\n');
  fs.symlink('/link', 'bin/hello');
  const size = settings.bigSize;
  const big = fs.file('/big', { size, fill });
  fs.file('/late', { size, fill, ready: settings.ready ? Promise.resolve() : new Promise(() => {}) });
  let backingReady = settings.backingReady;
  const { backing, statePath } = settings;
  const options = {
    logger: createLogger({ level: 'debug', write: (line) => process.stderr.write(line) }),
    ...(settings.threads === undefined ? {} : { threads: settings.threads }),
    ...(settings.suidAndDevices === undefined ? {} : { suidAndDevices: settings.suidAndDevices }),
    resend: settings.resend,
    ...(statePath === undefined ? {} : { statePath }),
    ...(backing === undefined
      ? {}
      : { backingFile: (ino: number) => (ino === big && backingReady ? backing : undefined) }),
  };
  const mounts: KernelMount[] = [];
  for (const mountpoint of settings.mountpoints) {
    mounts.push(
      settings.resume && statePath !== undefined
        ? await resumeKernel(fs, mountpoint, 3, { ...options, statePath })
        : await mountKernel(fs, mountpoint, options),
    );
  }
  const [first] = mounts;
  say({ ready: true, descriptor: first?.descriptor, session: first?.session });
  void Promise.all(mounts.map(({ closed }) => closed)).then(() => say({ closed: true }));
  for await (const line of console) {
    if (line === 'unmount') await Promise.all(mounts.map((mount) => mount.unmount()));
    else if (line === 'handOver') await Promise.all(mounts.map((mount) => mount.handOver()));
    else if (line === 'breakThread') breakThread?.(process.env.IMGCRED_TEST_BREAK_THREAD ?? '');
    else if (line === 'backingReady') backingReady = true;
    const memory = process.memoryUsage().rss;
    say({ done: line, ...first?.stats(), memory });
    if (line === 'unmount' || line === 'handOver') return;
  }
}

function say(message: object): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}
