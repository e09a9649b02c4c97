import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import {
  type HttpServer,
  serveOnAddress,
  serveOnSocket,
  staysOnThisMachine,
} from '../../../src/cli/http-server.ts';
import { expectError, type GatewayWorld, openGatewayWorld } from '../gateway/world.ts';

let world: GatewayWorld;
let server: HttpServer;
let token: string;
beforeAll(async () => {
  world = await openGatewayWorld();
  token = world.token('admin').reveal();
  server = serveOnAddress(world.app, '127.0.0.1:0', undefined, 1);
});
afterAll(async () => {
  await server.stop();
  await world[Symbol.asyncDispose]();
});

/** Sends bytes, and resolves with all that came back once the server has closed the connection. */
function converse(
  text: string,
  onData: (soFar: string, end: () => void) => void = () => {},
): Promise<string> {
  const { hostname, port } = new URL(`http://${server.address}`);
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(Number(port), hostname, () => socket.write(text));
    socket.on('data', (data) => {
      answer += data.toString();
      onData(answer, () => socket.end());
    });
    socket.on('close', () => resolve(answer));
    socket.on('error', reject);
  });
}

describe('a connection over TCP', () => {
  test.concurrent('of a stranger that falls silent after its answer is closed', async () => {
    expect(await converse('GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n')).toStartWith('HTTP/1.1 200');
  }, 120_000);

  test.concurrent('of a stranger is answered before the body that he announces has come, and closed', async () => {
    const answer = await converse('POST /v1/images HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n{');
    expect(answer).toStartWith('HTTP/1.1 401');
  }, 120_000);

  test.concurrent('of somebody known stays open while he waits for an answer', async () => {
    const { container } = await world.furnish((await world.secrets.workspaces.ensure('waiting')).id);
    const path = `/v1/containers/${container.id}?wait=true`;
    const headers = `Host: a\r\nAuthorization: Bearer ${token}\r\nImgcred-Workspace: waiting\r\nConnection: close`;
    const answer = converse(`GET ${path} HTTP/1.1\r\n${headers}\r\n\r\n`);
    // Longer than the server bears a stranger: its clock ticks every four seconds.
    await Bun.sleep(9_000);
    await world.call(
      'socket',
      'POST',
      `/v1/containers/${container.id}/stop`,
      {},
      { 'imgcred-workspace': 'waiting' },
    );
    expect(await answer).toContain('"state":"cancelled"');
  }, 120_000);

  test('is no way to be taken for a user of the machine', async () => {
    for (const headers of [
      {},
      { 'x-forwarded-for': '127.0.0.1' },
      { host: 'localhost' },
      { authorization: '' },
    ]) {
      const answer = await fetch(`http://${server.address}/v1/secrets`, { headers });
      expect(answer.status).toBe(401);
    }
    const inQuery = await fetch(`http://${server.address}/v1/secrets?token=${token}&access_token=${token}`);
    expect(inQuery.status).toBe(401);
  });

  test('takes no body beyond its limit, announced or not', async () => {
    const headers = { authorization: `Bearer ${token}` };
    const huge = new Uint8Array(33 << 20).fill(0x20);
    const whole = await fetch(`http://${server.address}/v1/images`, { method: 'POST', headers, body: huge });
    expect(whole.status).toBe(413);
    const piece = new Uint8Array(1 << 20).fill(0x20);
    let sent = 0;
    const endless = new ReadableStream({
      pull(controller) {
        sent += 1;
        if (sent > 12) controller.close();
        else controller.enqueue(piece);
      },
    });
    const streamed = await fetch(`http://${server.address}/v1/images`, {
      method: 'POST',
      headers,
      body: endless,
    });
    expect([streamed.status, await streamed.text()]).toEqual([
      400,
      expect.stringContaining('larger than 8 MiB'),
    ]);
  });
});

test('a body that is not UTF-8 is refused, not mended', async () => {
  const bytes = Buffer.concat([Buffer.from('{"name":"a'), Buffer.of(0xff), Buffer.from('"}')]);
  const request = new Request('http://gateway/v1/workspaces', { method: 'POST', body: bytes });
  const answer = await world.app.fetch(request, { local: true, origin: 'unix socket' });
  expect([answer.status, await answer.text()]).toEqual([400, expect.stringContaining('not UTF-8')]);
});

test('a request without a valid token is logged with its origin, and without the token', async () => {
  const before = world.lines.length;
  const wrong = `imgcred_${'A'.repeat(49)}`;
  const headers = { authorization: `Bearer ${wrong}` };
  expectError(await world.call('nobody', 'GET', `/v1/images/${'x'.repeat(5000)}`, undefined, headers), 401);
  const logged = world.lines.slice(before).filter((line) => line.includes('"level":"warn"'));
  expect(logged).toHaveLength(1);
  expect(JSON.parse(logged[0] ?? '')).toMatchObject({ origin: '192.0.2.1', method: 'GET' });
  expect(logged[0]?.length).toBeLessThan(600);
  expect(logged[0]).not.toContain(wrong);
});

test.each([
  ['127.0.0.1:7480', true],
  ['localhost:80', true],
  ['[::1]:80', true],
  ['0.0.0.0:7480', false],
  ['[::]:7480', false],
  ['127.0.0.1.example.com:80', false],
  ['localhost.example.com:80', false],
] as const)('an API on %s stays on this machine: %p', (listen, stays) => {
  expect(staysOnThisMachine(listen)).toBe(stays);
});

test('the socket is for its owner alone', async () => {
  const path = join(world.directory, 'api.sock');
  const onSocket = serveOnSocket(world.app, path);
  try {
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const answer = await fetch('http://gateway/v1/secrets', { unix: path });
    expect(answer.status).toBe(200);
  } finally {
    await onSocket.stop();
  }
});
