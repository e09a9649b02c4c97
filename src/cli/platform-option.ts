import { ImgcredError } from '../errors/index.ts';
import { type Platform, parsePlatform } from '../reference/index.ts';
import type { ValueKind } from './option-values.ts';

export const PLATFORM: ValueKind<Platform> = {
  must: 'be OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, or one of the two that is known',
  example: 'linux/arm64',
  parse(text) {
    try {
      return parsePlatform(text);
    } catch (thrown) {
      if (thrown instanceof ImgcredError) return undefined;
      throw thrown;
    }
  },
};
