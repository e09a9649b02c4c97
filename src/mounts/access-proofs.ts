import { mkdirSync } from 'node:fs';
import { access, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Secret } from '../credentials/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';

export interface AccessQuestion {
  readonly workspaceId: string;
  readonly manifestDigest: string;
  /** What is presented; undefined for anonymous access. Compared in memory, never stored. */
  readonly credential: Secret<string> | undefined;
}

const FRESH_MS = 60_000;

/**
 * Remembers which workspace has proved that it may read which image. Cached content is shared by all of a worker's
 * workspaces, so each must show the registry its own credential before it is served from it: else knowing a digest
 * would be enough. A registry that can't be reached is no refusal: then an earlier proof of the same workspace
 * counts, so that what is local runs without the registry.
 */
export class AccessProofs {
  readonly #directory: string;
  readonly #now: () => number;
  readonly #recent = new Map<string, { credential: Secret<string> | undefined; at: number }>();

  constructor(directory: string, now: () => number = Date.now) {
    this.#directory = directory;
    this.#now = now;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  /**
   * Makes sure that `question`'s credential opens the image: by a proof of the last minute with the same
   * credential, or by `prove`, which asks the registry.
   *
   * @throws what `prove` throws, except when the registry can't be reached and there is an earlier proof
   */
  async require(question: AccessQuestion, prove: () => Promise<void>, logger: Logger): Promise<void> {
    const key = `${question.workspaceId} ${question.manifestDigest}`;
    const known = this.#recent.get(key);
    const same = known !== undefined && known.credential?.reveal() === question.credential?.reveal();
    if (same && this.#now() - known.at < FRESH_MS) return;
    const path = join(this.#directory, new Bun.CryptoHasher('sha256').update(key).digest('hex'));
    try {
      await prove();
    } catch (thrown) {
      const unreachable = thrown instanceof ImgcredError && UNREACHABLE.has(thrown.code);
      if (!unreachable || !(await exists(path))) {
        this.#recent.delete(key);
        throw thrown;
      }
      logger.warn('registry not reachable: going on with an earlier proof of access', {
        error: thrown.message,
      });
      return;
    }
    this.#recent.set(key, { credential: question.credential, at: this.#now() });
    // An empty file whose name is a hash of workspace and digest: it says nothing to others, and holds no secret.
    await writeFile(path, '', { mode: 0o600 }).catch((thrown: unknown) => {
      logger.debug('the proof of access could not be kept', { error: String(thrown) });
    });
  }
}

const UNREACHABLE: ReadonlySet<string> = new Set(['REGISTRY_UNREACHABLE', 'REGISTRY_ERROR']);

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
