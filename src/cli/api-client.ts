import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { z } from 'zod';
import { ImgcredError, systemErrorCode, systemErrorReason } from '../errors/index.ts';
import { errorOfResponse, tlsFailure } from '../protocol/index.ts';

/** Where a server is: its Unix socket (no token needed), or an address with a token. */
export type ServerAddress =
  | { readonly kind: 'socket'; readonly path: string }
  /** `ca` is the certificate authority that is trusted, PEM, instead of the usual ones. */
  | { readonly kind: 'url'; readonly url: string; readonly token?: string; readonly ca?: string };

/** Speaks to a gateway's HTTP API. Every error answer is thrown as the ImgcredError that the server meant. */
export class ApiClient {
  readonly #address: ServerAddress;
  readonly #workspace: string | undefined;

  /** `workspace` is the one to act in, where the token is not bound to one; the default one otherwise. */
  constructor(address: ServerAddress, workspace?: string) {
    this.#address = address;
    this.#workspace = workspace;
  }

  /** Sends a request and gives the JSON answer. @throws ImgcredError SERVER_UNREACHABLE, or what the server said */
  async json<T>(
    schema: z.ZodType<T>,
    method: string,
    path: string,
    body?: unknown,
    signal?: AbortSignal,
  ): Promise<T> {
    const response = await this.fetch(method, path, body, signal);
    return understood(schema, await response.json(), method, path);
  }

  /** Sends a request and gives the answer itself, for streams. */
  async fetch(
    method: string,
    path: string,
    body?: unknown,
    signal?: AbortSignal,
    accept = 'application/json',
  ): Promise<Response> {
    const address = this.#address;
    const base = address.kind === 'socket' ? 'http://imgcred' : address.url.replace(/\/+$/, '');
    const headers: Record<string, string> = { accept };
    if (this.#workspace !== undefined) headers['imgcred-workspace'] = this.#workspace;
    if (body !== undefined) headers['content-type'] = 'application/json';
    if (address.kind === 'url' && address.token !== undefined)
      headers.authorization = `Bearer ${address.token}`;
    let response: Response;
    try {
      response = await fetch(`${base}${path}`, {
        method,
        headers,
        redirect: 'error',
        // Answers that follow a container are silent for as long as it is.
        timeout: false,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(signal === undefined ? {} : { signal }),
        ...(address.kind === 'socket' ? { unix: address.path } : {}),
        ...(address.kind === 'url' && address.ca !== undefined ? { tls: { ca: address.ca } } : {}),
      } as RequestInit);
    } catch (cause) {
      if (signal?.aborted) throw signal.reason;
      const untrusted = this.#tlsFailure(cause);
      if (untrusted !== undefined) throw untrusted;
      throw new ImgcredError(
        'SERVER_UNREACHABLE',
        `no imgcred server answers at ${this.describe()} (${systemErrorCode(cause) ?? 'no connection'})`,
        {
          hint: 'start one with `imgcred serve`, or name another with --server URL',
          cause,
        },
      );
    }
    if (!response.ok) throw await errorOf(response, `${method} ${path}`);
    return response;
  }

  /** Asks for a WebSocket, which is not open yet. */
  webSocket(path: string): WebSocket {
    const address = this.#address;
    const headers: Record<string, string> = {};
    if (this.#workspace !== undefined) headers['imgcred-workspace'] = this.#workspace;
    if (address.kind === 'socket') return new WebSocket(`ws+unix://${address.path}:${path}`, { headers });
    if (address.token !== undefined) headers.authorization = `Bearer ${address.token}`;
    const url = `${address.url.replace(/^http/, 'ws').replace(/\/+$/, '')}${path}`;
    return new WebSocket(url, { headers, ...(address.ca === undefined ? {} : { tls: { ca: address.ca } }) });
  }

  /** The lines of an `application/x-ndjson` answer, each parsed. */
  async *lines<T>(
    schema: z.ZodType<T>,
    method: string,
    path: string,
    body?: unknown,
    signal?: AbortSignal,
  ): AsyncGenerator<T> {
    const response = await this.fetch(method, path, body, signal, 'application/x-ndjson');
    if (response.body === null) return;
    const decoder = new TextDecoder();
    let pending = '';
    for await (const chunk of this.#body(response.body, signal)) {
      pending += decoder.decode(chunk, { stream: true });
      const lines = pending.split('\n');
      pending = lines.pop() ?? '';
      for (const line of lines) if (line !== '') yield understood(schema, JSON.parse(line), method, path);
    }
    if (pending !== '') yield understood(schema, JSON.parse(pending), method, path);
  }

  async *#body(body: ReadableStream<Uint8Array>, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of body) yield chunk;
    } catch (cause) {
      if (signal?.aborted) throw signal.reason;
      throw new ImgcredError('SERVER_UNREACHABLE', `the connection to ${this.describe()} broke`, {
        hint: 'what the server was asked to do goes on where it can: ask again',
        cause,
      });
    }
  }

  #tlsFailure(cause: unknown): ImgcredError | undefined {
    const address = this.#address;
    if (address.kind === 'socket') return undefined;
    const options = { address: '--server', ca: '--server-ca', hasCa: address.ca !== undefined };
    return tlsFailure(address.url, options, cause);
  }

  describe(): string {
    return this.#address.kind === 'socket' ? this.#address.path : this.#address.url;
  }

  /** Whether a server answers there now. */
  async alive(): Promise<boolean> {
    if (this.#address.kind === 'socket' && !existsSync(this.#address.path)) return false;
    try {
      await this.fetch('GET', '/healthz', undefined, AbortSignal.timeout(5000));
      return true;
    } catch {
      return false;
    }
  }
}

/** Reads a token from a file, without its line end. @throws ImgcredError USAGE where it can't be read */
export async function readTokenFile(file: string): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).trim();
  } catch (cause) {
    throw new ImgcredError('USAGE', `the token file ${file} can't be read (${systemErrorReason(cause)})`, {
      cause,
    });
  }
}

async function errorOf(response: Response, what: string): Promise<ImgcredError> {
  return (
    (await errorOfResponse(response)) ??
    new ImgcredError(
      'SERVER_UNREACHABLE',
      `${what} was answered with HTTP ${response.status}, not by imgcred`,
      {
        hint: 'check the address given with --server',
      },
    )
  );
}

/** @throws ImgcredError SERVER_UNREACHABLE for an answer that this version does not understand */
function understood<T>(schema: z.ZodType<T>, answer: unknown, method: string, path: string): T {
  const parsed = schema.safeParse(answer);
  if (parsed.success) return parsed.data;
  throw new ImgcredError(
    'SERVER_UNREACHABLE',
    `the server's answer to ${method} ${path} is not as expected`,
    {
      hint: 'client and server are probably of different versions: see imgcred version',
      cause: parsed.error,
    },
  );
}
