import { z } from 'zod';
import { VERSION } from '../config/index.ts';
import { ImgcredError, systemErrorCode } from '../errors/index.ts';
import {
  CHANNEL_HEADER,
  ChannelProofs,
  type ContainerReport,
  type ContainerRequest,
  errorOfResponse,
  generateWorkerKey,
  type NumberedLogChunk,
  type OpenChannel,
  type OrdersDone,
  openedChannelSchema,
  openOrders,
  openRequest,
  PROTOCOL_VERSION,
  sealedOrdersSchema,
  sealedRequestSchema,
  tlsFailure,
  type UrgentOrders,
  WORKER_PATHS,
  type WorkerDescription,
  type WorkerKey,
  type WorkerLink,
  type WorkerOrders,
  type WorkerStatus,
  type WorkerWelcome,
  workerOrdersSchema,
  workerWelcomeSchema,
} from '../protocol/index.ts';

export interface HttpWorkerLinkOptions {
  readonly url: string;
  /** What the worker is known by. */
  readonly identity: WorkerKey;
  readonly token?: string;
  /** The certificate authority that is trusted, PEM, instead of the usual ones. */
  readonly ca?: string;
}

// Beyond the longest wait that is asked for, the connection itself is in doubt: after a cut, TCP takes up to minutes
// to try an old one again. A new one must be made while the lease still runs.
const PATIENCE_MS = 30_000;
const PATIENCES_A_LEASE = 2;
// One with a channel that the scheduler has forgotten, one with the next.
const ATTEMPTS = 2;

/** The scheduler on another machine: the worker makes every connection, so that it may stand behind a NAT. */
export class HttpWorkerLink implements WorkerLink {
  readonly #url: string;
  readonly #token: string | undefined;
  readonly #ca: string | undefined;
  readonly #identity: WorkerKey;
  readonly #key: WorkerKey;
  #channel: Promise<ChannelProofs> | undefined;
  #patienceMs = PATIENCE_MS;

  private constructor(options: HttpWorkerLinkOptions, key: WorkerKey) {
    this.#url = options.url.replace(/\/+$/, '');
    this.#token = options.token;
    this.#ca = options.ca;
    this.#identity = options.identity;
    this.#key = key;
  }

  /**
   * Makes a link with a fresh key pair: what this process was given, nobody opens who gets hold of the identity later.
   * No connection is made before it is used.
   */
  static async connect(options: HttpWorkerLinkOptions): Promise<HttpWorkerLink> {
    return new HttpWorkerLink(options, await generateWorkerKey());
  }

  async register(description: WorkerDescription, signal?: AbortSignal): Promise<WorkerWelcome> {
    const welcome = await this.#call(WORKER_PATHS.register, description, workerWelcomeSchema, signal);
    this.#patienceMs = Math.min(PATIENCE_MS, welcome.lease_ms / PATIENCES_A_LEASE);
    return welcome;
  }

