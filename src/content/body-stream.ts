import type { Clock } from './clock.ts';

export interface BodyLimits {
  readonly signal: AbortSignal;
  readonly clock: Clock;
  /** Milliseconds without a byte after which the body counts as broken. */
  readonly silenceMs: number;
}

/**
 * The same stream, ended for sure: by the signal, and by silence, whether or not its source minds either. A body
 * that never ends would otherwise hold every later read of its layer.
 */
export async function* bounded(
  stream: AsyncIterable<Uint8Array>,
  limits: BodyLimits,
): AsyncGenerator<Uint8Array> {
  const iterator = stream[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { done, value } = await nextWithin(iterator, limits);
      if (done === true) return;
      yield value;
    }
  } finally {
    // Not waited for: a generator that hangs in its next step hangs in its end too.
    void iterator.return?.().catch(() => {});
  }
}

/** The promise's outcome, or the signal's reason as soon as it is aborted. */
export function abortable<Value>(work: Promise<Value>, signal: AbortSignal): Promise<Value> {
  const { promise, resolve, reject } = Promise.withResolvers<Value>();
  const aborted = () => reject(signal.reason);
  if (signal.aborted) aborted();
  signal.addEventListener('abort', aborted, { once: true });
  work.then(resolve, reject).finally(() => signal.removeEventListener('abort', aborted));
  return promise;
}

async function nextWithin(
  iterator: AsyncIterator<Uint8Array>,
  { signal, clock, silenceMs }: BodyLimits,
): Promise<IteratorResult<Uint8Array>> {
  const silence = new AbortController();
  const stop = clock.after(silenceMs, () => silence.abort(new Error(`no byte for ${silenceMs / 1000} s`)));
  try {
    return await abortable(abortable(iterator.next(), silence.signal), signal);
  } finally {
    stop();
  }
}
