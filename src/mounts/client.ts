import { z } from 'zod';
import { Secret } from '../credentials/index.ts';
import { ImgcredError, systemErrorCode } from '../errors/index.ts';
import {
  type CacheEntryView,
  type CacheStatusView,
  type ContentState,
  cacheEntrySchema,
  cacheStatusSchema,
  contentStateSchema,
  errorOfResponse,
  type PinLine,
  type PruneCache,
  type PrunedCache,
  pinLineSchema,
  prunedCacheSchema,
  type RecordedStart,
} from '../protocol/index.ts';
import {
  handedOverSchema,
  healthSchema,
  heldMountViewSchema,
  type MountRequest,
  type MountServerTotals,
  type MountView,
  mountServerTotalsSchema,
  mountViewSchema,
  type NamedContent,
  type Pin,
  pinSchema,
  takenStartSchema,
} from './messages.ts';

/** A worker's end of the socket to its mount server. */
export class MountClient {
  readonly #socket: string;

  constructor(socket: string) {
    this.#socket = socket;
  }

  /** Says which process the server works for: without one, and without mounts, it ends. */
  async hold(pid: number): Promise<void> {
    try {
      await this.#call('PUT', '/holder', z.object({}), { pid });
    } catch (thrown) {
      // One of an older version, which does not ask.
      if (!(thrown instanceof ImgcredError) || thrown.code !== 'NOT_FOUND') throw thrown;
    }
  }

  mount(request: MountRequest): Promise<MountView> {
    return this.#call('POST', '/mounts', mountViewSchema, request);
  }

  resume(request: MountRequest & { holder_pid: number; holder_descriptor: number }): Promise<MountView> {
    return this.#call('POST', '/resume', mountViewSchema, request);
  }

  async useCredential(mountId: string, imageCredentials: string): Promise<void> {
    const body = { image_credentials: imageCredentials };
    await this.#call('PUT', `/mounts/${mountId}/credential`, z.object({}), body);
  }

  async dropCredential(mountId: string): Promise<void> {
    await this.#call('DELETE', `/mounts/${mountId}/credential`, z.object({}));
  }

  show(mountId: string): Promise<MountView> {
    return this.#call('GET', `/mounts/${mountId}`, mountViewSchema);
  }

  async list(): Promise<MountView[]> {
    return (await this.#call('GET', '/mounts', z.object({ mounts: z.array(mountViewSchema) }))).mounts;
  }

  /** A mount with what opens its image: to take it up where an earlier worker left it. */
  async held(mountId: string): Promise<{ view: MountView; credential: Secret<string> | undefined }> {
    const { view, image_credentials } = await this.#call(
      'GET',
      `/mounts/${mountId}/held`,
      heldMountViewSchema,
    );
    return { view, credential: image_credentials === undefined ? undefined : new Secret(image_credentials) };
  }

  /** Pins a mount's image and makes it wholly local; ends early with `signal`. */
  async *pin(mountId: string, signal?: AbortSignal): AsyncGenerator<PinLine> {
    const response = await this.#fetch('POST', `/mounts/${mountId}/pin`, undefined, signal);
    if (!response.ok) throw await errorOf(response);
    let pending = '';
    const decoder = new TextDecoder();
    for await (const chunk of response.body ?? []) {
      pending += decoder.decode(chunk, { stream: true });
      const lines = pending.split('\n');
      pending = lines.pop() ?? '';
      for (const line of lines) yield pinLineSchema.parse(JSON.parse(line));
    }
  }

  unpin(workspaceId: string, named: string): Promise<Pin> {
    return this.#call('DELETE', '/pins', pinSchema, { workspace_id: workspaceId, named });
  }

