import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { BIG_BYTES, type BenchData, benchData } from './data.ts';
import { dropCaches, type Mark, median, output, type Suite, timed } from './mark.ts';
import type { ServerSettings } from './mount-server.ts';

const ROUNDS = 3;
const BEST_OF = 7;

/** The marks of the FUSE drivers: walking, reading large and small files, many mounts. Takes root. */
export const suite: Suite = async (directory) => {
  const data = await benchData(directory);
  const scratch = mkdtempSync(path.join(directory, 'mounts-'));
  try {
    return [
      ...(await walking(data, scratch)),
      ...(await largeFile(data, scratch)),
      ...(await smallFiles(data, scratch)),
      ...(await manyMounts(data, scratch)),
    ];
  } finally {
    rmSync(scratch, { recursive: true });
  }
};

async function walking(data: BenchData, scratch: string): Promise<Mark[]> {
  const walk = (root: string) =>
    median(ROUNDS, async () => {
      await dropCaches();
      return timed(['find', path.join(root, 'tree'), '-printf', '%s\\n']);
    });
  const host = await walk(data.host);
  const kernel = await mounted({ driver: 'kernel', data }, scratch, walk);
  const native = await mounted({ driver: 'fuse-native', data }, scratch, walk);
  const detail = `kernel ${ms(kernel)}, ext4 ${ms(host)}, fuse-native ${ms(native)}`;
  return [
    { name: 'find over 100,000 files, cold', value: kernel / host, unit: 'time', against: 'ext4', most: 3, detail },
    { name: 'the same', value: kernel / native, unit: 'time', against: 'fuse-native', most: 0.45, detail },
  ];
}

// Throughput of memory: what else runs on the machine can only slow it, so the best of several rounds counts,
// and each round measures all of them.
async function largeFile(data: BenchData, scratch: string): Promise<Mark[]> {
  const read = (file: string) => timed(['dd', `if=${file}`, 'of=/dev/null', 'bs=1M', 'status=none']);
  const file = path.join(data.host, 'big');
  const best = { host: Infinity, through: Infinity, copied: Infinity, native: Infinity };
  const first = async (name: keyof typeof best, settings: Omit<ServerSettings, 'mountpoints' | 'data'>, warm: string) => {
    await read(warm);
    const time = await mounted({ ...settings, data }, scratch, (root) => read(path.join(root, 'big')));
    best[name] = Math.min(best[name], time);
  };
  for (let round = 0; round < BEST_OF; round++) {
    await first('through', { driver: 'kernel', passthrough: true }, file);
    best.host = Math.min(best.host, await read(file));
    await first('copied', { driver: 'kernel' }, data.layer);
    await first('native', { driver: 'fuse-native' }, data.layer);
  }
  const { host, through, copied, native } = best;
  const detail = `passthrough ${rate(through)}, copied ${rate(copied)}, fuse-native ${rate(native)}, ext4 ${rate(host)}`;
  return [
    { name: 'first read of 1 GiB, local', value: host / through, unit: 'speed', against: 'ext4, warm', least: 0.8, detail },
    { name: 'the same without passthrough', value: host / copied, unit: 'speed', against: 'ext4, warm' },
  ];
}

async function smallFiles(data: BenchData, scratch: string): Promise<Mark[]> {
  const read = (root: string) =>
    median(ROUNDS, async () => {
      await dropCaches();
      return timed(['sh', '-c', `cd '${root}/small' && find . -type f -print0 | xargs -0 cat > /dev/null`]);
    });
  const host = await read(data.host);
  const kernel = await mounted({ driver: 'kernel', data }, scratch, read);
  const native = await mounted({ driver: 'fuse-native', data }, scratch, read);
  const detail = `kernel ${ms(kernel)}, ext4 ${ms(host)}, fuse-native ${ms(native)}`;
  return [{ name: '10,000 files of 4 KiB, cold', value: kernel / host, unit: 'time', against: 'ext4', most: 4, detail }];
}

async function manyMounts(data: BenchData, scratch: string): Promise<Mark[]> {
  const memory = (count: number) =>
    withServer({ driver: 'kernel', data }, scratch, count, async (_, ask) => Number(await ask('memory')));
  const one = await memory(1);
  const many = await memory(101);
  const sum = (await output(['cksum', path.join(data.host, 'small/file-77')])).split(' ')[0];
  const errors = await withServer({ driver: 'kernel', data }, scratch, 100, async (roots) => {
    const readers = Array.from({ length: 64 }, async (_, reader) => {
      let wrong = 0;
      for (const root of roots.filter((_, n) => n % 8 === reader % 8)) {
        const found = await output(['cksum', path.join(root, 'small/file-77')]).catch(() => '');
        if (found.split(' ')[0] !== sum) wrong++;
      }
      return wrong;
    });
    return (await Promise.all(readers)).reduce((total, wrong) => total + wrong, 0);
  });
  return [
    { name: 'each further idle mount', value: (many - one) / 100 / 2 ** 20, unit: 'MiB', most: 1 },
    { name: '100 mounts, 64 readers', value: errors, unit: 'errors', most: 0 },
  ];
}

function mounted<T>(
  settings: Omit<ServerSettings, 'mountpoints'>,
  scratch: string,
  use: (root: string) => Promise<T>,
): Promise<T> {
  return withServer(settings, scratch, 1, ([root = '']) => use(root));
}

async function withServer<T>(
  settings: Omit<ServerSettings, 'mountpoints'>,
  scratch: string,
  count: number,
  use: (roots: string[], ask: (line: string) => Promise<string>) => Promise<T>,
): Promise<T> {
  const mountpoints = Array.from({ length: count }, (_, n) => path.join(scratch, `m${n}`));
  for (const mountpoint of mountpoints) mkdirSync(mountpoint, { recursive: true });
  const script = path.join(import.meta.dir, 'mount-server.ts');
  const child = Bun.spawn([process.execPath, script, JSON.stringify({ ...settings, mountpoints })], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const next = async () => {
    const { value, done } = await lines.read();
    if (done) throw new Error(`the server of ${settings.driver} ended`);
    return value.trim();
  };
  await next();
  try {
    return await use(mountpoints, (line) => {
      child.stdin.write(`${line}\n`);
      child.stdin.flush();
      return next();
    });
  } finally {
    child.stdin.end();
    await child.exited;
  }
}

function ms(value: number): string {
  return `${Math.round(value)} ms`;
}

function rate(milliseconds: number): string {
  return `${(BIG_BYTES / milliseconds / 1e6).toFixed(1)} GB/s`;
}
