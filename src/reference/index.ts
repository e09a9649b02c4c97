export {
  type Digest,
  type DigestAlgorithm,
  digestAlgorithm,
  digestHex,
  digestOf,
  isDigest,
  parseDigest,
} from './digest.ts';
export { ReferenceSyntaxError } from './error.ts';
export {
  formatPlatform,
  hostPlatform,
  normalizePlatform,
  type Platform,
  parsePlatform,
  platformDistance,
  selectPlatform,
} from './platform.ts';
export {
  checkRepository,
  formatReference,
  normalReference,
  parseReference,
  parseRegistry,
  type Reference,
} from './reference.ts';
export { checkRegistryHost, DOCKER_HUB, normalizeRegistryHost } from './registry-host.ts';