  async pins(): Promise<Pin[]> {
    return (await this.#call('GET', '/pins', z.object({ pins: z.array(pinSchema) }))).pins;
  }

  contentState(content: NamedContent): Promise<ContentState> {
    return this.#call('POST', '/content', contentStateSchema, content);
  }

  cache(): Promise<{ entries: CacheEntryView[]; status: CacheStatusView }> {
    const schema = z.object({ entries: z.array(cacheEntrySchema), status: cacheStatusSchema });
    return this.#call('GET', '/cache', schema);
  }

  /** What all mounts of the server have done; undefined where it is of an older version and does not count. */
  async totals(): Promise<MountServerTotals | undefined> {
    try {
      return await this.#call('GET', '/totals', mountServerTotalsSchema);
    } catch (thrown) {
      if (thrown instanceof ImgcredError && thrown.code === 'NOT_FOUND') return undefined;
      throw thrown;
    }
  }

  prune(options: PruneCache): Promise<PrunedCache> {
    return this.#call('POST', '/cache/prune', prunedCacheSchema, options);
  }

  /** Unmounts; answers what the mount's start touched, as `takeStart`. */
  async unmount(mountId: string): Promise<RecordedStart | undefined> {
    return (await this.#call('DELETE', `/mounts/${mountId}`, takenStartSchema)).start;
  }

  /** What a mount's start touched; undefined where that is not known yet, or was taken before. */
  async takeStart(mountId: string): Promise<RecordedStart | undefined> {
    return (await this.#call('DELETE', `/mounts/${mountId}/start`, takenStartSchema)).start;
  }

  /** Unmounts after `ms`, unless it is mounted again until then; answers as `unmount`. */
  async linger(mountId: string, ms: number): Promise<RecordedStart | undefined> {
    try {
      return (await this.#call('PUT', `/mounts/${mountId}/linger`, takenStartSchema, { ms })).start;
    } catch (thrown) {
      // A server of an older version does not know how.
      if (!(thrown instanceof ImgcredError) || thrown.code !== 'NOT_FOUND') throw thrown;
      return this.unmount(mountId);
    }
  }

  /** Has the server let go of all mounts, for another process to go on with them. */
  handOver(successorPid: number): Promise<z.infer<typeof handedOverSchema>> {
    return this.#call('POST', '/hand-over', handedOverSchema, { successor_pid: successorPid });
  }

  /** @throws ImgcredError CONFLICT while a mount is in use */
  async shutdown(): Promise<void> {
    await this.#call('POST', '/shutdown', z.object({}));
  }

  /** What answers on the socket; undefined where nobody does. */
  async health(): Promise<z.infer<typeof healthSchema> | undefined> {
    try {
      return await this.#call('GET', '/healthz', healthSchema);
    } catch (thrown) {
      if (thrown instanceof ImgcredError && thrown.code === 'SERVER_UNREACHABLE') return undefined;
      throw thrown;
    }
  }

  async #call<T>(method: string, path: string, schema: z.ZodType<T>, body?: unknown): Promise<T> {
    const response = await this.#fetch(method, path, body);
    if (!response.ok) throw await errorOf(response);
    const answer = schema.safeParse(await response.json());
    if (answer.success) return answer.data;
    throw new ImgcredError('SERVER_UNREACHABLE', 'the mount server is of a version that is not understood', {
      hint: 'end the containers and mounts that it serves: then one of this version is started',
      cause: answer.error,
    });
  }

  async #fetch(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
    try {
      return await fetch(`http://mounts${path}`, {
        method,
        unix: this.#socket,
        // A proof of access may wait for a slow registry; the registry client has the deadlines.
        timeout: false,
        // A connection that is kept would lead to a server that has handed its mounts over, and not to its successor.
        keepalive: false,
        ...(signal === undefined ? {} : { signal }),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      } as RequestInit);
    } catch (cause) {
      if (signal?.aborted) throw new ImgcredError('CANCELLED', 'cancelled', { cause });
      throw new ImgcredError(
        'SERVER_UNREACHABLE',
        `the mount server does not answer (${systemErrorCode(cause) ?? 'no connection'})`,
        { hint: 'see mount-server.log in the data directory', cause },
      );
    }
  }
}

async function errorOf(response: Response): Promise<ImgcredError> {
  return (
    (await errorOfResponse(response)) ??
    new ImgcredError('INTERNAL', `the mount server answered ${response.status}`)
  );
}
