import type { ErrorCode } from '../errors/index.ts';
import type { IndexProgress, LayerSource, SpanInfo } from '../index/index.ts';

/** What an indexing thread is told. The bytes of a layer come in order, between `index` and `end` or `abort`. */
export type IndexingCommand =
  /** The index goes to a new file at `path`. */
  | {
      readonly kind: 'index';
      readonly source: LayerSource;
      readonly path: string;
      readonly withSpans: boolean;
    }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | { readonly kind: 'end' }
  | { readonly kind: 'abort' }
  /**
   * The span that was reported has been dealt with. Its memory goes back with the message: a thread's own heap is
   * small and collected often, that of a server is not, and would grow by what it has yet to collect.
   */
  | { readonly kind: 'kept'; readonly bytes: Uint8Array };

/** What it tells. Each layer ends with one `done` or `failed`. */
export type IndexingReport =
  | { readonly kind: 'ready' }
  | { readonly kind: 'progress'; readonly progress: IndexProgress }
  | { readonly kind: 'span'; readonly span: SpanInfo; readonly bytes: Uint8Array }
  | { readonly kind: 'done' }
  | {
      readonly kind: 'failed';
      readonly error: { readonly code: ErrorCode; readonly message: string; readonly hint?: string };
    };
