import { isIPv6 } from 'node:net';
import { ReferenceSyntaxError } from './error.ts';

/** Docker Hub's name in references; its API answers at `registry-1.docker.io`. */
export const DOCKER_HUB = 'docker.io';

const LABEL = '[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?';
const HOST = new RegExp(`^(?:${LABEL}(?:\\.${LABEL})*|\\[([a-fA-F0-9:]+)\\])(?::([0-9]+))?$`);
const LARGEST_PORT = 65_535;

/**
 * Checks a registry's host as it stands in a reference: name, IPv4 or bracketed IPv6, with an optional port.
 * The spelling is kept.
 *
 * @param input what to show in the message, where the host is a part of something longer
 *
 * @throws ReferenceSyntaxError `INVALID_REFERENCE`
 */
export function checkRegistryHost(host: string, input: string = host): string {
  const match = HOST.exec(host);
  if (match === null) {
    throw new ReferenceSyntaxError(
      'not a registry host',
      input,
      'a registry is HOST or HOST:PORT, an IPv6 address in []',
    );
  }
  const [, ipv6, port] = match;
  if (ipv6 !== undefined && !isIPv6(ipv6)) throw new ReferenceSyntaxError('not an IPv6 address', input);
  if (port !== undefined && (Number(port) < 1 || Number(port) > LARGEST_PORT)) {
    throw new ReferenceSyntaxError('port out of range (1–65535)', input);
  }
  return host;
}

/**
 * One spelling for each registry, for comparing two of them: lower case, Docker Hub's other names as `docker.io`,
 * without the port that https has anyway.
 *
 * @throws ReferenceSyntaxError `INVALID_REFERENCE`
 */
export function normalizeRegistryHost(host: string): string {
  const lower = checkRegistryHost(host)
    .toLowerCase()
    .replace(/:0*443$/, '');
  return lower === 'index.docker.io' || lower === 'registry-1.docker.io' ? DOCKER_HUB : lower;
}
