import { describe, expect, test } from 'bun:test';
import {
  formatPlatform,
  hostPlatform,
  normalizePlatform,
  parsePlatform,
  platformDistance,
  selectPlatform,
} from '../../../src/reference/index.ts';

const HOST = { os: 'linux', architecture: 'amd64' };

describe('parsePlatform', () => {
  test.each([
    ['linux/amd64', 'linux/amd64'],
    ['linux/x86_64', 'linux/amd64'],
    ['linux/amd64/v1', 'linux/amd64'],
    ['linux/amd64/v3', 'linux/amd64/v3'],
    ['linux/aarch64', 'linux/arm64'],
    ['linux/arm64/v8', 'linux/arm64'],
    ['linux/arm64/8', 'linux/arm64'],
    ['linux/arm', 'linux/arm/v7'],
    ['linux/arm/7', 'linux/arm/v7'],
    ['linux/armhf', 'linux/arm/v7'],
    ['linux/armel', 'linux/arm/v6'],
    ['linux/i386', 'linux/386'],
    ['Linux/AMD64', 'linux/amd64'],
    ['macos/arm64', 'darwin/arm64'],
    ['windows', 'windows/amd64'],
    ['arm64', 'linux/arm64'],
    ['linux', 'linux/amd64'],
    ['linux/ppc64le', 'linux/ppc64le'],
  ])('reads %s as %s', (specifier, expected) => {
    expect(formatPlatform(parsePlatform(specifier, HOST))).toBe(expected);
  });

  test.each(['', '/', 'linux/', 'linux/amd64/v1/x', 'toaster', 'linux/am d64', 'linux/../x'])(
    'refuses %j',
    (given) => {
      expect(() => parsePlatform(given, HOST)).toThrow(expect.objectContaining({ code: 'INVALID_INPUT' }));
    },
  );

  test.each([
    ['linux', 'x64', 'linux/amd64'],
    ['linux', 'arm64', 'linux/arm64'],
    ['linux', 'arm', 'linux/arm/v7'],
    ['win32', 'ia32', 'windows/386'],
  ])('a host of %s on %s is %s', (os, architecture, expected) => {
    expect(formatPlatform(hostPlatform(os, architecture))).toBe(expected);
  });
});

describe('selectPlatform', () => {
  const images = (...names: string[]) =>
    names.map((name) => {
      const [os = '', architecture = '', variant] = name.split('/');
      return { name, platform: { os, architecture, ...(variant === undefined ? {} : { variant }) } };
    });

  test.each([
    ['linux/arm/v7', ['linux/arm/v5', 'linux/arm/v6', 'linux/arm/v7', 'linux/arm64'], 'linux/arm/v7'],
    ['linux/arm/v7', ['linux/arm/v5', 'linux/arm/v6', 'linux/arm64'], 'linux/arm/v6'],
    ['linux/arm/v6', ['linux/arm/v7', 'linux/arm/v5'], 'linux/arm/v5'],
    ['linux/arm/v5', ['linux/arm/v7', 'linux/arm/v6'], undefined],
    ['linux/arm64', ['linux/arm/v7', 'linux/arm64/v8'], 'linux/arm64/v8'],
    ['linux/arm64', ['linux/amd64', 'linux/arm/v6'], 'linux/arm/v6'],
    ['linux/arm64/v9', ['linux/arm64', 'linux/arm64/v8.5'], 'linux/arm64/v8.5'],
    ['linux/arm64/v8', ['linux/arm64/v9'], undefined],
    ['linux/amd64', ['linux/386', 'linux/amd64'], 'linux/amd64'],
    ['linux/amd64', ['linux/386'], 'linux/386'],
    ['linux/amd64', ['linux/amd64/v2'], undefined],
    ['linux/amd64/v3', ['linux/amd64', 'linux/amd64/v2', 'linux/amd64/v4'], 'linux/amd64/v2'],
    ['linux/amd64', ['windows/amd64', 'unknown/unknown'], undefined],
    ['linux/amd64', ['unknown/unknown', 'linux/amd64', 'linux/amd64/v1'], 'linux/amd64'],
    ['linux/s390x', ['linux/amd64', 'linux/s390x'], 'linux/s390x'],
  ])('for %s of %j takes %s', (wanted, offered, expected) => {
    expect(selectPlatform(images(...offered), parsePlatform(wanted, HOST))?.name).toBe(expected);
  });

  test('takes one that does not say its platform only when no other fits', () => {
    const silent = { name: 'silent', platform: undefined };
    expect(selectPlatform([silent, ...images('linux/amd64')], HOST)?.name).toBe('linux/amd64');
    expect(selectPlatform([...images('windows/amd64'), silent], HOST)?.name).toBe('silent');
    expect(selectPlatform([], HOST)).toBeUndefined();
  });

  test('measures how far a platform is from the wanted one', () => {
    expect(platformDistance({ os: 'linux', architecture: 'x86_64' }, HOST)).toBe(0);
    expect(platformDistance({ os: 'linux', architecture: '386' }, HOST)).toBe(1);
    expect(platformDistance({ os: 'linux', architecture: 'arm64' }, HOST)).toBeUndefined();
    expect(normalizePlatform({ os: 'linux', architecture: 'arm64', variant: 'v8' })).toEqual({
      os: 'linux',
      architecture: 'arm64',
    });
  });
});
