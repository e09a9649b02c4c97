import { describe, expect, test } from 'bun:test';
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { ApiClient, readTokenFile } from '../../../src/cli/api-client.ts';
import { serveOnAddress, serveOnSocket } from '../../../src/cli/http-server.ts';
import type { GatewayApp } from '../../../src/gateway/index.ts';
import {
  fetchReportSchema,
  registerProgressSchema,
  serverMessageSchema,
} from '../../../src/protocol/index.ts';
import { errorOf, temporaryDirectory } from '../database/world.ts';
import { openGatewayWorld } from '../gateway/world.ts';

const FETCHED = {
  image_compressed_bytes: 5,
  bytes_fetched: 3,
  bytes_fetched_by_cause: { demand: 3 },
  requests: 1,
  requests_by_cause: { demand: 1 },
  fallbacks: [],
  index: { digest: 'a'.repeat(64), artifact: null },
  failures: {},
  last_failure: null,
  waiting_reads: 0,
  driver: 'kernel',
  timings_ms: { mount: 1 },
  warnings: [],
};

const list = z.object({ images: z.array(z.unknown()) });

describe('over the Unix socket', () => {
  test('the API answers the machine’s own user, without a token', async () => {
    await using world = await openGatewayWorld();
    const path = join(world.directory, 's');
    const server = serveOnSocket(world.app, path);
    try {
      const client = new ApiClient({ kind: 'socket', path });
      expect(await client.alive()).toBe(true);
      expect(await client.json(list, 'GET', '/v1/images')).toEqual({ images: [] });
      expect(statSync(path).mode & 0o777).toBe(0o600);
    } finally {
      await server.stop();
    }
    expect(await new ApiClient({ kind: 'socket', path }).alive()).toBe(false);
  });

  test('a file that a dead server left is replaced', async () => {
    await using world = await openGatewayWorld();
    const path = join(world.directory, 's');
    writeFileSync(path, '');
    const server = serveOnSocket(world.app, path);
    expect(await new ApiClient({ kind: 'socket', path }).alive()).toBe(true);
    await server.stop();
  });

  test('a path that is too long is named as the reason', async () => {
    await using world = await openGatewayWorld();
    const path = join(world.directory, 'x'.repeat(120));
    const error = await errorOf(() => serveOnSocket(world.app, path));
    expect(error).toMatchObject({ code: 'DATA_DIR', hint: expect.stringContaining('shorter --data-dir') });
  });
});

describe('a server of another version', () => {
  const answering = (lines: readonly object[]) => {
    const body = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
    return Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response(body) });
  };
  const read = async (lines: readonly object[]) => {
    await using server = answering(lines);
    const client = new ApiClient({ kind: 'url', url: server.url.origin });
    return await Array.fromAsync(client.lines(registerProgressSchema, 'POST', '/v1/images'));
  };
  const progress = { bytes: 1, bytes_total: 2, layers: 1, layers_done: 0, entries: 3 };

  test('may tell more than is known here: that is left out', async () => {
    const error = { code: 'INTERNAL', message: 'x' };
    const known = [
      { kind: 'step', step: 'resolve' },
      { kind: 'progress', ...progress },
      { kind: 'warning', message: 'x' },
      { kind: 'error', error },
    ];
    expect(await read(known.map((line) => ({ ...line, colour: 'red' })))).toMatchObject(known);
    const fetched = { ...FETCHED, colour: 'red', index: { ...FETCHED.index, colour: 'red' } };
    expect(fetchReportSchema.parse(fetched)).toEqual(FETCHED);
    expect(serverMessageSchema.parse({ event: 'exit', exit_code: 3, colour: 'red' })).toEqual({
      event: 'exit',
      exit_code: 3,
    });
  });

  test('that tells what is not understood is said to be one', async () => {
    expect(await errorOf(() => read([{ kind: 'unheard-of' }]))).toMatchObject({
      code: 'SERVER_UNREACHABLE',
      message: "the server's answer to POST /v1/images is not as expected",
      hint: expect.stringContaining('different versions'),
    });
  });
});

