import { INDEX_MODES, type RegisterImage } from '../protocol/index.ts';
import type { Invocation, Options } from './command.ts';
import { oneOf, optionValue } from './option-values.ts';

const MODE = oneOf(...INDEX_MODES);

/** Where a registration takes the index from. */
export const INDEX_OPTION = {
  index: {
    value: 'auto|local|require',
    takes: MODE,
    help: 'take the index, or eStargz and zstd:chunked tables, from the registry where they are sound; never; or in any case (auto)',
  },
} satisfies Options;

/** The part of a registration's request that `INDEX_OPTION` makes. @throws ImgcredError USAGE */
export function indexRequest(invocation: Invocation): Pick<RegisterImage, 'index'> {
  const mode = optionValue(invocation, 'index', MODE);
  return mode === undefined ? {} : { index: mode };
}
