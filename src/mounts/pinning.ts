import type { ContentStore, ImageContent, PrefetchResult } from '../content/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { PinLine } from '../protocol/index.ts';

const PROGRESS_EVERY_MS = 250;

/**
 * Makes an image wholly local, telling how it goes. The last line says that it is, or what is in the way. Ends
 * early when `signal` fires or nobody reads any more; what has come in stays.
 */
export async function* pinning(
  content: ImageContent,
  store: ContentStore,
  signal: AbortSignal,
): AsyncGenerator<PinLine> {
  const ending = new AbortController();
  const before = content.stats().totalBytesFetched;
  const work = content.completeAll({ awaited: true, signal: AbortSignal.any([signal, ending.signal]) });
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
    const problem = problemOf(await work, store);
    // Who is told that it is here may pull the plug.
    await store.flush();
    if (problem !== undefined) yield { kind: 'error', ...problem.toJSON() };
    else yield { kind: 'done', bytes_fetched: content.stats().totalBytesFetched - before };
  } finally {
    ending.abort();
    await settled;
  }
}

function problemOf({ stopped }: PrefetchResult, store: ContentStore): ImgcredError | undefined {
  if (stopped !== 'not-kept') return stopped;
  return new ImgcredError('DATA_DIR', `the image can't be kept: ${store.notKeeping ?? 'there is no room'}`, {
    hint: 'raise --cache-limit, free some disk space, or unpin another image',
  });
}
