import { toImgcredError } from '../errors/index.ts';
import type { NumberedLogChunk } from '../protocol/index.ts';
import type { StoredLogRecord } from './containers/index.ts';

export type SendChunks = (chunks: readonly NumberedLogChunk[]) => Promise<void>;

// While one batch is on its way the next one gathers: a chatty container costs few calls, a quiet one no delay.
const BATCH_BYTES = 1 << 20;
const BATCH_CHUNKS = 4096;
const BUFFER_BYTES = 8 << 20;
const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 5_000;

/**
 * Copies a container's output to the scheduler, in order, each piece once: what gets no answer is sent again under
 * the same number. Resolves when all of it was taken, or when the scheduler says that it is no longer wanted.
 *
 * @param firstNumber what the numbers of this attempt's chunks begin with
 */
export async function pumpLogs(
  records: AsyncIterable<StoredLogRecord>,
  firstNumber: number,
  send: SendChunks,
  signal: AbortSignal,
): Promise<void> {
  const queue: { chunk: NumberedLogChunk; bytes: number }[] = [];
  let buffered = 0;
  let finished = false;
  let wanted = true;
  let wakeSender = () => {};
  let wakeReader = () => {};
  const sender = (async () => {
    while (wanted) {
      if (queue.length === 0) {
        if (finished || signal.aborted) return;
        await new Promise<void>((resolve) => (wakeSender = resolve));
        continue;
      }
      const batch: NumberedLogChunk[] = [];
      for (let bytes = 0; queue[0] !== undefined && bytes < BATCH_BYTES && batch.length < BATCH_CHUNKS; ) {
        const next = queue.shift();
        if (next === undefined) break;
        batch.push(next.chunk);
        bytes += next.bytes;
        buffered -= next.bytes;
      }
      wanted = await sendSurely(() => send(batch), signal);
      wakeReader();
    }
  })();
  try {
    for await (const record of records) {
      if (!wanted) break;
      queue.push({
        chunk: {
          number: firstNumber + record.position,
          time: record.time,
          stream: record.stream,
          data: Buffer.from(record.bytes).toString('base64'),
        },
        bytes: record.bytes.length,
      });
      buffered += record.bytes.length;
      wakeSender();
      while (buffered > BUFFER_BYTES && wanted && !signal.aborted)
        await new Promise<void>((resolve) => (wakeReader = resolve));
    }
  } finally {
    finished = true;
    wakeSender();
    await sender;
  }
}

/** Repeats `send` until it succeeds; false once the scheduler no longer takes it. */
async function sendSurely(send: () => Promise<void>, signal: AbortSignal): Promise<boolean> {
  for (let retry = FIRST_RETRY_MS; ; retry = Math.min(retry * 2, LONGEST_RETRY_MS)) {
    try {
      await send();
      return true;
    } catch (thrown) {
      const { code } = toImgcredError(thrown);
      if (code === 'CONFLICT' || code === 'NOT_FOUND' || signal.aborted) return false;
      await Bun.sleep(retry);
    }
  }
}
