import type { ContentStore, ImageContent, PrefetchResult } from '../content/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { PinLine } from '../protocol/index.ts';

const PROGRESS_EVERY_MS = 250;
const ROUNDS = 2;

/**
 * Makes an image wholly local, telling how it goes, and compares each of its files as it lies on the disk with its
 * sha256: what was damaged there since it came in is fetched again. The last line says that all of it is here, or what
 * is in the way. Ends early when `signal` fires or nobody reads any more; what has come in stays.
 */
export async function* pinning(
  content: ImageContent,
  store: ContentStore,
  signal: AbortSignal,
): AsyncGenerator<PinLine> {
  const ending = new AbortController();
  const before = content.stats().totalBytesFetched;
  const work = completeAndVerify(content, AbortSignal.any([signal, ending.signal]));
  let finished = false;
  const settled = work.then(
    () => (finished = true),
    () => (finished = true),
  );
  try {
    for (;;) {
      const { missingBytes, missingSpans } = await content.localState();
      yield { kind: 'progress', missing_bytes: missingBytes, missing_spans: missingSpans };
      if (finished) break;
      await Promise.race([settled, Bun.sleep(PROGRESS_EVERY_MS)]);
    }
    const { stopped, damaged } = await work;
    const problem = damaged > 0 ? unsound(damaged) : problemOf(stopped, store);
    // Who is told that it is here may pull the plug.
    await store.flush();
    if (problem !== undefined) yield { kind: 'error', ...problem.toJSON() };
    else yield { kind: 'done', bytes_fetched: content.stats().totalBytesFetched - before };
  } finally {
    ending.abort();
    await settled;
  }
}

/** Damage that is there again after what it concerns has come anew is the disk's. */
async function completeAndVerify(
  content: ImageContent,
  signal: AbortSignal,
): Promise<Pick<PrefetchResult, 'stopped'> & { readonly damaged: number }> {
  for (let round = 1; ; round += 1) {
    const { stopped } = await content.completeAll({ awaited: true, signal });
    const damaged = stopped === undefined ? await content.verifyFiles(signal) : 0;
    if (damaged === 0 || round === ROUNDS) return { stopped, damaged };
  }
}

function unsound(files: number): ImgcredError {
  return new ImgcredError('DATA_DIR', `${files} files of the image are damaged on the disk again and again`, {
    hint: 'check the health of the disk; what is damaged is fetched when it is read',
  });
}

function problemOf(stopped: PrefetchResult['stopped'], store: ContentStore): ImgcredError | undefined {
  if (stopped !== 'not-kept') return stopped;
  return new ImgcredError('DATA_DIR', `the image can't be kept: ${store.notKeeping ?? 'there is no room'}`, {
    hint: 'raise --cache-limit, free some disk space, or unpin another image',
  });
}
