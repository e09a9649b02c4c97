import { Secret } from '../credentials/index.ts';
import { cancelled, RegistryError, throwIfCancelled, UnreachableError } from './errors.ts';
import { allowsPlainHttp } from './hosts.ts';
import { type ProxyEnvironment, proxyFor } from './proxy.ts';
import { printableUrl } from './redact.ts';
import { type PaceLimits, Reply } from './reply.ts';
import type { TlsMaterial } from './tls-material.ts';
import { unreachable } from './unreachable.ts';

/** The `fetch` that requests go through: Bun's own, unless a test listens in. */
export type Fetch = (input: string, init: BunFetchRequestInit) => Promise<Response>;

export interface TransportOptions {
  readonly insecureRegistries: readonly string[];
  readonly tls: TlsMaterial;
  readonly proxyEnvironment: ProxyEnvironment;
  readonly userAgent: string;
  /** How long the head of an answer may take, in ms. */
  readonly headMs: number;
  readonly pace: PaceLimits;
  readonly fetch?: Fetch | undefined;
}

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH';

export interface HttpRequest {
  readonly method?: Method;
  readonly url: URL;
  readonly headers?: Readonly<Record<string, string>>;
  readonly authorization?: Secret<string> | undefined;
  readonly form?: Secret<string> | undefined;
  /** Content to send; its type stands in `headers`. */
  readonly body?: Uint8Array<ArrayBuffer> | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly headMs?: number;
}

// "At most 10": more than any registry needs; browsers stop at 20.
const MAX_REDIRECTS = 10;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
// The others turn a request into a GET: what was to be sent would be lost without a word.
const REDIRECTS_OF_CONTENT = new Set([307, 308]);

/**
 * Speaks HTTP to a registry, its token endpoint and the hosts that its blobs live on. It follows redirects
 * itself, because the rules are stricter than fetch's: the authorization stays with the origin that it was
 * meant for, and https never becomes http.
 */
export class Transport implements Disposable {
  readonly #options: TransportOptions;
  /** The registry's own origin, which alone is shown the client certificate. */
  readonly #home: Bun.FetchSession;
  /** Everybody else. */
  readonly #abroad: Bun.FetchSession;
  readonly #homeHost: string;

