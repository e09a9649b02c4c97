import { type BlobSource, ContentStore, ImageContent } from '../../../src/content/index.ts';
import { anonymousProvider } from '../../../src/credentials/index.ts';
import type { ImageIndex } from '../../../src/index/index.ts';
import { parseDigest } from '../../../src/reference/index.ts';
import { RegistryClient } from '../../../src/registry/index.ts';

/** The content of an image, from a cache directory and a repository. */
export async function openContent(
  place: { readonly host: string; readonly repository: string; readonly cache: string },
  index: ImageIndex,
  fetchTogetherBytes = 0,
) {
  const store = await ContentStore.open(place.cache);
  const client = new RegistryClient(place.host, anonymousProvider(place.host));
  const readRange: BlobSource['readRange'] = (layer, offset, length, options) =>
    client.readRange(
      place.repository,
      { ...layer, digest: parseDigest(layer.digest) },
      offset,
      length,
      options,
    );
  const content = new ImageContent(index, store, { readRange }, { fetchTogetherBytes });
  return {
    content,
    store,
    [Symbol.asyncDispose]: async () => {
      await content.close();
      await store.close();
      client.close();
    },
  };
}
