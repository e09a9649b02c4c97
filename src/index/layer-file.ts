import { closeSync, fsyncSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { FileBytes, piecesOf } from './file-bytes.ts';
import { encodeLayerHead, LAYER_DIGEST_AT, layerDigest } from './layer-codec.ts';
import { EntryWriter } from './layer-entries.ts';
import { readLayer } from './layer-indexer.ts';
import { ScratchFiles, SectionSpool } from './section-spool.ts';
import type { IndexLayerOptions, LayerSource } from './types.ts';

const NOTHING = new Uint8Array(0);

/**
 * Indexes a layer into a new file, in the form of `encodeLayerIndex`: its entries go there while they are read, and its
 * windows to a scratch file beside it, so that a million files or a hundred GiB take no memory. The file is on disk when
 * this returns; where it throws there is none.
 * @throws as `indexLayer`; what the file system throws
 */
export async function indexLayerToFile(
  source: LayerSource,
  stream: AsyncIterable<Uint8Array>,
  path: string,
  options: IndexLayerOptions = {},
): Promise<void> {
  using scratch = new ScratchFiles(path);
  const descriptor = openSync(path, 'wx+', 0o600);
  try {
    const unread = { source, uncompressedSize: 0, entryCount: 0, entries: NOTHING, spanCount: 0 };
    const start = encodeLayerHead({ ...unread, spans: NOTHING, windows: NOTHING }).length;
    let end = start;
    const append = (bytes: Uint8Array) => {
      writeAt(descriptor, end, bytes);
      end += bytes.length;
    };
    const into = { entries: new EntryWriter(append), windows: new SectionSpool(scratch.open) };
    const layer = await readLayer(source, stream, into, options);
    into.entries.flush();
    const entries = new FileBytes(path, start, end - start);
    append(layer.spans);
    const windows = new FileBytes(path, end, into.windows.length);
    for (const piece of into.windows.pieces()) append(piece);
    const whole = { ...layer, entries, windows };
    writeAt(descriptor, 0, encodeLayerHead(whole));
    writeAt(descriptor, LAYER_DIGEST_AT, layerDigest(piecesOf(new FileBytes(path, 0, end))));
    fsyncSync(descriptor);
  } catch (thrown) {
    unlinkSync(path);
    throw thrown;
  } finally {
    closeSync(descriptor);
  }
}

function writeAt(descriptor: number, at: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; )
    done += writeSync(descriptor, bytes, done, bytes.length - done, at + done);
}
