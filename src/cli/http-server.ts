import { chmodSync, rmSync } from 'node:fs';
import { readPem } from '../config/index.ts';
import { ImgcredError, systemErrorCode, systemErrorReason } from '../errors/index.ts';
import type { GatewayApp } from '../gateway/index.ts';
import type { SocketSession } from '../protocol/index.ts';

/** What a Unix socket serves: a gateway, or what else knows no other callers than the machine's own user. */
export interface LocalApp {
  fetch(request: Request, bindings: Parameters<GatewayApp['fetch']>[1]): Response | Promise<Response>;
}

/** An HTTP server of the API, and how busy it is. */
export interface HttpServer {
  /** Requests that have not been answered to the end. */
  readonly pending: number;
  readonly address: string;
  stop(): Promise<void>;
}

// A container's output may be silent for as long as it runs: no answer to somebody we know is ended for being idle.
const NO_IDLE_TIMEOUT = 0;
// Bun's types know `idleTimeout` for TCP only, but it ends an answer on a socket all the same, after 10 s.
const SOCKET_OPTIONS: object = { idleTimeout: NO_IDLE_TIMEOUT };
// How long a connection of somebody we don't know may be idle.
const STRANGERS_IDLE_SECONDS = 30;
const LIMITS = {
  // No route takes more; what is longer is refused before it is in memory. Bytes.
  maxRequestBodySize: 32 << 20,
  // Else Bun answers what it catches by a page with a stack trace.
  development: false,
} as const;

// The longest that a WebSocket of a peer on the network may give no sign of life; Bun's own pings ask for one.
const WEB_SOCKET_IDLE_SECONDS = 120;
// An exec's command and environment come in one message. Bytes.
const LONGEST_MESSAGE = 8 << 20;

/** Hands what comes over WebSockets to their sessions. */
function webSockets(idleTimeout: number): Bun.WebSocketHandler<SocketSession> {
  return {
    idleTimeout,
    maxPayloadLength: LONGEST_MESSAGE,
    open: (socket) =>
      socket.data.opened({
        send: (message) => void socket.send(message),
        close: (code, reason) => socket.close(code, reason),
      }),
    message: (socket, message) => socket.data.received(message),
    close: (socket) => socket.data.closed(),
  };
}

/**
 * Serves the API on a Unix socket, which this process's user alone may open. A file left by a dead server is
 * replaced: the caller holds the data directory's lock.
 */
export function serveOnSocket(app: LocalApp, path: string): HttpServer {
  rmSync(path, { force: true });
  const before = process.umask(0o177);
  try {
    const server = Bun.serve<SocketSession>({
      unix: path,
      ...SOCKET_OPTIONS,
      ...LIMITS,
      fetch: (request, self) =>
        app.fetch(request, {
          local: true,
          origin: 'unix socket',
          upgrade: (data) => self.upgrade(request, { data }),
        }),
      websocket: webSockets(NO_IDLE_TIMEOUT),
    });
    chmodSync(path, 0o600);
    return {
      get pending() {
        return server.pendingRequests;
      },
      address: path,
      async stop() {
        await server.stop(true);
        rmSync(path, { force: true });
      },
    };
  } catch (cause) {
    throw new ImgcredError('DATA_DIR', `the socket ${path} can't be made (${systemErrorReason(cause)})`, {
      hint:
        path.length > 107
          ? 'the path is too long for a Unix socket: choose a shorter --data-dir'
          : 'check the data directory',
      cause,
    });
  } finally {
    process.umask(before);
  }
}

/** Paths of a certificate chain and its key, PEM. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
}

/**
 * Serves the API on a TCP address, with TLS where there is a certificate.
 *
 * @throws ImgcredError PORT_IN_USE; USAGE for an address that is not this machine's, or a certificate that is none
 */
export function serveOnAddress(
  app: GatewayApp,
  listen: string,
  tls?: TlsFiles,
  strangersIdleSeconds = STRANGERS_IDLE_SECONDS,
): HttpServer {
  const secured =
    tls === undefined
      ? {}
      : {
          tls: {
            cert: readPem('--tls-cert', tls.cert, 'CERTIFICATE'),
            key: readPem('--tls-key', tls.key, 'PRIVATE KEY'),
          },
        };
  try {
    return listenOn('--listen', listen, {
      ...secured,
      idleTimeout: strangersIdleSeconds,
      fetch: (request, self) =>
        app.fetch(request, {
          local: false,
          origin: self.requestIP(request)?.address,
          onIdentified: () => self.timeout(request, NO_IDLE_TIMEOUT),
          upgrade: (data) => self.upgrade(request, { data }),
        }),
    });
  } catch (thrown) {
    const code = thrown instanceof ImgcredError ? systemErrorCode(thrown.cause) : undefined;
    if (tls === undefined || code?.startsWith('ERR_') !== true) throw thrown;
    throw new ImgcredError('USAGE', `--tls-cert ${tls.cert}: it, or its key, is not valid PEM (${code})`, {
      cause: thrown,
    });
  }
}

/** What a server on a TCP address does with what comes. */
export interface Serving {
  fetch(request: Request, self: Bun.Server<SocketSession>): Response | Promise<Response>;
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Seconds that a connection may be idle. */
  readonly idleTimeout?: number;
}

/**
 * Listens on a TCP address.
 *
 * @param option where the address came from, for errors
 * @throws ImgcredError PORT_IN_USE; USAGE for an address that is not this machine's
 */
export function listenOn(option: string, listen: string, serving: Serving): HttpServer {
  const colon = listen.lastIndexOf(':');
  try {
    const server = Bun.serve<SocketSession>({
      hostname: listen.slice(0, colon).replace(/^\[|\]$/g, ''),
      port: Number(listen.slice(colon + 1)),
      ...LIMITS,
      // Without development Bun sets SO_REUSEPORT: another program could take half of the requests, tokens and all.
      reusePort: false,
      idleTimeout: STRANGERS_IDLE_SECONDS,
      websocket: webSockets(WEB_SOCKET_IDLE_SECONDS),
      ...serving,
    });
    return {
      get pending() {
        return server.pendingRequests;
      },
      address: `${listen.slice(0, colon)}:${server.port}`,
      stop: () => server.stop(true),
    };
  } catch (cause) {
    const code = systemErrorCode(cause);
    if (code === 'EADDRINUSE') {
      throw new ImgcredError('PORT_IN_USE', `${listen} is in use by another program`, {
        hint: `stop it, or choose another address with ${option}`,
        cause,
      });
    }
    throw new ImgcredError('USAGE', `can't listen on ${listen} (${code ?? 'unknown error'})`, {
      hint: `name an address of this machine and a free port with ${option}`,
      cause,
    });
  }
}

/** Whether an address to listen on can be reached from this machine alone. */
export function staysOnThisMachine(listen: string): boolean {
  return /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\]):/i.test(listen);
}
