import { isIP } from 'node:net';
import { isLoopback, matchesNetwork } from './hosts.ts';

/** The variables that curl and Go read, in either case. */
export type ProxyEnvironment = Readonly<Record<string, string | undefined>>;

/**
 * Which proxy a request goes through, if any: `HTTPS_PROXY` or `HTTP_PROXY` by the URL's scheme, else
 * `ALL_PROXY`, unless the host is a loopback one or stands in `NO_PROXY` (`*`, names with their subdomains,
 * `host:port`, addresses, networks as `10.0.0.0/8`).
 */
export function proxyFor(url: URL, environment: ProxyEnvironment): string | undefined {
  const read = (name: string): string | undefined => {
    // HTTP_PROXY in capitals can be set by a client of a CGI server ("httpoxy"); we are none.
    const value = environment[name.toLowerCase()] ?? environment[name];
    return value === undefined || value.trim() === '' ? undefined : value.trim();
  };
  const proxy = read(url.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY') ?? read('ALL_PROXY');
  if (proxy === undefined || isLoopback(url.hostname) || isExempt(url, read('NO_PROXY') ?? ''))
    return undefined;
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(proxy) ? proxy : `http://${proxy}`;
}

function isExempt(url: URL, list: string): boolean {
  const host = bare(url.hostname);
  const port = url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port;
  return list.split(/[,\s]+/).some((entry) => {
    if (entry === '') return false;
    if (entry === '*') return true;
    if (entry.includes('/')) return matchesNetwork(host, entry);
    const [, name = '', wantedPort] =
      /^(.*?)(?::(\d+))?$/.exec(isIP(entry) === 6 ? `[${entry}]` : entry) ?? [];
    if (wantedPort !== undefined && wantedPort !== port) return false;
    const wanted = bare(name.toLowerCase()).replace(/^\*?\./, '');
    return host === wanted || (isIP(host) === 0 && host.endsWith(`.${wanted}`));
  });
}

function bare(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, '').toLowerCase();
}
