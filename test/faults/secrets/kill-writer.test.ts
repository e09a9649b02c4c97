import { expect, test } from 'bun:test';
import { join } from 'node:path';
import { lockDataDirectory, openDatabase } from '../../../src/database/index.ts';
import { openSecrets } from '../../../src/secrets/index.ts';
import { temporaryDirectory } from '../../unit/database/world.ts';

const WRITER = join(import.meta.dir, 'writer.ts');
// It goes on until so much was changed under fire, or until it has taken long enough on a slow machine.
const KILLS = 30;
const SETS = 500;
const REWRAPS = 250;
const LONGEST_MS = 40_000;
const KILLS_AT_FIRST_START = 15;

// A fixed sequence of pseudo-random numbers below 1, so that a failure can be repeated (mulberry32).
function* numbers(seed: number): Generator<number, never> {
  for (let state = seed; ; ) {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    yield ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }
}

/** What the secrets of the writer may hold: the last value that was done, or one that had begun since. */
class Expectation {
  readonly #allowed = new Map<string, Set<string>>();
  sets = 0;
  rewraps = 0;
  next = 1;

  read(output: string): void {
    for (const line of output.split('\n')) {
      const [what = '', secret = '', number = ''] = line.split(' ');
      if (what === 'begin') this.#of(secret).add(number);
      if (what === 'done') {
        this.#allowed.set(secret, new Set([number]));
        this.sets++;
      }
      if (what === 'begin') this.next = Number(number) + 1;
      if (what === 'rotated') this.rewraps += Number(secret);
    }
  }

  allows(secret: string, value: string): boolean {
    return this.#of(secret).has(value);
  }

  settle(secret: string, value: string): void {
    this.#allowed.set(secret, new Set([value]));
  }

  #of(secret: string): Set<string> {
    const known = this.#allowed.get(secret) ?? new Set(['0']);
    this.#allowed.set(secret, known);
    return known;
  }
}

async function runAndKill(
  directory: string,
  next: number,
  afterReadyMs: number | undefined,
  afterStartMs: number,
) {
  const child = Bun.spawn([process.execPath, WRITER, directory, String(next)], {
    stdout: 'pipe',
    stderr: 'pipe',
  });
  let output = '';
  const decoder = new TextDecoder();
  let timer: Timer | undefined;
  const killIn = (ms: number) => {
    timer = setTimeout(() => child.kill('SIGKILL'), ms);
  };
  if (afterReadyMs === undefined) killIn(afterStartMs);
  for await (const chunk of child.stdout) {
    output += decoder.decode(chunk, { stream: true });
    if (timer === undefined && afterReadyMs !== undefined && output.includes('ready\n')) killIn(afterReadyMs);
  }
  clearTimeout(timer);
  await child.exited;
  const errors = await new Response(child.stderr).text();
  expect(errors).toBe('');
  expect(child.signalCode).toBe('SIGKILL');
  // A line that the kill cut in two says nothing.
  return output.slice(0, output.lastIndexOf('\n') + 1);
}

async function check(directory: string, expectation: Expectation, context: string): Promise<void> {
  // The kernel has freed the lock of the killed process.
  using _ = lockDataDirectory(directory);
  using database = openDatabase(directory);
  const { store, keyring, audit } = await openSecrets(database, directory, { env: {} });
  for (const workspace of database.workspaces.list()) {
    for (const { name } of store.list(workspace.id)) {
      const secret = `${workspace.name}/${name}`;
      const { value } = await store.getSecretByNameDecrypted(workspace.id, name, {
        actor: 'test',
        purpose: 'check',
      });
      expect(expectation.allows(secret, value.reveal()), `${context}: ${secret} is ${value.reveal()}`).toBe(
        true,
      );
      expectation.settle(secret, value.reveal());
      for (const { version } of store.history(workspace.id, name)) {
        await store.reveal(workspace.id, name, { actor: 'test' }, version);
      }
    }
  }
  expect(
    keyring.list().filter((key) => key.state === 'active'),
    context,
  ).toHaveLength(1);
  expect(await audit.verify(), context).toMatchObject({ ok: true });
}

test('a writer that is killed at any moment leaves each secret with its old or its new value', async () => {
  using directory = temporaryDirectory();
  const random = numbers(4);
  const expectation = new Expectation();
  const start = performance.now();
  const enough = () =>
    (expectation.sets >= SETS && expectation.rewraps >= REWRAPS) || performance.now() - start > LONGEST_MS;
  for (let kill = 0; kill < KILLS || !enough(); kill++) {
    const after = random.next().value * 250;
    expectation.read(await runAndKill(directory.path, expectation.next, after, 0));
    await check(directory.path, expectation, `kill ${kill} after ${after.toFixed(1)} ms`);
  }
  expect(expectation.sets).toBeGreaterThanOrEqual(SETS / 5);
  expect(expectation.rewraps).toBeGreaterThanOrEqual(REWRAPS / 5);
}, 120_000);

test('a first start that is killed at any moment can be repeated', async () => {
  const random = numbers(5);
  for (let kill = 0; kill < KILLS_AT_FIRST_START; kill++) {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'data');
    const after = 30 + random.next().value * 120;
    const expectation = new Expectation();
    expectation.read(await runAndKill(path, 1, undefined, after));
    await check(path, expectation, `kill ${kill} after ${after.toFixed(1)} ms`);
  }
}, 120_000);
