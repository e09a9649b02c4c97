import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { type GatewayWorld, openGatewayWorld } from '../gateway/world.ts';

let world: GatewayWorld;
beforeAll(async () => {
  world = await openGatewayWorld();
  await world.furnish(world.workspace);
});
afterAll(() => world[Symbol.asyncDispose]());

const send = (target: string, headers: Record<string, string> = {}, method = 'GET') =>
  world.app.fetch(new Request(target, { method, headers }), { local: false, origin: '192.0.2.1' });

describe('without a token nothing is answered but that it is missing', () => {
  const paths = [
    '/v1/secrets',
    '/v1/secrets/',
    '//v1/secrets',
    '/v1//secrets',
    '/V1/secrets',
    '/%76%31/secrets',
    '/v1%2fsecrets',
    '/v1/./secrets',
    '/healthz/../v1/secrets',
    '/healthz/v1/secrets',
    '/v1/secrets?everywhere=true',
    '/v1/secrets;x=/healthz',
    '/v1/secrets%00',
    '/v1/worker/next',
    '/v1/worker/../secrets',
    '/v1/secrets#/healthz',
    '/v1/%',
    '/v1/%ff',
  ];
  for (const path of paths) {
    for (const method of ['GET', 'HEAD', 'POST', 'OPTIONS', 'PURGE']) {
      test(`${method} ${path}`, async () => {
        const answer = await send(`http://gateway${path}`, {}, method);
        expect([401, 404]).toContain(answer.status);
        expect(await answer.text()).not.toContain('api-key');
      });
    }
  }
});

describe('a header that means to be taken for an identity', () => {
  const headers: Record<string, string>[] = [
    { authorization: '' },
    { authorization: 'Bearer' },
    { authorization: 'Bearer ' },
    { authorization: 'Bearer undefined' },
    { authorization: 'Bearer null' },
    { authorization: `Basic ${btoa('admin:admin')}` },
    { 'proxy-authorization': 'Bearer TOKEN' },
    { cookie: 'token=TOKEN' },
    { 'x-api-key': 'TOKEN' },
    { 'x-forwarded-for': '127.0.0.1', 'x-real-ip': '127.0.0.1', forwarded: 'for=unix' },
    { 'imgcred-workspace': 'default' },
    { local: 'true', host: 'imgcred' },
    { 'x-http-method-override': 'GET', authorization: 'Token TOKEN' },
    { authorization: 'Bearer TOKEN, Bearer TOKEN' },
    { authorization: 'Bearer TOKEN TOKEN' },
    { authorization: 'Bearer \u00a0TOKEN' },
    { authorization: 'BearerTOKEN' },
  ];
  for (const [at, given] of headers.entries()) {
    test(`is refused: ${JSON.stringify(given)}`, async () => {
      const token = world.token('admin').reveal();
      const filled = Object.entries(given).map(([name, value]) => [name, value.replaceAll('TOKEN', token)]);
      const answer = await send('http://gateway/v1/secrets', Object.fromEntries(filled));
      expect([at, answer.status]).toEqual([at, 401]);
      expect(await answer.text()).not.toContain(token);
    });
  }

  test('names a workspace exactly, or none', async () => {
    const bound = world.token('admin', world.workspace);
    for (const name of [
      'DEFAULT',
      ' default',
      'default,other',
      '*',
      '%',
      "' OR 1=1 --",
      '../default',
      'ws_',
    ]) {
      const answer = await world.call(bound, 'GET', '/v1/secrets', undefined, { 'imgcred-workspace': name });
      expect([name, answer.status]).toEqual([name, name === ' default' ? 200 : 404]);
    }
  });
});
