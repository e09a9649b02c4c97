import { BlockList, isIP } from 'node:net';
import { DOCKER_HUB, normalizeRegistryHost } from '../reference/index.ts';

/** The host that answers the API for a registry's name: Docker Hub's is another one than its name. */
export function apiHost(registry: string): string {
  const host = normalizeRegistryHost(registry);
  return host === DOCKER_HUB ? 'registry-1.docker.io' : host;
}

/** Whether a host name (brackets of an IPv6 address allowed) can only lead to this machine. */
export function isLoopback(hostname: string): boolean {
  const host = hostname
    .toLowerCase()
    .replace(/^\[|\]$/g, '')
    .replace(/\.$/, '');
  if (host === 'localhost' || host.endsWith('.localhost')) return true;
  return isIP(host) === 4 ? host.startsWith('127.') : host === '::1';
}

/** Whether an IP address lies in a network such as `10.0.0.0/8` or `fd00::/8`. */
export function matchesNetwork(address: string, network: string): boolean {
  const [base = '', prefix = ''] = network.split('/');
  const family = isIP(base);
  const bits = Number(prefix);
  if (family === 0 || family !== isIP(address) || !/^\d{1,3}$/.test(prefix)) return false;
  if (bits > (family === 4 ? 32 : 128)) return false;
  const type = family === 4 ? 'ipv4' : 'ipv6';
  const list = new BlockList();
  list.addSubnet(base, bits, type);
  return list.check(address, type);
}

/**
 * Whether plain http may be spoken to a URL's host: loopback, `*.localhost`, and what the user named as
 * insecure (`host`, `host:port`, or a network).
 */
export function allowsPlainHttp(url: URL, insecure: readonly string[]): boolean {
  const host = url.hostname.toLowerCase().replace(/^\[|\]$/g, '');
  if (isLoopback(host)) return true;
  const port = url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port;
  return insecure.some((entry) => {
    const wanted = entry.toLowerCase();
    if (wanted.includes('/')) return matchesNetwork(host, wanted);
    const name = host.includes(':') ? `[${host}]` : host;
    return wanted === host || wanted === name || wanted === `${name}:${port}`;
  });
}
