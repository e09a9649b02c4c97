import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { moveDurably, removeAbandoned, temporaryName } from '../files/index.ts';
import type { IndexThreads, LayerIndex } from '../index/index.ts';

/** An image's index, in a file that is named by its sha256. */
export interface StoredIndex {
  /** Hex. */
  readonly digest: string;
  /** Bytes of the file. */
  readonly length: number;
  readonly inodeCount: number;
}

/**
 * Merges layers into an image's index, in the directory where indexes lie.
 *
 * @param work does it
 * @param foreign whether somebody else made one of them: then all of the index is checked
 * @throws ImgcredError NOT_AN_IMAGE, UNSUPPORTED, CORRUPT; what the file system throws
 */
export async function storeMergedIndex(
  work: IndexThreads,
  directory: string,
  layers: readonly LayerIndex[],
  foreign: boolean,
): Promise<StoredIndex> {
  await removeAbandoned(directory);
  const temporary = join(directory, temporaryName());
  try {
    const { length, inodeCount, sha256: digest } = await work.merge(layers, temporary, foreign);
    await moveDurably(temporary, join(directory, digest));
    return { digest, length, inodeCount };
  } catch (thrown) {
    await rm(temporary, { force: true });
    throw thrown;
  }
}
