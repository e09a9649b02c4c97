import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { EXECUTABLE, firstOutput, Sandbox } from '../fixtures/executable/index.ts';
import { busyboxLayer } from '../fixtures/images/index.ts';
import { type PushedImage, Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';

// Some of them run a dozen commands, each a process of its own: the five seconds that a test has without this are
// not enough on a busy machine.
setDefaultTimeout(60_000);

let registry: RegistryFixture;
let image: PushedImage;
let sandbox: Sandbox;

beforeAll(async () => {
  registry = await startRegistry();
  image = await new Pusher(registry).image({
    repository: 'containers/app',
    tag: '1',
    layers: [await busyboxLayer()],
    config: { config: { Env: ['PATH=/bin'] } },
  });
  sandbox = await Sandbox.make();
  await sandbox.serve(['--worker-name', 'the-worker']);
  expect(await sandbox.run(['image', 'add', image.reference])).toMatchObject({ code: 0 });
}, 60_000);

afterAll(async () => {
  await sandbox?.[Symbol.asyncDispose]();
  await registry?.stop();
}, 60_000);

const shell = (script: string) => [image.reference, '--', '/bin/sh', '-c', script];

async function started(script: string, ...options: string[]): Promise<string> {
  const { stdout } = await sandbox.run(['run', '-d', ...options, ...shell(`echo up; ${script}`)]);
  const id = stdout.trim();
  await firstOutput(sandbox, id, 'up');
  return id;
}

interface Line {
  readonly kind: string;
  readonly sequence: number;
  readonly container_id?: string;
  readonly state?: string;
  readonly exit_code?: number | null;
}

/** `imgcred events --json`, line by line. */
class Follower implements AsyncDisposable {
  readonly lines: Line[] = [];
  readonly #child: Bun.Subprocess<'ignore', 'pipe', 'inherit'>;
  readonly #changed = new Set<() => void>();

  constructor(...args: string[]) {
    const env = { PATH: process.env.PATH ?? '', IMGCRED_DATA_DIR: sandbox.dataDirectory };
    this.#child = Bun.spawn([EXECUTABLE, 'events', '--json', ...args], {
      cwd: '/',
      env,
      stdin: 'ignore',
      stdout: 'pipe',
      stderr: 'inherit',
    });
    void this.#read();
  }

  async #read(): Promise<void> {
    let pending = '';
    for await (const chunk of this.#child.stdout) {
      pending += Buffer.from(chunk).toString();
      const parts = pending.split('\n');
      pending = parts.pop() ?? '';
      this.lines.push(...parts.map((part): Line => JSON.parse(part)));
      for (const wake of this.#changed) wake();
    }
  }

  async until(wanted: (lines: readonly Line[]) => boolean): Promise<void> {
    while (!wanted(this.lines)) {
      const changed = Promise.withResolvers<void>();
      this.#changed.add(changed.resolve);
      await changed.promise;
      this.#changed.delete(changed.resolve);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill();
    await this.#child.exited;
  }
}

const statesOf = (lines: readonly Line[], id: string) =>
  lines.filter((line) => line.container_id === id).map((line) => line.state);
const WHOLE_LIFE = ['pending', 'assigned', 'preparing', 'running', 'exited'];

describe('imgcred events', () => {
  test('tells each change as it happens', async () => {
    await using follower = new Follower();
    await follower.until((lines) => lines.some(({ kind }) => kind === 'position'));
    const done = JSON.parse((await sandbox.run(['run', '--json', ...shell('exit 3')])).stdout);
    await follower.until((lines) => statesOf(lines, done.id).includes('exited'));
    expect(statesOf(follower.lines, done.id)).toEqual(WHOLE_LIFE);
    expect(follower.lines.at(-1)).toMatchObject({ state: 'exited', exit_code: 3 });
  });

  test('misses nothing between two connections, also when the server was killed between', async () => {
    await using sandboxed = await Sandbox.make();
    const first = await sandboxed.serve();
    await sandboxed.run(['image', 'add', image.reference]);
    const events = async (...args: string[]): Promise<Line[]> =>
      (await sandboxed.run(['events', '--json', '--no-follow', ...args])).stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
    const ids: string[] = [];
    const run = async () =>
      ids.push(JSON.parse((await sandboxed.run(['run', '--json', ...shell('true')])).stdout).id);
    await run();
    const before = await events();
    const last = before.at(-1)?.sequence ?? 0;
    await run();
    await first.stop('SIGKILL');
    await sandboxed.serve();
    await run();
    const after = await events('--since', String(last));
    const all = [...before, ...after].filter(({ kind }) => kind === 'container');
    for (const id of ids) expect(statesOf(all, id)).toEqual(WHOLE_LIFE);
    const numbers = all.map(({ sequence }) => sequence);
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
  }, 30_000);

  test('of one container leave the others out, and end with its removal', async () => {
    const done = JSON.parse(
      (await sandbox.run(['run', '--json', '--name', 'watched', ...shell('true')])).stdout,
    );
    const { stdout } = await sandbox.run(['container', 'events', '--no-follow', 'watched']);
    expect(stdout.trim().split('\n')).toHaveLength(WHOLE_LIFE.length);
    expect(stdout).toContain('exited (0) watched');
    await sandbox.run(['container', 'rm', done.id]);
    const all = await sandbox.run(['events', '--no-follow', '--json']);
    expect(all.stdout).toContain('"state":"removed"');
  });

  test('of another workspace are not seen', async () => {
    await sandbox.run(['workspace', 'create', 'other']);
    const { stdout } = await sandbox.run(['events', '--no-follow', '--workspace', 'other']);
    expect(stdout).toBe('');
  });
});

