import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { z } from 'zod';
import { ImgcredError } from '../errors/index.ts';
import { type ImageTrace, STARTS_REMEMBERED, type TracedSpan } from './trace.ts';

// A frame that unpacks to more, or names more spans, was not made here.
const UNPACKED_BYTES = 8 * 1024 * 1024;
const SPANS_AT_MOST = 262_144;
const LEVEL = 9;

/** Spans that follow one another: the number of their layer, the first, how many, and which starts touched them. */
type Run = [layer: number, first: number, length: number, starts: number];

const packedSchema = z.strictObject({
  version: z.literal(1),
  /** `LayerLayout.key`s. */
  layers: z.array(z.string().regex(/^[0-9a-f]{32}$/)).max(4096),
  // By hand: there may be a hundred thousand, and a schema of each takes half a second.
  runs: z.custom<Run[]>((value) => Array.isArray(value) && value.every(isRun)),
});

function isRun(value: unknown): boolean {
  if (!Array.isArray(value) || value.length !== 4) return false;
  const [layer, first, length, starts] = value;
  const counts = isCount(layer) && isCount(first) && isCount(length) && isCount(starts);
  return counts && length >= 1 && starts >= 1 && starts < 2 ** STARTS_REMEMBERED;
}

function isCount(value: unknown): boolean {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 0xffff_ffff;
}

/** A trace as it is stored and sent: JSON in one zstd frame. What goes beyond `mostBytes` is cut off at its end. */
export function packTrace(trace: ImageTrace, mostBytes: number): Uint8Array<ArrayBuffer> {
  for (let spans = trace.spans.slice(0, SPANS_AT_MOST); ; ) {
    const packed = zstdCompressSync(JSON.stringify(plain(spans)), {
      params: { [constants.ZSTD_c_compressionLevel]: LEVEL },
    });
    if (packed.length <= mostBytes || spans.length === 0) return new Uint8Array(packed);
    // A little less than what would fit if all were alike.
    spans = spans.slice(0, Math.floor(spans.length * Math.min(0.9, (0.95 * mostBytes) / packed.length)));
  }
}

/**
 * Reads what `packTrace` made. Whoever made it: nothing that it says can do more than bring bytes of the image.
 *
 * @throws ImgcredError CORRUPT for anything else
 */
export function unpackTrace(packed: Uint8Array): ImageTrace {
  let value: unknown;
  try {
    value = JSON.parse(
      new TextDecoder().decode(zstdDecompressSync(packed, { maxOutputLength: UNPACKED_BYTES })),
    );
  } catch (cause) {
    throw unreadable('it is no frame of JSON', cause);
  }
  const parsed = packedSchema.safeParse(value);
  if (!parsed.success) throw unreadable('its fields are not as expected', parsed.error);
  const { layers, runs } = parsed.data;
  const total = runs.reduce((sum, [, , length]) => sum + length, 0);
  if (total > SPANS_AT_MOST) throw unreadable(`it names ${total} spans`);
  const spans: TracedSpan[] = [];
  for (const [number, first, length, starts] of runs) {
    const layer = layers[number];
    if (layer === undefined) throw unreadable('it speaks of a layer that it does not name');
    for (let at = 0; at < length; at += 1) spans.push({ layer, span: first + at, starts });
  }
  return { spans };
}

function plain(spans: readonly TracedSpan[]): z.infer<typeof packedSchema> {
  const layers = [...new Set(spans.map((span) => span.layer))];
  const numbers = new Map(layers.map((layer, number) => [layer, number]));
  const runs: Run[] = [];
  for (const { layer, span, starts } of spans) {
    const number = numbers.get(layer) ?? 0;
    const last = runs.at(-1);
    const follows = last?.[0] === number && last[1] + last[2] === span && last[3] === starts;
    if (last !== undefined && follows) last[2] += 1;
    else runs.push([number, span, 1, starts]);
  }
  return { version: 1, layers, runs };
}

function unreadable(why: string, cause?: unknown): ImgcredError {
  return new ImgcredError('CORRUPT', `the trace of the image's starts can't be read: ${why}`, { cause });
}
