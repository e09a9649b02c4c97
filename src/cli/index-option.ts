import { ImgcredError } from '../errors/index.ts';
import { INDEX_MODES, type RegisterImage } from '../protocol/index.ts';
import type { Invocation, Options } from './command.ts';

/** Where a registration takes the index from. */
export const INDEX_OPTION = {
  index: {
    value: 'auto|local|require',
    help: 'take the index, or eStargz and zstd:chunked tables, from the registry where they are sound; never; or in any case (auto)',
  },
} satisfies Options;

/** The part of a registration's request that `INDEX_OPTION` makes. @throws ImgcredError USAGE */
export function indexRequest(invocation: Invocation): Pick<RegisterImage, 'index'> {
  const text = invocation.text('index');
  if (text === undefined) return {};
  const mode = INDEX_MODES.find((known) => known === text);
  if (mode === undefined) {
    throw new ImgcredError('USAGE', `--index ${text}: must be one of ${INDEX_MODES.join(', ')}`);
  }
  return { index: mode };
}
