import { afterEach, beforeEach, describe, expect, mock, setSystemTime, spyOn, test } from 'bun:test';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Secret } from '../../../src/credentials/index.ts';
import { ImgcredError } from '../../../src/errors/index.ts';
import { AccessProofs, type AccessQuestion } from '../../../src/mounts/access-proofs.ts';
import { silentLogger } from '../../../src/observability/index.ts';

let directory: string;
let now: number;
const open = () => new AccessProofs(directory, { now: () => now, deadlineMs: 60_000, patienceMs: 30 });

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'imgcred-proofs-'));
  now = 1_000_000;
});
afterEach(() => rm(directory, { recursive: true }));

const question = (credential = 'one', workspaceId = 'ws_1'): AccessQuestion => ({
  workspaceId,
  manifestDigest: 'sha256:abc',
  registry: 'registry.example.com',
  credential: new Secret(credential),
});
const granted = async () => {};
const refused = async () => {
  throw new ImgcredError('CREDENTIALS_REFUSED', 'refused');
};
const unreachable = async () => {
  throw new ImgcredError('REGISTRY_UNREACHABLE', 'nobody there');
};
const silent = (signal: AbortSignal) =>
  new Promise<void>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
/** What came of asking: `granted`, or the error's code. */
const outcome = (
  proofs: AccessProofs,
  asked: AccessQuestion,
  prove: (signal: AbortSignal) => Promise<void>,
) =>
  proofs.require(asked, prove, silentLogger).then(
    () => 'granted',
    (thrown: unknown) => (thrown instanceof ImgcredError ? thrown.code : String(thrown)),
  );

describe('a proof of access', () => {
  test('is not asked for again within a minute with the same credential, and is with another', async () => {
    const proofs = open();
    let asked = 0;
    const counting = async () => {
      asked += 1;
    };
    await outcome(proofs, question(), counting);
    await outcome(proofs, question(), counting);
    expect(asked).toBe(1);
    await outcome(proofs, question('two'), counting);
    expect(asked).toBe(2);
    now += 61_000;
    await outcome(proofs, question('two'), counting);
    expect(asked).toBe(3);
  });

  test('does not count for longer when the clock is set back', async () => {
    let passed = 0;
    spyOn(performance, 'now').mockImplementation(() => passed);
    try {
      const proofs = new AccessProofs(directory, { deadlineMs: 60_000 });
      let asked = 0;
      const counting = async () => {
        asked += 1;
      };
      await outcome(proofs, question(), counting);
      setSystemTime(new Date('2001-01-01'));
      passed += 61_000;
      await outcome(proofs, question(), counting);
      expect(asked).toBe(2);
    } finally {
      setSystemTime();
      mock.restore();
    }
  });

  test('counts later, in another process, where the registry can’t be reached', async () => {
    await outcome(open(), question(), granted);
    expect(await outcome(open(), question(), unreachable)).toBe('granted');
    expect(await outcome(open(), question(), silent)).toBe('granted');
  });

  test('is no other workspace’s', async () => {
    await outcome(open(), question('one', 'ws_1'), granted);
    expect(await outcome(open(), question('one', 'ws_2'), unreachable)).toBe('REGISTRY_UNREACHABLE');
  });

  test('is needed before an outage: without one the registry has to answer', async () => {
    expect(await outcome(open(), question(), unreachable)).toBe('REGISTRY_UNREACHABLE');
    const hasty = new AccessProofs(directory, { deadlineMs: 30 });
    expect(await outcome(hasty, question(), silent)).toBe('REGISTRY_UNREACHABLE');
  });

  test('is worth nothing once the registry has refused', async () => {
    const proofs = open();
    await outcome(proofs, question(), granted);
    expect(await outcome(proofs, question('two'), refused)).toBe('CREDENTIALS_REFUSED');
    expect(await outcome(proofs, question(), unreachable)).toBe('REGISTRY_UNREACHABLE');
    expect(await readdir(directory)).toEqual([]);
  });

  test('can be taken away', async () => {
    const proofs = open();
    await outcome(proofs, question(), granted);
    await proofs.forget(question());
    expect(await outcome(proofs, question(), unreachable)).toBe('REGISTRY_UNREACHABLE');
  });

  test('leaves neither the credential nor the digest on disk', async () => {
    await outcome(open(), question('hunter2'), granted);
    const names = await readdir(directory);
    expect(names).toHaveLength(1);
    expect(names[0]).toMatch(/^[0-9a-f]{64}$/);
    expect(await Bun.file(join(directory, names[0] ?? '')).text()).toBe('');
  });

  test('is not made by what is no answer to the question', async () => {
    const broken = async () => {
      throw new ImgcredError('CORRUPT', 'other bytes');
    };
    await outcome(open(), question(), granted);
    expect(await outcome(open(), question(), broken)).toBe('CORRUPT');
  });
});
