import { describe, expect, test } from 'bun:test';
import {
  anonymousProvider,
  createProviderFromCredentials,
  type Login,
  LoginCache,
  RotatingProvider,
  Secret,
} from '../../../src/credentials/index.ts';

const HOUR = 3_600_000;

function counted(life: number, now: () => number) {
  const state = { fetched: 0, failing: false };
  const fetchLogin = async () => {
    if (state.failing) throw new Error('service down');
    state.fetched += 1;
    const login: Login = { kind: 'basic', username: `u${state.fetched}`, password: new Secret('p') };
    return { login, expiresAt: now() + life };
  };
  return { state, fetchLogin };
}

describe('LoginCache', () => {
  test('keeps a login until shortly before it expires', async () => {
    let time = 0;
    const cache = new LoginCache({ now: () => time, random: () => 0 });
    const { state, fetchLogin } = counted(12 * HOUR, () => time);
    const first = await cache.get('k', fetchLogin);
    time = 12 * HOUR - 5 * 60_000 - 1;
    expect(await cache.get('k', fetchLogin)).toBe(first);
    time += 1;
    expect(await cache.get('k', fetchLogin)).not.toBe(first);
    expect(state.fetched).toBe(2);
  });

  test('lets concurrent callers of a key share one fetch, and those of another have their own', async () => {
    const cache = new LoginCache();
    const gate = Promise.withResolvers<void>();
    const { state, fetchLogin } = counted(HOUR, Date.now);
    const waiting = async () => {
      await gate.promise;
      return fetchLogin();
    };
    const all = Array.from({ length: 50 }, () => cache.get('k', waiting));
    const other = cache.get('other', waiting);
    gate.resolve();
    const logins = await Promise.all(all);
    expect(new Set(logins).size).toBe(1);
    expect(await other).not.toBe(logins[0]);
    expect(state.fetched).toBe(2);
  });

  test('lets a caller go without ending the fetch for the others', async () => {
    const cache = new LoginCache();
    const gate = Promise.withResolvers<void>();
    const { fetchLogin } = counted(HOUR, Date.now);
    const waiting = async () => {
      await gate.promise;
      return fetchLogin();
    };
    const impatient = new AbortController();
    const left = cache.get('k', waiting, impatient.signal);
    const stays = cache.get('k', waiting);
    impatient.abort(new Error('gone'));
    await expect(left).rejects.toThrow('gone');
    gate.resolve();
    expect((await stays).kind).toBe('basic');
  });

  test('fetches once again for a refused login, and then gives in', async () => {
    let time = 0;
    const cache = new LoginCache({ now: () => time, random: () => 0 });
    const { state, fetchLogin } = counted(12 * HOUR, () => time);
    const first = await cache.get('k', fetchLogin);
    time = HOUR;
    expect(cache.refused('k', first)).toBe(true);
    const second = await cache.get('k', fetchLogin);
    // Ten more requests that had gone out with the first.
    for (let i = 0; i < 10; i++) expect(cache.refused('k', first)).toBe(true);
    expect(await cache.get('k', fetchLogin)).toBe(second);
    expect(cache.refused('k', second)).toBe(false);
    expect(await cache.get('k', fetchLogin)).toBe(second);
    expect(state.fetched).toBe(2);
    time += HOUR;
    expect(cache.refused('k', second)).toBe(true);
  });

  test('goes on with a login that has not expired when a new one cannot be had', async () => {
    let time = 0;
    const cache = new LoginCache({ now: () => time, random: () => 0 });
    const { state, fetchLogin } = counted(HOUR, () => time);
    const first = await cache.get('k', fetchLogin);
    state.failing = true;
    time = HOUR - 60_000;
    expect(await cache.get('k', fetchLogin)).toBe(first);
    time = HOUR;
    await expect(cache.get('k', fetchLogin)).rejects.toThrow('service down');
    state.failing = false;
    expect(await cache.get('k', fetchLogin)).not.toBe(first);
  });

  test('does not remember a failure', async () => {
    const cache = new LoginCache();
    const { state, fetchLogin } = counted(HOUR, Date.now);
    state.failing = true;
    await expect(cache.get('k', fetchLogin)).rejects.toThrow('service down');
    state.failing = false;
    expect((await cache.get('k', fetchLogin)).kind).toBe('basic');
  });

  test('does not grow without end', async () => {
    const cache = new LoginCache();
    const { state, fetchLogin } = counted(HOUR, Date.now);
    for (let i = 0; i < 1500; i++) await cache.get(`k${i}`, fetchLogin);
    await cache.get('k1499', fetchLogin);
    expect(state.fetched).toBe(1500);
    await cache.get('k0', fetchLogin);
    expect(state.fetched).toBe(1501);
  });
});

describe('RotatingProvider', () => {
  const basic = (password: string) =>
    createProviderFromCredentials('a.example', { USERNAME: 'u', PASSWORD: password });

  test('gives the logins of what it was last told', async () => {
    const provider = new RotatingProvider(basic('old'));
    const old = await provider.login();
    provider.replace(basic('new'));
    const next = await provider.login();
    expect(next.kind === 'basic' && next.password.reveal()).toBe('new');
    expect(provider.refused(old)).toBe(true);
    expect(provider.refused(next)).toBe(false);
    expect(provider.type).toBe('basic');
  });

  test('does not take credentials of another registry', () => {
    const provider = new RotatingProvider(basic('old'));
    expect(() => provider.replace(anonymousProvider('b.example'))).toThrow(/cannot replace/);
    provider.replace(anonymousProvider('A.example:443'));
    expect(provider.type).toBe('public');
  });
});
