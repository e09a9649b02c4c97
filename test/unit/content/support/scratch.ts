import { afterEach } from 'bun:test';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {
  type BlobSource,
  ContentStore,
  type ContentStoreOptions,
  ImageContent,
  type ImageContentOptions,
} from '../../../../src/content/index.ts';
import type { ImageIndex } from '../../../../src/index/index.ts';

/** Directories, stores and contents that are closed and removed after each test of the file that calls this. */
export function scratch() {
  const closers: (() => unknown)[] = [];
  afterEach(async () => {
    for (const close of closers.splice(0).reverse()) await close();
  });
  const directory = (): string => {
    const made = fs.mkdtempSync(path.join(os.tmpdir(), 'imgcred-content-'));
    closers.push(() => fs.rmSync(made, { recursive: true, force: true }));
    return made;
  };
  const store = async (at: string = directory(), options?: ContentStoreOptions): Promise<ContentStore> => {
    const opened = await ContentStore.open(at, options);
    closers.push(() => opened.close());
    return opened;
  };
  const content = (
    index: ImageIndex,
    from: ContentStore,
    source: BlobSource,
    options?: ImageContentOptions,
  ) => {
    const opened = new ImageContent(index, from, source, options);
    closers.push(() => opened.close());
    return opened;
  };
  return { directory, store, content, cleanup: (close: () => unknown) => closers.push(close) };
}

/** All of a file through `read`, in pieces of `step` bytes. */
export async function readAll(
  content: ImageContent,
  ino: number,
  size: number,
  step = 128 * 1024,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += step) {
    const piece = bytes.subarray(at, Math.min(size, at + step));
    if ((await content.read(ino, at, piece)) !== piece.length) throw new Error(`short read at ${at}`);
  }
  return bytes;
}
