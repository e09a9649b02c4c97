import { describe, expect, test } from 'bun:test';
import { writeFileSync } from 'node:fs';
import {
  differences,
  overlayTree,
  snapshotIndex,
  tarOf,
  testLayer,
  withoutOverlayTraits,
} from '../../fixtures/tree/index.ts';
import { LAYERED_CASES } from './support/layered-cases.ts';
import { indexOf, TemporaryDirectory } from './support/oci-image.ts';

describe('the merged tree is the one that the kernel shows from the same layers', () => {
  for (const { name, layers, notOverlay } of LAYERED_CASES) {
    if (layers.length < 2 || notOverlay !== undefined) continue;
    test(name, async () => {
      using directory = new TemporaryDirectory();
      const tars = layers.map(tarOf);
      const files = tars.map((tar, at) => {
        const path = `${directory.path}/${at}.tar`;
        writeFileSync(path, tar);
        return path;
      });
      const expected = overlayTree(files);
      const index = snapshotIndex(await indexOf(tars.map((tar) => testLayer(tar, 'zstd'))));
      expect(differences(withoutOverlayTraits(expected), withoutOverlayTraits(index))).toEqual([]);
    });
  }
});
