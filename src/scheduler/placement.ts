import { type Demand, fits, type Supply } from '../protocol/index.ts';

/** What a request asks of the worker that runs it. */
export interface Need extends Demand {
  /** The layers of its image; sizes in bytes. */
  readonly layers: readonly { readonly digest: string; readonly size: number }[];
  /** When it could first have been claimed, ms since 1970. */
  readonly waitingSince: number;
}

/** What a worker has to give now. */
export interface Offer extends Supply {
  /** Digests of layers that it has content of. */
  readonly layers: ReadonlySet<string>;
}

/** How long a request is kept for a worker that has more of its image, ms: less than what fetching it takes. */
export const HEAD_START_MS = 300;
// A worker that has a little more is not worth the wait.
const WORTH_WAITING = 0.5;

/** The share of an image's compressed bytes that lies in layers which a worker has content of. */
export function warmth(need: Pick<Need, 'layers'>, offer: Pick<Offer, 'layers'>): number {
  let total = 0;
  let there = 0;
  for (const { digest, size } of need.layers) {
    total += size;
    if (offer.layers.has(digest)) there += size;
  }
  return total === 0 ? 1 : there / total;
}

/**
 * Whether the worker that asks takes the request: `take`, `unfit` when it can't run it, or for how many ms it
 * leaves it to another one that has its image.
 */
export function judge(
  need: Need,
  asking: Offer,
  others: readonly Offer[],
  now: number,
): 'take' | 'unfit' | number {
  if (!fits(need, asking)) return 'unfit';
  const left = need.waitingSince + HEAD_START_MS - now;
  if (left <= 0) return 'take';
  const own = warmth(need, asking);
  const better = others.some((other) => warmth(need, other) >= own + WORTH_WAITING && fits(need, other));
  return better ? left : 'take';
}