describe('over TCP', () => {
  test('the API wants the token, and a port in use is said to be so', async () => {
    await using world = await openGatewayWorld();
    const server = serveOnAddress(world.app, '127.0.0.1:0');
    try {
      const url = `http://${server.address}`;
      const without = new ApiClient({ kind: 'url', url });
      expect(await without.alive()).toBe(true);
      expect(await errorOf(() => without.json(list, 'GET', '/v1/images'))).toMatchObject({
        code: 'UNAUTHORIZED',
        hint: expect.stringContaining('Authorization: Bearer'),
      });
      const token = world.token('admin').reveal();
      const client = new ApiClient({ kind: 'url', url: `${url}/`, token });
      expect(await client.json(list, 'GET', '/v1/images')).toEqual({ images: [] });
      const elsewhere = new ApiClient({ kind: 'url', url, token }, 'no-such-workspace');
      expect(await errorOf(() => elsewhere.json(list, 'GET', '/v1/images'))).toMatchObject({
        code: 'NOT_FOUND',
      });
      const again = await errorOf(() => serveOnAddress(world.app, server.address));
      expect(again).toMatchObject({ code: 'PORT_IN_USE' });
    } finally {
      await server.stop();
    }
  });

  test('an address that is not this machine’s is refused', async () => {
    await using world = await openGatewayWorld();
    const error = await errorOf(() => serveOnAddress(world.app, '192.0.2.77:0'));
    expect(error).toMatchObject({ code: 'USAGE' });
  });
});

/** A client of a server that answers as told. */
async function withAnswer<T>(answer: () => Response, work: (client: ApiClient) => Promise<T>): Promise<T> {
  using directory = temporaryDirectory();
  const path = join(directory.path, 's');
  const app = { fetch: answer } as unknown as GatewayApp;
  const server = serveOnSocket(app, path);
  try {
    return await work(new ApiClient({ kind: 'socket', path }));
  } finally {
    await server.stop();
  }
}

describe('an answer', () => {
  const numbers = z.object({ n: z.number() });

  test('of lines is read across the pieces in which it comes, the last without an end too', async () => {
    const pieces = ['{"n":1}\n{"n"', ':2', '}\n\n{"n":3}'];
    const body = () =>
      new ReadableStream<Uint8Array>({
        pull(controller) {
          const piece = pieces.shift();
          if (piece === undefined) controller.close();
          else controller.enqueue(new TextEncoder().encode(piece));
        },
      });
    const seen = await withAnswer(
      () => new Response(body()),
      (client) => Array.fromAsync(client.lines(numbers, 'GET', '/x')),
    );
    expect(seen).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }]);
  });

  const errors: [name: string, answer: () => Response, code: string, message: string][] = [
    [
      'with an error of ours is thrown as that error',
      () => Response.json({ error: { code: 'CONFLICT', message: 'taken', hint: 'wait' } }, { status: 409 }),
      'CONFLICT',
      'taken',
    ],
    [
      'with an error that is not known here is internal',
      () => Response.json({ error: { code: 'NEW_KIND', message: 'new' } }, { status: 400 }),
      'INTERNAL',
      'new',
    ],
    [
      'of another program is said to be so',
      () => new Response('<html>', { status: 502 }),
      'SERVER_UNREACHABLE',
      'GET /x was answered with HTTP 502, not by imgcred',
    ],
    [
      'of another shape points at the versions',
      () => Response.json({ m: 1 }),
      'SERVER_UNREACHABLE',
      "the server's answer to GET /x is not as expected",
    ],
  ];
  for (const [name, answer, code, message] of errors) {
    test(name, async () => {
      const error = await withAnswer(answer, (client) => errorOf(() => client.json(numbers, 'GET', '/x')));
      expect(error).toMatchObject({ code, message });
    });
  }

  test('that leads elsewhere is not followed: the token would go with it', async () => {
    const redirect = () => new Response(null, { status: 302, headers: { location: 'http://192.0.2.1/' } });
    const error = await withAnswer(redirect, (client) => errorOf(() => client.fetch('GET', '/x')));
    expect(error).toMatchObject({ code: 'SERVER_UNREACHABLE' });
  });
});

describe('a token file', () => {
  test('gives its token without the line end', async () => {
    using directory = temporaryDirectory();
    const file = join(directory.path, 'token');
    writeFileSync(file, 'imgcred_x\n');
    expect(await readTokenFile(file)).toBe('imgcred_x');
  });
  test('that can’t be read is named', async () => {
    const error = await errorOf(() => readTokenFile('/no/such/file'));
    expect(error.message).toBe(
      "the token file /no/such/file can't be read (there is no such file or directory)",
    );
  });
});
