import type { LayerSource } from '../index/index.ts';

/** How urgent a transfer is: somebody waits for it, or somebody may want it later. */
export type FetchPriority = 'demand' | 'prefetch';

/** What came back for a Range request. `whole`: the server ignored the range and sends the blob from byte 0. */
export type RangeResult =
  | { readonly kind: 'range'; readonly bytes: Uint8Array }
  | { readonly kind: 'whole'; readonly stream: AsyncIterable<Uint8Array> };

/**
 * Where the compressed bytes of a layer come from. The content store knows no registry: the worker ties a
 * registry client with the image's own credential to this interface.
 */
export interface BlobSource {
  /**
   * Reads `length` bytes from byte `offset` of the compressed layer. Detecting a connection that has gone
   * silent is the source's part; the content store bounds the whole by its own deadline and aborts `signal`.
   *
   * @throws ImgcredError whose code says whether the credential, the blob or the way there is the trouble
   */
  readRange(
    layer: LayerSource,
    offset: number,
    length: number,
    options: { readonly signal?: AbortSignal; readonly priority: FetchPriority },
  ): Promise<RangeResult>;
  /** What the way to the blobs ran into last, where the source is still trying: for who asks why it takes long. */
  readonly trouble?: unknown;
}
