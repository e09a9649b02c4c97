import { afterEach, describe, expect, test } from 'bun:test';
import { anonymousProvider } from '../../../src/credentials/index.ts';
import { digestOf } from '../../../src/reference/index.ts';
import { RegistryClient } from '../../../src/registry/index.ts';
import { type ScriptedServer, startScriptedServer } from '../../fixtures/registry/index.ts';

const REPOSITORY = 'team/app';
const content = new Uint8Array(1_000_000).fill(7);
const blob = { digest: digestOf(content), size: content.length };

let server: ScriptedServer;
let bodies: { sent: number; closed: boolean }[];

afterEach(() => server[Symbol.asyncDispose]());

/** A body that never ends, of which is written down how much of it was taken. */
function endless(headers: Record<string, string>, status: number): Response {
  const body = { sent: 0, closed: false };
  bodies.push(body);
  const stream = new ReadableStream<Uint8Array>({
    async pull(controller) {
      await Bun.sleep(0);
      body.sent += 65_536;
      controller.enqueue(new Uint8Array(65_536).fill(7));
    },
    cancel() {
      body.closed = true;
    },
  });
  return new Response(stream, { status, headers });
}

function start(answer: () => Response): RegistryClient {
  bodies = [];
  server = startScriptedServer(({ path }) => (path === '/v2/' ? new Response('{}') : answer()));
  return new RegistryClient(server.host, anonymousProvider(server.host));
}

describe('a body without an end', () => {
  test('to a range is cut off where the range ends, and is no answer', async () => {
    const range = 'bytes 1000-200999/1000000';
    using client = start(() => endless({ 'content-range': range }, 206));
    await expect(client.readRange(REPOSITORY, blob, 1000, 200_000)).rejects.toMatchObject({
      code: 'CORRUPT',
      message: expect.stringContaining('more bytes'),
    });
    while (!bodies.every(({ closed }) => closed)) await Bun.sleep(1);
    expect(bodies[0]?.sent).toBeLessThan(8_000_000);
  }, 10_000);

  test('in place of a range is read as far as the blob goes', async () => {
    using client = start(() => endless({}, 200));
    const answer = await client.readRange(REPOSITORY, blob, 1000, 200_000);
    if (answer.kind !== 'whole') throw new Error('a range');
    let length = 0;
    const reading = (async () => {
      for await (const chunk of answer.stream) length += chunk.length;
    })();
    await expect(reading).rejects.toMatchObject({ code: 'CORRUPT' });
    expect(length).toBeLessThanOrEqual(blob.size);
    while (!bodies.every(({ closed }) => closed)) await Bun.sleep(1);
  }, 10_000);
});
