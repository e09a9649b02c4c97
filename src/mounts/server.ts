import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { VERSION } from '../config/index.ts';
import { ContentStore } from '../content/index.ts';
import { Secret } from '../credentials/index.ts';
import { ImgcredError, toImgcredError } from '../errors/index.ts';
import { duplicateDescriptorOf, forbidCoreDumps } from '../filesystem/index.ts';
import { createLogger, type Logger } from '../observability/index.ts';
import { AccessProofs } from './access-proofs.ts';
import { chooseDriver } from './driver.ts';
import { LiveMount, type LiveMountContext } from './live-mount.ts';
import { type MountServerSettings, mountRequestSchema, mountServerSettingsSchema } from './messages.ts';
import { Prefetcher } from './prefetcher.ts';

/** Printed on standard output once the socket answers; nothing else ever is. */
export const READY_LINE = 'ready\n';

const credentialSchema = z.strictObject({ image_credentials: z.string().optional() });
const resumeSchema = mountRequestSchema.extend({ holder_pid: z.int(), holder_descriptor: z.int() });

/**
 * The process that serves mounts: a read that waits for a registry blocks nobody but its reader, and the mounts
 * outlive the worker that asked for them. It speaks HTTP on a Unix socket that its own user alone may open, and
 * ends when it is told to.
 *
 * Nothing here may touch a path below a mount point: this process would wait for itself.
 *
 * @param input the settings, as JSON
 */
export async function runMountServer(input: string): Promise<void> {
  const settings = mountServerSettingsSchema.parse(JSON.parse(input));
  const logger = createLogger({
    level: settings.log_level,
    write: (line) => process.stderr.write(line),
  }).with({ role: 'mount-server' });
  // Not for an ordinary user's: the worker must be able to duplicate the mounts' descriptors, and has no other right to.
  if (process.geteuid?.() === 0) forbidCoreDumps();
  const ended = Promise.withResolvers<void>();
  const server = await MountServer.start(settings, logger, ended.resolve);
  process.stdout.write(READY_LINE);
  // A worker that goes away doesn't end us; a person who wants that says SIGTERM.
  process.on('SIGHUP', () => {});
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => ended.resolve());
  await ended.promise;
  await server.stop();
}

class MountServer {
  readonly #mounts = new Map<string, Promise<LiveMount>>();
  readonly #context: LiveMountContext;
  readonly #settings: MountServerSettings;
  readonly #prefetcher: Prefetcher;
  readonly #end: () => void;
  #server: { stop(force?: boolean): Promise<void> } | undefined;