  async nextRequest(
    worker_id: string,
    wait_ms: number,
    signal?: AbortSignal,
  ): Promise<ContainerRequest | null> {
    const shape = z.object({ request: sealedRequestSchema.nullable() });
    const { request } = await this.#call(WORKER_PATHS.next, { worker_id, wait_ms }, shape, signal, wait_ms);
    return request === null ? null : openRequest(request, this.#key);
  }

  heartbeat(worker_id: string, status: WorkerStatus, signal?: AbortSignal): Promise<WorkerOrders> {
    return this.#call(WORKER_PATHS.heartbeat, { worker_id, status }, workerOrdersSchema, signal);
  }

  async nextOrders(
    worker_id: string,
    done: OrdersDone,
    wait_ms: number,
    signal?: AbortSignal,
  ): Promise<UrgentOrders> {
    const body = { worker_id, done, wait_ms };
    const sealed = await this.#call(WORKER_PATHS.orders, body, sealedOrdersSchema, signal, wait_ms);
    return openOrders(sealed, this.#key);
  }

  async report(
    worker_id: string,
    container_id: string,
    attempt: number,
    report: ContainerReport,
  ): Promise<void> {
    await this.#call(WORKER_PATHS.report, { worker_id, container_id, attempt, report }, z.object({}));
  }

  async appendLog(
    worker_id: string,
    container_id: string,
    attempt: number,
    chunks: readonly NumberedLogChunk[],
  ): Promise<void> {
    await this.#call(WORKER_PATHS.log, { worker_id, container_id, attempt, chunks }, z.object({}));
  }

  async fetchIndex(
    worker_id: string,
    index_digest: string,
    signal?: AbortSignal,
  ): Promise<AsyncIterable<Uint8Array>> {
    const response = await this.#post(WORKER_PATHS.index, { worker_id, index_digest }, signal, 0);
    return whole(response, this.#url);
  }

  joinSession(sessionId: string): WebSocket {
    return new WebSocket(`${this.#url.replace(/^http/, 'ws')}${WORKER_PATHS.session}/${sessionId}`, {
      ...(this.#token === undefined ? {} : { headers: { authorization: `Bearer ${this.#token}` } }),
      ...(this.#ca === undefined ? {} : { tls: { ca: this.#ca } }),
    });
  }

  async #call<T>(
    path: string,
    body: unknown,
    schema: z.ZodType<T>,
    signal?: AbortSignal,
    waitMs = 0,
  ): Promise<T> {
    const response = await this.#post(path, body, signal, waitMs);
    return schema.parse(await response.json());
  }

  /** Makes a call with the proof of who makes it. */
  async #post(
    path: string,
    body: unknown,
    signal: AbortSignal | undefined,
    waitMs: number,
  ): Promise<Response> {
    const text = JSON.stringify(body);
    for (let attempt = 1; ; attempt++) {
      const channel = this.#opened(signal);
      const proofs = await channel;
      try {
        return await this.#send(path, text, { [CHANNEL_HEADER]: proofs.next(path, text) }, signal, waitMs);
      } catch (thrown) {
        // A scheduler that was started anew knows none; nothing of the call has been done then.
        if (!(thrown instanceof ImgcredError) || thrown.code !== 'NO_CHANNEL') throw thrown;
        this.#forget(channel);
        if (attempt === ATTEMPTS) throw thrown;
      }
    }
  }

  /** The channel; opened now where there is none. */
  #opened(signal: AbortSignal | undefined): Promise<ChannelProofs> {
    if (this.#channel !== undefined) return this.#channel;
    const opening = this.#openChannel(signal);
    this.#channel = opening;
    opening.catch(() => this.#forget(opening));
    return opening;
  }

  #forget(channel: Promise<ChannelProofs>): void {
    // Another call may have opened the next one already.
    if (this.#channel === channel) this.#channel = undefined;
  }

  async #openChannel(signal: AbortSignal | undefined): Promise<ChannelProofs> {
    const asked: OpenChannel = {
      protocol: PROTOCOL_VERSION,
      version: VERSION,
      identity_key: this.#identity.publicKey,
      public_key: this.#key.publicKey,
    };
    try {
      const response = await this.#send(WORKER_PATHS.channel, JSON.stringify(asked), {}, signal, 0);
      return await ChannelProofs.open(
        openedChannelSchema.parse(await response.json()),
        asked,
        this.#identity,
      );
    } catch (thrown) {
      if (!(thrown instanceof ImgcredError) || thrown.code !== 'NOT_FOUND') throw thrown;
      throw new ImgcredError('UNSUPPORTED', `the scheduler at ${this.#url} is of an older version`, {
        hint: 'run the same version of imgcred on both',
        cause: thrown,
      });
    }
  }

  async #send(
    path: string,
    body: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal | undefined,
    waitMs: number,
  ): Promise<Response> {
    const late = AbortSignal.timeout(waitMs + this.#patienceMs);
    let response: Response;
    try {
      response = await fetch(`${this.#url}${path}`, {
        method: 'POST',
        redirect: 'error',
        headers: {
          'content-type': 'application/json',
          ...headers,
          ...(this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` }),
        },
        body,
        signal: signal === undefined ? late : AbortSignal.any([signal, late]),
        timeout: false,
        ...(this.#ca === undefined ? {} : { tls: { ca: this.#ca } }),
      } as RequestInit);
    } catch (cause) {
      if (signal?.aborted) throw signal.reason;
      const options = { address: '--gateway', ca: '--gateway-ca', hasCa: this.#ca !== undefined };
      const untrusted = tlsFailure(this.#url, options, cause);
      if (untrusted !== undefined) throw untrusted;
      throw new ImgcredError(
        'SERVER_UNREACHABLE',
        `the scheduler at ${this.#url} does not answer (${systemErrorCode(cause) ?? 'no connection'})`,
        {
          hint: 'the worker goes on trying; check --gateway and the network',
          cause,
        },
      );
    }
    if (response.ok) return response;
    throw (
      (await errorOfResponse(response)) ??
      new ImgcredError(
        'SERVER_UNREACHABLE',
        `${this.#url} answers with HTTP ${response.status}, not as an imgcred scheduler`,
        {
          hint: 'check --gateway',
        },
      )
    );
  }
}

/** An answer's body. @throws ImgcredError SERVER_UNREACHABLE when it breaks off */
async function* whole(response: Response, url: string): AsyncGenerator<Uint8Array> {
  try {
    yield* response.body ?? [];
  } catch (cause) {
    throw new ImgcredError('SERVER_UNREACHABLE', `what the scheduler at ${url} sent broke off`, {
      hint: 'run it again; if that stays, check the network',
      cause,
    });
  }
}
