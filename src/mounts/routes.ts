import { chmodSync, rmSync } from 'node:fs';
import { z } from 'zod';
import { ImgcredError, toImgcredError } from '../errors/index.ts';
import { pruneCacheSchema } from '../protocol/index.ts';
import {
  handOverSchema,
  holderSchema,
  imageContentSchema,
  mountRequestSchema,
  resumeSchema,
} from './messages.ts';
import type { MountServer } from './server.ts';

const credentialSchema = z.strictObject({ image_credentials: z.string().optional() });
const lingerSchema = z.strictObject({ ms: z.int().min(0).max(86_400_000) });
const unpinSchema = z.strictObject({ workspace_id: z.string(), named: z.string() });

// A proof of access may wait for a slow registry. Bun's types know the option for TCP only, but it ends an answer on
// a Unix socket all the same, after 10 s.
const NO_IDLE_TIMEOUT: object = { idleTimeout: 0 };

/** Serves a mount server's methods as HTTP on a Unix socket of mode 0600. */
export function serveRoutes(server: MountServer, socket: string): { stop(force?: boolean): Promise<void> } {
  rmSync(socket, { force: true });
  const before = process.umask(0o177);
  try {
    const listener = Bun.serve({
      unix: socket,
      ...NO_IDLE_TIMEOUT,
      routes: {
        '/healthz': () => Response.json(server.health()),
        '/mounts': {
          GET: () => answer(() => ({ mounts: server.list().map((mount) => mount.view()) })),
          POST: (request) =>
            answer(async () => (await server.mount(mountRequestSchema.parse(await request.json()))).view()),
        },
        '/mounts/:id': {
          GET: (request) => answer(() => server.get(request.params.id).view()),
          DELETE: (request) => answer(async () => ({ start: await server.unmount(request.params.id) })),
        },
        '/mounts/:id/held': {
          GET: (request) =>
            answer(() => {
              const mount = server.get(request.params.id);
              return { view: mount.view(), image_credentials: mount.credential?.reveal() };
            }),
        },
        '/mounts/:id/credential': {
          PUT: (request) =>
            answer(async () => {
              const { image_credentials } = credentialSchema.parse(await request.json());
              await server.useCredential(request.params.id, image_credentials);
            }),
          DELETE: (request) => answer(() => server.dropCredential(request.params.id)),
        },
        '/mounts/:id/linger': {
          PUT: (request) =>
            answer(async () => {
              const { ms } = lingerSchema.parse(await request.json());
              return { start: await server.linger(request.params.id, ms) };
            }),
        },
        '/mounts/:id/start': {
          DELETE: (request) => answer(() => ({ start: server.takeStart(request.params.id) })),
        },
        '/mounts/:id/pin': {
          POST: (request) =>
            answer(() => {
              server.get(request.params.id);
              return lines(server.pin(request.params.id, request.signal));
            }),
        },
        '/resume': {
          POST: (request) =>
            answer(async () => (await server.resume(resumeSchema.parse(await request.json()))).view()),
        },
        '/content': {
          POST: (request) =>
            answer(async () => server.contentState(imageContentSchema.parse(await request.json()))),
        },
        '/pins': {
          GET: () => answer(() => ({ pins: server.listPins() })),
          DELETE: (request) =>
            answer(async () => {
              const { workspace_id, named } = unpinSchema.parse(await request.json());
              return server.unpin(workspace_id, named);
            }),
        },
        '/cache': {
          GET: () => answer(() => ({ entries: server.cacheList(), status: server.cacheStatus() })),
        },
        '/cache/prune': {
          POST: (request) =>
            answer(async () => server.cachePrune(pruneCacheSchema.parse(await request.json()))),
        },
        '/totals': { GET: () => answer(() => server.totals()) },
        '/holder': {
          PUT: (request) => answer(async () => server.hold(holderSchema.parse(await request.json()).pid)),
        },
        '/hand-over': {
          POST: (request) => answer(async () => server.handOver(handOverSchema.parse(await request.json()))),
        },
        '/shutdown': { POST: () => answer(() => server.shutdown()) },
      },
      fetch: () => Response.json(new ImgcredError('NOT_FOUND', 'no such route'), { status: 404 }),
    });
    chmodSync(socket, 0o600);
    return listener;
  } finally {
    process.umask(before);
  }
}

/** The result of `work` as JSON, or as it is where it is an answer already. */
async function answer(work: () => unknown): Promise<Response> {
  try {
    const result = await work();
    return result instanceof Response ? result : Response.json(result ?? {});
  } catch (thrown) {
    const error = toImgcredError(thrown);
    return Response.json(error, { status: error.status });
  }
}

/** What comes, as lines of JSON; a client that goes away ends it. */
function lines(source: AsyncGenerator<unknown>): Response {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { value, done } = await source.next();
        if (done) controller.close();
        else controller.enqueue(encoder.encode(`${JSON.stringify(value)}\n`));
      } catch (thrown) {
        const line = { kind: 'error', ...toImgcredError(thrown).toJSON() };
        controller.enqueue(encoder.encode(`${JSON.stringify(line)}\n`));
        controller.close();
      }
    },
    async cancel() {
      await source.return(undefined);
    },
  });
  return new Response(body, { headers: { 'content-type': 'application/x-ndjson' } });
}
