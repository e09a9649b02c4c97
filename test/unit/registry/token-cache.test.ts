import { describe, expect, test } from 'bun:test';
import { Secret } from '../../../src/credentials/index.ts';
import { TokenCache } from '../../../src/registry/token-cache.ts';

function setUp(lifetimeSeconds = 100) {
  const clock = { now: 1_000_000 };
  const cache = new TokenCache({ now: () => clock.now, random: () => 0 });
  let issued = 0;
  const fetch = async () => {
    issued += 1;
    return { token: new Secret(`token ${issued}`), lifetimeSeconds };
  };
  const get = async (key = 'k') => (await cache.get(key, fetch)).cached.token.reveal();
  return { clock, cache, get, fetch, count: () => issued };
}

describe('TokenCache', () => {
  test('fetches once for all that ask at the same time', async () => {
    const { get, count } = setUp();
    expect(await Promise.all([get(), get(), get()])).toEqual(['token 1', 'token 1', 'token 1']);
    expect(count()).toBe(1);
  });

  test('keeps keys apart', async () => {
    const { get } = setUp();
    expect([await get('a'), await get('b'), await get('a')]).toEqual(['token 1', 'token 2', 'token 1']);
  });

  test('renews beside the running requests, before the end', async () => {
    const { clock, get, count } = setUp();
    await get();
    clock.now += 69_000;
    await get();
    expect(count()).toBe(1);
    clock.now += 2000;
    expect(await get()).toBe('token 1');
    expect(count()).toBe(2);
    expect(await get()).toBe('token 2');
  });

  test('does not use the last part of a life', async () => {
    const { clock, get } = setUp();
    await get();
    clock.now += 95_000;
    expect(await get()).toBe('token 2');
  });

  test('does not drop a token that has been replaced meanwhile', async () => {
    const { cache, fetch, get } = setUp();
    const { cached } = await cache.get('k', fetch);
    cache.drop('k', cached);
    expect(await get()).toBe('token 2');
    cache.drop('k', cached);
    expect(await get()).toBe('token 2');
  });

  test('one caller that gives up does not take the token from the others', async () => {
    const cache = new TokenCache({ now: () => 0, random: () => 0 });
    const gate = Promise.withResolvers<{ token: Secret<string>; lifetimeSeconds: number }>();
    const abortion = new AbortController();
    const first = cache.get('k', () => gate.promise, abortion.signal);
    const second = cache.get('k', () => gate.promise);
    abortion.abort();
    await expect(first).rejects.toMatchObject({ code: 'CANCELLED' });
    gate.resolve({ token: new Secret('t'), lifetimeSeconds: 60 });
    expect((await second).cached.token.reveal()).toBe('t');
  });

  test('asks again after a fetch that failed', async () => {
    const { cache, get } = setUp();
    await expect(cache.get('k', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(await get()).toBe('token 1');
  });
});
