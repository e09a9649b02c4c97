import { mkdirSync } from 'node:fs';
import { access, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Secret } from '../credentials/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';
import { RegistryError } from '../registry/index.ts';

export interface AccessQuestion {
  readonly workspaceId: string;
  readonly manifestDigest: string;
  /** Who is asked, for messages. */
  readonly registry: string;
  /** What is presented; undefined for anonymous access. Compared in memory, never stored. */
  readonly credential: Secret<string> | undefined;
}

export interface AccessProofsOptions {
  /** Milliseconds that never run backwards: a clock that is set must not prolong what was proved. */
  readonly now?: () => number;
  /** How long the registry may take to answer, ms. */
  readonly deadlineMs: number;
  /** The same where an earlier proof would do instead, ms. */
  readonly patienceMs?: number;
}

const FRESH_MS = 60_000;
const PATIENCE_MS = 5_000;

/**
 * Remembers which workspace has proved that it may read which image. Cached content is shared by all of a worker's
 * workspaces, so each must show the registry its own credential before it is served from it: else knowing a digest
 * would be enough. A registry that can't be reached is no refusal: then an earlier proof of the same workspace
 * counts, so that what is local runs without the registry. A refusal ends what was proved before.
 */
export class AccessProofs {
  readonly #directory: string;
  readonly #now: () => number;
  readonly #deadlineMs: number;
  readonly #patienceMs: number;
  readonly #recent = new Map<string, { credential: Secret<string> | undefined; at: number }>();

  constructor(directory: string, options: AccessProofsOptions) {
    this.#directory = directory;
    this.#now = options.now ?? (() => performance.now());
    this.#deadlineMs = options.deadlineMs;
    this.#patienceMs = Math.min(options.patienceMs ?? PATIENCE_MS, options.deadlineMs);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  /**
   * Makes sure that `question`'s credential opens the image: by a proof of the last minute with the same
   * credential, or by `prove`, which asks the registry and is given up when its signal says so.
   *
   * @throws what `prove` throws, except when the registry can't be reached and there is an earlier proof;
   *   ImgcredError REGISTRY_UNREACHABLE when it does not answer in time
   */
  async require(
    question: AccessQuestion,
    prove: (signal: AbortSignal) => Promise<void>,
    logger: Logger,
  ): Promise<void> {
    const key = keyOf(question);
    const known = this.#recent.get(key);
    const same = known !== undefined && known.credential?.reveal() === question.credential?.reveal();
    if (same && this.#now() - known.at < FRESH_MS) return;
    const path = this.#path(key);
    const proved = await exists(path);
    const limitMs = proved ? this.#patienceMs : this.#deadlineMs;
    const limit = AbortSignal.timeout(limitMs);
    try {
      await prove(limit);
    } catch (thrown) {
      this.#recent.delete(key);
      if (thrown instanceof ImgcredError && REFUSALS.has(thrown.code)) await rm(path, { force: true });
      if (!limit.aborted && !isUnreachable(thrown)) throw thrown;
      if (!proved) throw limit.aborted ? silent(question.registry, limitMs, thrown) : thrown;
      logger.warn('registry not reachable: going on with an earlier proof of access', {
        error: limit.aborted ? silent(question.registry, limitMs, thrown).message : String(thrown),
      });
      return;
    }
    this.#recent.set(key, { credential: question.credential, at: this.#now() });
    // An empty file whose name is a hash of workspace and digest: it says nothing to others, and holds no secret.
    await writeFile(path, '', { mode: 0o600 }).catch((thrown: unknown) => {
      logger.debug('the proof of access could not be kept', { error: String(thrown) });
    });
  }

  /** Forgets that a workspace has proved anything of an image: its credential was taken away. */
  async forget(question: Pick<AccessQuestion, 'workspaceId' | 'manifestDigest'>): Promise<void> {
    const key = keyOf(question);
    this.#recent.delete(key);
    await rm(this.#path(key), { force: true });
  }

  #path(key: string): string {
    return join(this.#directory, new Bun.CryptoHasher('sha256').update(key).digest('hex'));
  }
}

function keyOf({
  workspaceId,
  manifestDigest,
}: Pick<AccessQuestion, 'workspaceId' | 'manifestDigest'>): string {
  return `${workspaceId} ${manifestDigest}`;
}

const REFUSALS: ReadonlySet<string> = new Set([
  'CREDENTIALS_REFUSED',
  'UNAUTHORIZED',
  'FORBIDDEN',
  'NOT_FOUND',
  'MANIFEST_UNKNOWN',
]);

function isUnreachable(thrown: unknown): boolean {
  if (!(thrown instanceof ImgcredError)) return false;
  return thrown.code === 'REGISTRY_UNREACHABLE' || (thrown instanceof RegistryError && thrown.transient);
}

function silent(registry: string, limitMs: number, cause: unknown): ImgcredError {
  return new ImgcredError('REGISTRY_UNREACHABLE', `${registry} did not answer within ${limitMs / 1000} s`, {
    hint: 'check the way to the registry; --read-timeout sets how long is waited',
    cause,
  });
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
