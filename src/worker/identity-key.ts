import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ImgcredError, systemErrorCode } from '../errors/index.ts';
import { removeTemporaries, writeDurablySync } from '../files/index.ts';
import { type WorkerKey, workerKeyFromSeed } from '../protocol/index.ts';

const FILE = 'identity-key';
const LINE = /^imgcred-worker-1 ([A-Za-z0-9_-]{43})\n$/;

/**
 * The key that a worker is known by, kept in its data directory (0600); made at its first start, and on disk before
 * anybody hears of it.
 *
 * @throws ImgcredError DATA_DIR for a file that is not one
 */
export async function loadIdentityKey(directory: string): Promise<WorkerKey> {
  const path = join(directory, FILE);
  return workerKeyFromSeed(readSeed(path) ?? makeSeed(path));
}

function readSeed(path: string): Buffer | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (thrown) {
    if (systemErrorCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
  const seed = LINE.exec(text)?.[1];
  if (seed !== undefined) return Buffer.from(seed, 'base64url');
  throw new ImgcredError('DATA_DIR', `${path} does not hold a worker's key`, {
    hint: 'put it back from a copy; or delete it, and have an admin run imgcred worker rm NAME',
  });
}

function makeSeed(path: string): Buffer {
  const seed = randomBytes(32);
  removeTemporaries(path);
  writeDurablySync(path, `imgcred-worker-1 ${seed.toString('base64url')}\n`);
  return seed;
}
