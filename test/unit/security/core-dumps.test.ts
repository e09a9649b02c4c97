import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dir, '../../..');
const MAIN = join(ROOT, 'src/main.ts');
let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'imgcred-cores-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** A process whose shell allowed it core files of any size, in a working directory of its own. */
function start(name: string, command: readonly string[], stdin = '') {
  const cwd = join(directory, name);
  mkdirSync(cwd);
  const child = Bun.spawn(['/bin/sh', '-c', 'ulimit -c unlimited && exec "$@"', 'sh', ...command], {
    cwd,
    stdin: Buffer.from(stdin),
    stdout: 'ignore',
    stderr: 'ignore',
  });
  const limit = () =>
    /^Max core file size\s+(\S+)/m.exec(readFileSync(`/proc/${child.pid}/limits`, 'utf8'))?.[1];
  const crash = async () => {
    child.kill('SIGSEGV');
    await child.exited;
    return readdirSync(cwd).filter((entry) => entry.startsWith('core'));
  };
  return { cwd, child, limit, crash };
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !condition(); i++) await Bun.sleep(50);
  expect(condition()).toBe(true);
}

const pattern = readFileSync('/proc/sys/kernel/core_pattern', 'utf8').trim();

describe('a core file', () => {
  test.if(!/[|/]/.test(pattern))(
    'is written here by a process that allows it',
    async () => {
      const control = start('control', ['sleep', '100']);
      await until(
        () =>
          control.limit() === 'unlimited' &&
          readFileSync(`/proc/${control.child.pid}/comm`, 'utf8') === 'sleep\n',
      );
      expect(await control.crash()).toHaveLength(1);
    },
    30_000,
  );

  test('is not written by a server, which holds the keys', async () => {
    const data = join(directory, 'data');
    const arguments_ = ['serve', '--role', 'gateway,scheduler', '--listen', 'none', '--data-dir', data];
    const server = start('server', [process.execPath, MAIN, ...arguments_]);
    await until(() => existsSync(join(data, 'imgcred.sock')));
    expect(server.limit()).toBe('0');
    expect(await server.crash()).toEqual([]);
  }, 120_000);

  test('is not written by a mount server, which holds credentials', async () => {
    const state = join(directory, 'state');
    for (const path of [state, join(state, 'cache')]) mkdirSync(path);
    const socket = join(state, 'mounts.sock');
    const settings = {
      socket,
      cache_directory: join(state, 'cache'),
      state_directory: state,
      fuse_driver: 'auto',
      read_timeout_ms: 1000,
      prefetch: 'none',
      insecure_registries: [],
      registry_ca: [],
      registry_mirrors: [],
      log_level: 'error',
    };
    const server = start(
      'mounts',
      [process.execPath, MAIN, 'internal-mount-server'],
      JSON.stringify(settings),
    );
    await until(() => existsSync(socket));
    expect(server.limit()).toBe(process.geteuid?.() === 0 ? '0' : '1');
    expect(await server.crash()).toEqual([]);
  }, 120_000);

  test.each([
    ['the supervisor of a container, which gives it its secrets', ['internal-container-supervisor']],
    ['a command that reads a secret', ['secret', 'set', 'x', '--value-stdin', '--server', 'SERVER']],
  ])(
    'is neither written nor piped by %s',
    async (_, command) => {
      await using server = Bun.serve({ port: 0, fetch: () => Response.json({ status: 'ok' }) });
      const token = join(directory, 'token');
      writeFileSync(token, 'imgcred_x');
      const given = command.flatMap((word) =>
        word === 'SERVER' ? [server.url.href, '--token-file', token] : [word],
      );
      // It waits for its standard input.
      const child = Bun.spawn(
        ['/bin/sh', '-c', 'ulimit -c unlimited && exec "$@"', 'sh', process.execPath, MAIN, ...given],
        { stdin: 'pipe', stdout: 'ignore', stderr: 'ignore' },
      );
      const limits = () => readFileSync(`/proc/${child.pid}/limits`, 'utf8');
      await until(() => /^Max core file size\s+1\s/m.test(limits()));
      child.kill('SIGKILL');
      await child.exited;
    },
    120_000,
  );

  test('is not written by a process that others of its user may look into', async () => {
    const file = join(ROOT, 'src/filesystem/core-dumps.ts');
    const code = `import { forbidCoreDumps } from ${JSON.stringify(file)};
      if (!forbidCoreDumps({ traceable: true })) process.exit(3);
      await Bun.sleep(100_000);`;
    const traceable = start('traceable', [process.execPath, '-e', code]);
    await until(() => traceable.limit() === '1');
    expect(await traceable.crash()).toEqual([]);
  }, 120_000);
});
