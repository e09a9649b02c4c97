import type { Digest } from '../reference/index.ts';
import {
  type ArtifactManifest,
  type Referrers,
  type RegistryClient,
  readArtifact,
} from '../registry/index.ts';

export interface SoughtReferrer {
  readonly repository: string;
  /** What refers to the image. */
  readonly referrers: Referrers;
  readonly artifactType: string;
}

// Older versions may have left artifacts beside the newest: that many are tried.
const MOST_CANDIDATES = 4;

/**
 * What `take` makes of the newest artifact that refers to an image and that it does not throw at. Undefined: there is
 * none.
 *
 * @throws what the last candidate did when none is taken; what the registry client throws; the signal's reason
 */
export async function newestReferrer<T>(
  client: RegistryClient,
  { repository, referrers, artifactType }: SoughtReferrer,
  signal: AbortSignal,
  take: (artifact: ArtifactManifest, digest: Digest) => T | Promise<T>,
): Promise<T | undefined> {
  const candidates = await referrers.list(artifactType);
  let failure: unknown;
  // The list under a tag grows at its end: what was pushed last stands last.
  for (const { digest } of candidates.toReversed().slice(0, MOST_CANDIDATES)) {
    try {
      return await take(await readArtifact(client, repository, digest, signal), digest);
    } catch (thrown) {
      signal.throwIfAborted();
      failure = thrown;
    }
  }
  if (failure !== undefined) throw failure;
  return undefined;
}
