import { describe, expect, test } from 'bun:test';
import { differences, snapshotIndex, tarOf, testLayer } from '../../fixtures/tree/index.ts';
import { LAYERED_CASES } from './support/layered-cases.ts';
import { indexOf, unpackedByUmoci } from './support/oci-image.ts';

describe('the merged tree is the one that umoci unpacks', () => {
  for (const { name, layers, untimed } of LAYERED_CASES) {
    test(name, async () => {
      const tars = layers.map(tarOf);
      const expected = unpackedByUmoci(tars);
      const index = await indexOf(tars.map((tar) => testLayer(tar, 'gzip')));
      expect(differences(expected, snapshotIndex(index), { anyMtime: new Set(untimed) })).toEqual([]);
    });
  }
});
