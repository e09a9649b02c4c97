import type { BlobSource, FetchPriority, RangeResult } from '../../../../src/content/index.ts';
import type { LayerSource } from '../../../../src/index/index.ts';
import { pieces, type TestLayer } from './image.ts';

export interface SourceRequest {
  readonly layer: string;
  readonly offset: number;
  readonly length: number;
  readonly priority: FetchPriority;
  readonly signal: AbortSignal | undefined;
}

type Answer = (request: SourceRequest, honest: () => RangeResult) => RangeResult | Promise<RangeResult>;

/** A source over layers in memory that writes down what it is asked, and answers as a test wants. */
export class MemorySource implements BlobSource {
  readonly requests: SourceRequest[] = [];
  /** How to answer from now on; the honest answer where undefined. */
  answer: Answer | undefined;
  trouble: unknown;
  readonly #layers: Map<string, Uint8Array>;
  #arrivals: { readonly count: number; readonly resolve: () => void }[] = [];

  constructor(layers: readonly TestLayer[]) {
    this.#layers = new Map(layers.map(({ source, compressed }) => [source.digest, compressed]));
  }

  async readRange(
    layer: LayerSource,
    offset: number,
    length: number,
    options: { signal?: AbortSignal; priority: FetchPriority },
  ): Promise<RangeResult> {
    const request = {
      layer: layer.digest,
      offset,
      length,
      priority: options.priority,
      signal: options.signal,
    };
    this.requests.push(request);
    for (const { count, resolve } of this.#arrivals) if (this.requests.length >= count) resolve();
    this.#arrivals = this.#arrivals.filter(({ count }) => this.requests.length < count);
    const honest = (): RangeResult => ({
      kind: 'range',
      bytes: this.blob(layer).slice(offset, offset + length),
    });
    return this.answer === undefined ? honest() : await this.answer(request, honest);
  }

  blob(layer: Pick<LayerSource, 'digest'>): Uint8Array {
    const bytes = this.#layers.get(layer.digest);
    if (bytes === undefined) throw new Error(`no layer ${layer.digest}`);
    return bytes;
  }

  /** Resolves once `count` requests have arrived in all. */
  requested(count: number): Promise<void> {
    if (this.requests.length >= count) return Promise.resolve();
    return new Promise((resolve) => this.#arrivals.push({ count, resolve }));
  }

  /** All requests from now on wait until the answer is called. */
  hold(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.answer = async (_request, honest) => {
      await promise;
      return honest();
    };
    return () => {
      this.answer = undefined;
      resolve();
    };
  }

  /** All requests from now on get the whole layer. */
  ignoreRanges(): void {
    this.answer = (request) => {
      const bytes = this.#layers.get(request.layer) ?? new Uint8Array();
      return { kind: 'whole', stream: pieces(bytes) };
    };
  }

  get bytesAsked(): number {
    return this.requests.reduce((sum, request) => sum + request.length, 0);
  }
}