describe('imgcred container', () => {
  test('stats tells what a container uses', async () => {
    const id = await started('while :; do :; done', '--name', 'busy', '--memory', '64m');
    const { stdout } = await sandbox.run(['container', 'stats', '--no-stream', '--json', 'busy']);
    const [sample] = JSON.parse(stdout);
    expect(sample).toMatchObject({ id, name: 'busy', memory_limit_bytes: 64 << 20 });
    expect(sample.cpu_ms).toBeGreaterThan(0);
    expect(sample.cpu_percent).toBeGreaterThan(0);
    expect(sample.memory_bytes).toBeGreaterThan(0);
    expect(sample.processes).toBeGreaterThanOrEqual(1);
    const table = await sandbox.run(['container', 'stats', '--no-stream']);
    expect(table.stdout).toContain('busy');
    await sandbox.run(['container', 'rm', '--force', id]);
    const ended = await sandbox.run(['container', 'stats', '--no-stream', id]);
    expect(ended.code).not.toBe(0);
  });

  test('ls shows worker, image and exit code', async () => {
    const done = JSON.parse(
      (await sandbox.run(['run', '--json', '--name', 'listed', ...shell('exit 5')])).stdout,
    );
    expect(done).toMatchObject({ worker: 'the-worker', exit_code: 5 });
    const { stdout } = await sandbox.run(['container', 'ls', '--all']);
    const row = stdout.split('\n').find((line) => line.includes('listed'));
    for (const part of [done.id, image.reference, 'exited', '5', 'the-worker']) expect(row).toContain(part);
    const live = await sandbox.run(['container', 'ls']);
    expect(live.stdout).not.toContain('listed');
  });

  test('wait ends with the container, with its code; several may wait', async () => {
    const id = await started('trap "exit 7" TERM; while :; do sleep 0.05; done');
    const waiting = [1, 2].map(() => sandbox.run(['container', 'wait', id]));
    await sandbox.run(['container', 'stop', id]);
    expect((await Promise.all(waiting)).map(({ code }) => code)).toEqual([7, 7]);
  });

  test('kill sends any signal', async () => {
    const id = await started('trap "echo one; exit 9" USR1; while :; do sleep 0.05; done');
    expect((await sandbox.run(['container', 'kill', '--signal', 'USR1', id])).stdout).toBe(`${id}\n`);
    expect((await sandbox.run(['container', 'wait', id])).code).toBe(9);
    const unknown = await started('sleep 600');
    expect((await sandbox.run(['container', 'kill', '-s', 'NOSUCH', unknown])).code).toBe(2);
    await sandbox.run(['container', 'rm', '-f', unknown]);
  });

  test('rm refuses what runs, and with --force ends it', async () => {
    const id = await started('sleep 600', '--name', 'doomed');
    const refused = await sandbox.run(['container', 'rm', 'doomed']);
    expect(refused.code).toBe(6);
    expect((await sandbox.run(['container', 'rm', '--force', 'doomed'])).stdout).toBe('doomed\n');
    expect((await sandbox.run(['container', 'show', id])).code).toBe(5);
  });

  test('logs obeys --tail and --since, and with --follow goes on to the end', async () => {
    const script = `trap 'echo four; exit 0' TERM; echo two; while :; do sleep 0.05; done`;
    const id = await started(script);
    await firstOutput(sandbox, id, 'two');
    const logs = (...args: string[]) => sandbox.run(['container', 'logs', ...args, id]);
    expect(await logs()).toEqual({ code: 0, stdout: 'up\ntwo\n', stderr: '' });
    expect(await logs('--tail', '1')).toMatchObject({ stdout: 'two\n' });
    expect(await logs('--tail', '0')).toMatchObject({ stdout: '' });
    expect(await logs('--tail', 'all')).toMatchObject({ stdout: 'up\ntwo\n' });
    expect(await logs('--since', '1h')).toMatchObject({ stdout: 'up\ntwo\n' });
    const lines = (await logs('--json')).stdout.trim().split('\n');
    const { time } = JSON.parse(lines[0] ?? '{}');
    expect(await logs('--since', new Date(time + 3_600_000).toISOString())).toMatchObject({ stdout: '' });
    expect((await logs('--since', 'yesterday')).code).toBe(2);
    const following = logs('--follow', '--tail', '0');
    await sandbox.run(['container', 'stop', id]);
    const followed = await following;
    // Whether it began before or after the last line is a matter of luck; that it ends is not.
    expect(['', 'four\n']).toContain(followed.stdout);
    expect((await logs('--follow')).stdout).toBe('up\ntwo\nfour\n');
  });
});