  private constructor(settings: MountServerSettings, context: LiveMountContext, end: () => void) {
    this.#settings = settings;
    this.#context = context;
    this.#end = end;
    this.#prefetcher = new Prefetcher(
      join(settings.state_directory, 'traces'),
      settings.prefetch,
      context.logger,
    );
  }

  static async start(settings: MountServerSettings, logger: Logger, end: () => void): Promise<MountServer> {
    mkdirSync(settings.state_directory, { recursive: true, mode: 0o700 });
    const store = await ContentStore.open(settings.cache_directory, {
      logger,
      ...(settings.cache_limit === undefined ? {} : { limitBytes: settings.cache_limit }),
    });
    const server = new MountServer(
      settings,
      {
        store,
        registry: { insecureRegistries: settings.insecure_registries, caFiles: settings.registry_ca, logger },
        proofs: new AccessProofs(join(settings.state_directory, 'proofs')),
        driver: chooseDriver(settings.fuse_driver).driver,
        readTimeoutMs: settings.read_timeout_ms,
        statePath: (mountId) => join(settings.state_directory, `${mountId}.mount`),
        logger,
      },
      end,
    );
    server.#listen();
    return server;
  }

  #listen(): void {
    rmSync(this.#settings.socket, { force: true });
    const before = process.umask(0o177);
    try {
      this.#server = Bun.serve({
        unix: this.#settings.socket,
        routes: {
          '/healthz': () => Response.json({ pid: process.pid, version: VERSION, mounts: this.#mounts.size }),
          '/mounts': {
            GET: () => answer(async () => ({ mounts: await this.#views() })),
            POST: (request) =>
              answer(async () => (await this.#mount(mountRequestSchema.parse(await request.json()))).view()),
          },
          '/mounts/:id': {
            GET: (request) => answer(async () => (await this.#get(request.params.id)).view()),
            DELETE: (request) => answer(() => this.#unmount(request.params.id)),
          },
          '/mounts/:id/credential': {
            PUT: (request) =>
              answer(async () => {
                const { image_credentials } = credentialSchema.parse(await request.json());
                await (await this.#get(request.params.id)).useCredential(secretOf(image_credentials));
                return {};
              }),
          },
          '/resume': {
            POST: (request) =>
              answer(async () => (await this.#resume(resumeSchema.parse(await request.json()))).view()),
          },
          '/shutdown': {
            POST: () => {
              setTimeout(this.#end, 0);
              return Response.json({});
            },
          },
        },
        fetch: () => Response.json(new ImgcredError('NOT_FOUND', 'no such route'), { status: 404 }),
      });
    } finally {
      process.umask(before);
    }
    chmodSync(this.#settings.socket, 0o600);
  }

  async stop(): Promise<void> {
    for (const id of [...this.#mounts.keys()]) {
      await this.#unmount(id).catch((thrown: unknown) => {
        this.#context.logger.error('unmounting failed', { mount_id: id, error: String(thrown) });
      });
    }
    await this.#context.store.close();
    await this.#server?.stop(true);
    rmSync(this.#settings.socket, { force: true });
  }

  async #mount(request: ReturnType<typeof mountRequestSchema.parse>): Promise<LiveMount> {
    const credential = secretOf(request.image_credentials);
    const known = this.#mounts.get(request.mount_id);
    if (known !== undefined) {
      const mount = await known;
      await mount.useCredential(credential);
      return mount;
    }
    // The mount keeps its request, for those who ask what it is: without the credential.
    const { image_credentials: _, ...plain } = request;
    return this.#open(request.mount_id, LiveMount.open(plain, credential, this.#context));
  }

  async #resume(request: z.infer<typeof resumeSchema>): Promise<LiveMount> {
    const { image_credentials, holder_pid, holder_descriptor, ...plain } = request;
    const known = this.#mounts.get(plain.mount_id);
    if (known !== undefined) return known;
    const descriptor = duplicateDescriptorOf(holder_pid, holder_descriptor);
    return this.#open(
      plain.mount_id,
      LiveMount.open(plain, secretOf(image_credentials), this.#context, descriptor),
    );
  }

  async #open(id: string, opening: Promise<LiveMount>): Promise<LiveMount> {
    this.#mounts.set(id, opening);
    try {
      const mount = await opening;
      this.#prefetcher.begin(mount);
      return mount;
    } catch (thrown) {
      this.#mounts.delete(id);
      throw thrown;
    }
  }

  async #unmount(id: string): Promise<Record<string, never>> {
    const mount = await this.#get(id);
    this.#mounts.delete(id);
    await this.#prefetcher.end(mount);
    await mount.close();
    rmSync(this.#context.statePath(id), { force: true });
    return {};
  }

  async #get(id: string): Promise<LiveMount> {
    const mount = this.#mounts.get(id);
    if (mount === undefined) throw new ImgcredError('NOT_FOUND', `there is no mount ${id}`);
    return mount;
  }

  async #views() {
    const settled = await Promise.allSettled(this.#mounts.values());
    return settled.flatMap((mount) => (mount.status === 'fulfilled' ? [mount.value.view()] : []));
  }
}

function secretOf(text: string | undefined): Secret<string> | undefined {
  return text === undefined ? undefined : new Secret(text);
}

async function answer(work: () => Promise<unknown>): Promise<Response> {
  try {
    return Response.json(await work());
  } catch (thrown) {
    const error = toImgcredError(thrown);
    return Response.json(error, { status: error.status });
  }
}
