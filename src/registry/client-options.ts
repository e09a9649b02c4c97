import { anonymousProvider, type CredentialProvider } from '../credentials/index.ts';
import { ImgcredError } from '../errors/index.ts';
import { type Logger, silentLogger } from '../observability/index.ts';
import { normalizeRegistryHost } from '../reference/index.ts';
import { HostSlots } from './host-slots.ts';
import { apiHost } from './hosts.ts';
import type { ProxyEnvironment } from './proxy.ts';
import type { PaceLimits } from './reply.ts';
import { DEFAULT_RETRY_POLICY, type RetryPolicy, type Sleep, sleep } from './retry.ts';
import { RegistrySession, type SessionOptions } from './session.ts';
import { readTlsMaterial } from './tls-material.ts';
import { type Fetch, Transport } from './transport.ts';

/** A server that holds copies of the registry's content. It never gets the registry's credential. */
export interface Mirror {
  /** The one registry that it mirrors; any, where this is left out. */
  readonly registry?: string;
  /** `host[:port]`, or a URL, which may have a path in front of `/v2/`. */
  readonly address: string;
  /**
   * Whether it may also say what a tag means; false unless told otherwise: content is checked by its digest
   * whoever sends it, but a tag is what its answerer says.
   */
  readonly resolvesTags?: boolean;
  /** The mirror's own credential, if it wants one. */
  readonly provider?: CredentialProvider;
}

export interface ClientOptions {
  /** Hosts (`host`, `host:port`, `10.0.0.0/8`) that plain http may be spoken to, besides loopback. */
  readonly insecureRegistries?: readonly string[];
  /** PEM files of authorities that are trusted besides the system's. */
  readonly caFiles?: readonly string[];
  readonly clientCertificate?: { readonly certFile: string; readonly keyFile: string };
  /** `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`; the process's own unless given. */
  readonly proxyEnvironment?: ProxyEnvironment;
  readonly mirrors?: readonly Mirror[];
  readonly logger?: Logger;
  readonly retry?: Partial<RetryPolicy>;
  readonly pace?: Partial<PaceLimits>;
  /** How long the head of an answer may take, in ms. */
  readonly headMs?: number;
  /** The budget of requests a host; one for the whole process unless given. */
  readonly slots?: HostSlots;
  /** After how long without a byte a request no longer counts against that budget, in ms. */
  readonly silentMs?: number;
  readonly userAgent?: string;
  readonly fetch?: Fetch;
  readonly now?: () => number;
  readonly random?: () => number;
  readonly sleep?: Sleep;
}

// A demand read stands behind these: long enough for a cold pull-through cache to send its first byte.
const DEFAULT_HEAD_MS = 30_000;
// As long as a reader waits before that is reported: others should not have to wait for the same silence.
const DEFAULT_SILENT_MS = 10_000;
const DEFAULT_PACE: PaceLimits = { stallMs: 20_000, paceWindowMs: 30_000, minBytesPerSecond: 1024 };

// All clients of one host share its limit, whichever credential they hold.
const PROCESS_SLOTS = new HostSlots();

export interface ConnectionSettings {
  readonly session: SessionOptions;
  readonly mirrors: readonly { readonly session: RegistrySession; readonly resolvesTags: boolean }[];
  readonly dispose: () => void;
}

/** Makes what a client's conversations share out of its options. */
export function connectionSettings(registry: string, options: ClientOptions): ConnectionSettings {
  const closing = new AbortController();
  const tls = readTlsMaterial(options);
  const transports: Transport[] = [];
  const sessionOptions = (homeHost: string, material: typeof tls): SessionOptions => {
    const transport = new Transport(homeHost, {
      insecureRegistries: options.insecureRegistries ?? [],
      tls: material,
      proxyEnvironment: options.proxyEnvironment ?? process.env,
      userAgent: options.userAgent ?? 'imgcred',
      headMs: options.headMs ?? DEFAULT_HEAD_MS,
      pace: { ...DEFAULT_PACE, ...options.pace },
      fetch: options.fetch,
    });
    transports.push(transport);
    return {
      transport,
      slots: options.slots ?? PROCESS_SLOTS,
      silentMs: options.silentMs ?? DEFAULT_SILENT_MS,
      policy: { ...DEFAULT_RETRY_POLICY, ...options.retry },
      now: options.now ?? Date.now,
      random: options.random ?? Math.random,
      sleep: options.sleep ?? sleep,
      logger: options.logger ?? silentLogger,
      closed: closing.signal,
    };
  };
  const mirrors = (options.mirrors ?? [])
    .filter((mirror) => (mirror.registry ?? registry) === registry)
    .map(({ address, resolvesTags = false, provider }) => {
      const base = new URL(address.includes('://') ? address : `https://${address}`);
      // The client certificate is the registry's credential too.
      const shared = sessionOptions(base.host, tls.ca === undefined ? {} : { ca: tls.ca });
      const login = provider ?? anonymousProvider(base.host);
      return { session: new RegistrySession({ address, namespace: registry }, login, shared), resolvesTags };
    });
  return {
    session: sessionOptions(apiHost(registry), tls),
    mirrors,
    dispose: () => {
      closing.abort();
      for (const transport of transports) transport[Symbol.dispose]();
    },
  };
}

/**
 * A mirror as settings name it: `HOST=ADDRESS`, the registry and where its mirror is.
 *
 * @throws ImgcredError USAGE for anything else
 */
export function parseMirror(text: string): Mirror {
  const equals = text.indexOf('=');
  const address = text.slice(equals + 1);
  if (
    equals < 1 ||
    address === '' ||
    !URL.canParse(address.includes('://') ? address : `https://${address}`)
  ) {
    throw new ImgcredError('USAGE', `'${text.replace(/[^/=]*@/, '[…]@')}' does not name a mirror`, {
      hint: 'write HOST=ADDRESS, such as docker.io=https://mirror.example.com',
    });
  }
  const { username, password } = new URL(address.includes('://') ? address : `https://${address}`);
  if (username !== '' || password !== '') {
    // Not repeated: a password stands in it.
    throw new ImgcredError(
      'USAGE',
      `the mirror of ${text.slice(0, equals)} is named with a login in its address`,
      {
        hint: 'a mirror must answer without one',
      },
    );
  }
  return { registry: normalizeRegistryHost(text.slice(0, equals)), address };
}
