import { describe, expect, test } from 'bun:test';
import { allowsPlainHttp, apiHost, isLoopback } from '../../../src/registry/hosts.ts';
import { proxyFor } from '../../../src/registry/proxy.ts';

describe('apiHost', () => {
  const cases: [string, string][] = [
    ['docker.io', 'registry-1.docker.io'],
    ['index.docker.io', 'registry-1.docker.io'],
    ['ghcr.io', 'ghcr.io'],
    ['LOCALHOST:5000', 'localhost:5000'],
    ['[::1]:5000', '[::1]:5000'],
    ['registry.example:443', 'registry.example'],
  ];
  for (const [registry, host] of cases)
    test(`is ${host} for ${registry}`, () => expect(apiHost(registry)).toBe(host));
});

describe('isLoopback', () => {
  const loopback = ['localhost', 'LocalHost.', 'a.b.localhost', '127.0.0.1', '127.9.8.7', '::1', '[::1]'];
  const others = ['localhost.example', 'notlocalhost', '127.0.0.1.example', '10.0.0.1', '::2', '0.0.0.0', ''];
  for (const host of loopback) test(`takes ${host}`, () => expect(isLoopback(host)).toBe(true));
  for (const host of others)
    test(`refuses ${JSON.stringify(host)}`, () => expect(isLoopback(host)).toBe(false));
});

describe('plain http', () => {
  const insecure = ['plain.example', 'ported.example:5000', '10.1.0.0/16', '[fd00::1]:5000'];
  const cases: [url: string, allowed: boolean][] = [
    ['http://localhost:5000/', true],
    ['http://registry.localhost/', true],
    ['http://plain.example/', true],
    ['http://plain.example:5000/', true],
    ['http://ported.example:5000/', true],
    ['http://ported.example/', false],
    ['http://sub.plain.example/', false],
    ['http://plain.example.evil/', false],
    ['http://10.1.2.3:5000/', true],
    ['http://10.2.2.3:5000/', false],
    ['http://[fd00::1]:5000/', true],
    ['http://ghcr.io/', false],
  ];
  for (const [url, allowed] of cases) {
    test(`is ${allowed ? 'allowed' : 'refused'} to ${url}`, () =>
      expect(allowsPlainHttp(new URL(url), insecure)).toBe(allowed));
  }
});

describe('proxyFor', () => {
  const both = { HTTP_PROXY: 'http://h:1', HTTPS_PROXY: 'http://s:2' };
  const cases: [name: string, url: string, environment: Record<string, string>, proxy: string | undefined][] =
    [
      ['the scheme decides', 'https://a.example', both, 'http://s:2'],
      ['the scheme decides (http)', 'http://a.example', both, 'http://h:1'],
      ['no variable, no proxy', 'https://a.example', { HTTP_PROXY: 'http://h:1' }, undefined],
      [
        'lower case counts first',
        'https://a.example',
        { ...both, https_proxy: 'http://low:3' },
        'http://low:3',
      ],
      ['ALL_PROXY is the last', 'https://a.example', { ALL_PROXY: 'http://all:4' }, 'http://all:4'],
      [
        'a proxy without scheme is http',
        'https://a.example',
        { HTTPS_PROXY: 'proxy:8080' },
        'http://proxy:8080',
      ],
      ['loopback is direct', 'http://127.0.0.1:5000', both, undefined],
      ['localhost is direct', 'http://localhost:5000', both, undefined],
      ['a star exempts all', 'https://a.example', { ...both, NO_PROXY: '*' }, undefined],
      [
        'a name exempts itself',
        'https://a.example',
        { ...both, NO_PROXY: 'b.example, a.example' },
        undefined,
      ],
      ['a name exempts its subdomains', 'https://x.a.example', { ...both, NO_PROXY: 'a.example' }, undefined],
      ['a dot in front is the same', 'https://x.a.example', { ...both, NO_PROXY: '.a.example' }, undefined],
      ['a suffix is no substring', 'https://xa.example', { ...both, NO_PROXY: 'a.example' }, 'http://s:2'],
      ['a port must fit', 'https://a.example:8443', { ...both, NO_PROXY: 'a.example:443' }, 'http://s:2'],
      ['the default port is a port', 'https://a.example', { ...both, NO_PROXY: 'a.example:443' }, undefined],
      ['a network exempts its addresses', 'https://10.1.2.3', { ...both, no_proxy: '10.0.0.0/8' }, undefined],
      ['another network does not', 'https://11.1.2.3', { ...both, no_proxy: '10.0.0.0/8' }, 'http://s:2'],
      ['an IPv6 address', 'https://[fd00::1]', { ...both, no_proxy: 'fd00::1' }, undefined],
      ['an empty variable is none', 'https://a.example', { HTTPS_PROXY: ' ' }, undefined],
    ];
  for (const [name, url, environment, proxy] of cases) {
    test(name, () => expect(proxyFor(new URL(url), environment)).toBe(proxy));
  }
});