  constructor(homeHost: string, options: TransportOptions) {
    this.#options = options;
    this.#homeHost = homeHost;
    const { ca, cert, key } = options.tls;
    const trust = ca === undefined ? {} : { ca: [...ca] };
    this.#abroad = new Bun.FetchSession({ tls: trust });
    this.#home = new Bun.FetchSession({
      tls: cert === undefined || key === undefined ? trust : { ...trust, cert, key: key.reveal() },
    });
  }

  /** Whether plain http may be spoken to the host of `url`. */
  allowsPlainHttp(url: URL): boolean {
    return allowsPlainHttp(url, this.#options.insecureRegistries);
  }

  /**
   * Sends one request and follows its redirects. Any status is an answer; only no answer is an error.
   *
   * @throws UnreachableError (transient where waiting may help), RegistryError for a redirect that is refused
   */
  async send(request: HttpRequest): Promise<Reply> {
    let { url, authorization } = request;
    let referer: string | undefined;
    for (let hops = 0; ; hops++) {
      const reply = await this.#hop({ ...request, url, authorization }, referer);
      const location = reply.headers.get('location');
      if (!REDIRECTS.has(reply.status) || location === null) return reply;
      reply.dispose();
      const asks = request.method === undefined || request.method === 'GET' || request.method === 'HEAD';
      if (!asks && !REDIRECTS_OF_CONTENT.has(reply.status)) {
        throw refusedRedirect(url, `HTTP ${reply.status} does not say where a ${request.method} should go`);
      }
      const next = this.#redirectTarget(url, location, request);
      if (hops === MAX_REDIRECTS) throw refusedRedirect(url, `more than ${MAX_REDIRECTS} redirects`);
      if (next.origin !== url.origin) {
        // Once dropped it stays dropped, even when a later hop leads back.
        authorization = undefined;
        // One CDN answers only those who say where they come from; the origin alone tells no repository's name.
        referer = `${request.url.origin}/`;
      }
      url = next;
    }
  }

  [Symbol.dispose](): void {
    this.#home.close();
    this.#abroad.close();
  }

  #redirectTarget(from: URL, location: string, request: HttpRequest): URL {
    if (request.form !== undefined) throw refusedRedirect(from, 'a login is not sent on to another address');
    if (!URL.canParse(location, from.href)) throw refusedRedirect(from, 'its target is not a URL');
    const target = new URL(location, from);
    // A URL with a user in it would make fetch send a login that nobody gave us.
    target.username = '';
    target.password = '';
    if (target.protocol !== 'https:' && target.protocol !== 'http:') {
      throw refusedRedirect(from, `to ${target.protocol}`);
    }
    if (target.protocol === 'http:') {
      if (from.protocol === 'https:') throw refusedRedirect(from, `from https to http (${target.host})`);
      if (!this.allowsPlainHttp(target)) {
        throw refusedRedirect(
          from,
          `to plain http at ${target.host}`,
          `--insecure-registry ${target.host} allows it`,
        );
      }
    }
    return target;
  }

  async #hop(request: HttpRequest, referer: string | undefined): Promise<Reply> {
    const { url, signal } = request;
    throwIfCancelled(signal);
    if (url.protocol === 'http:' && !this.allowsPlainHttp(url)) {
      throw new RegistryError('REGISTRY_ERROR', `plain http to ${url.host} is refused`, {
        registry: url.host,
        hint: `--insecure-registry ${url.host} allows it`,
      });
    }
    const controller = new AbortController();
    const abort = () => controller.abort(signal?.reason);
    signal?.addEventListener('abort', abort, { once: true });
    const unlink = () => signal?.removeEventListener('abort', abort);
    const headMs = request.headMs ?? this.#options.headMs;
    const timer = setTimeout(() => controller.abort(NO_HEAD), headMs);
    try {
      const response = await this.#fetch(url, {
        ...this.#init(request, referer),
        signal: controller.signal,
      });
      return new Reply({
        status: response.status,
        headers: response.headers,
        url,
        body: response.body,
        controller,
        signal,
        pace: this.#options.pace,
        onSettled: unlink,
      });
    } catch (cause) {
      unlink();
      if (signal?.aborted === true) throw cancelled(signal);
      if (controller.signal.reason === NO_HEAD) {
        throw new UnreachableError(`${url.host} did not answer within ${headMs / 1000} s`, {
          registry: url.host,
          transient: true,
        });
      }
      throw unreachable(url, proxyFor(url, this.#options.proxyEnvironment), cause);
    } finally {
      clearTimeout(timer);
    }
  }

  #fetch(url: URL, init: BunFetchRequestInit): Promise<Response> {
    if (this.#options.fetch !== undefined) return this.#options.fetch(url.href, init);
    const home = url.protocol === 'https:' && url.host === this.#homeHost;
    return (home ? this.#home : this.#abroad).fetch(url.href, init);
  }

  #init(request: HttpRequest, referer: string | undefined): BunFetchRequestInit {
    const proxy = proxyFor(request.url, this.#options.proxyEnvironment);
    return {
      method: request.method ?? 'GET',
      redirect: 'manual',
      // A digest is over the bytes as they are: neither ask for an encoding nor undo one that comes unasked.
      decompress: false,
      // Our own deadlines count; fetch's is coarse (it moves in steps of 4 s).
      timeout: false,
      proxy: proxy === undefined ? false : { url: proxy, respectNoProxy: false },
      headers: {
        'User-Agent': this.#options.userAgent,
        'Accept-Encoding': 'identity',
        ...request.headers,
        ...(referer === undefined ? {} : { Referer: referer }),
        ...(request.authorization === undefined ? {} : { Authorization: request.authorization.reveal() }),
        ...(request.form === undefined ? {} : { 'Content-Type': 'application/x-www-form-urlencoded' }),
      },
      ...(request.form === undefined ? {} : { body: request.form.reveal() }),
      ...(request.body === undefined ? {} : { body: request.body }),
    };
  }
}

const NO_HEAD = Symbol('no answer yet');

function refusedRedirect(from: URL, why: string, hint?: string): RegistryError {
  return new RegistryError('REGISTRY_ERROR', `redirect of ${printableUrl(from)} refused: ${why}`, {
    registry: from.host,
    hint,
  });
}

/** The value of a Basic `Authorization` header. @see RFC 7617 §2 */
export function basicAuthorization(username: string, password: Secret<string>): Secret<string> {
  return new Secret(`Basic ${Buffer.from(`${username}:${password.reveal()}`, 'utf8').toString('base64')}`);
}
