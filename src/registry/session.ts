import type { CredentialProvider } from '../credentials/index.ts';
import { systemErrorCode } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';
import { type Authorization, Authorizer, type Scheme } from './authorizer.ts';
import { AccessRefusedError, RegistryError, UnreachableError } from './errors.ts';
import { describeFailure, type Failure, failureError, readFailure } from './failure.ts';
import type { HostSlots, Priority } from './host-slots.ts';
import { Patience } from './patience.ts';
import type { Reply } from './reply.ts';
import type { RetryPolicy, Sleep } from './retry.ts';
import type { IssuedToken } from './token.ts';
import { waitFor } from './token-cache.ts';
import type { Method, Transport } from './transport.ts';

export interface SessionOptions {
  readonly transport: Transport;
  readonly slots: HostSlots;
  /** After how long without a byte a request gives its slot away, in ms. */
  readonly silentMs: number;
  readonly policy: RetryPolicy;
  readonly now: () => number;
  readonly random: () => number;
  readonly sleep: Sleep;
  readonly logger: Logger;
  /** Ends what runs for several callers at once (token fetches, the first contact). */
  readonly closed: AbortSignal;
}

/** One server that speaks the distribution API: the registry itself, or a mirror of it. */
export interface Endpoint {
  /** `host`, `host:port`, or a URL that fixes the scheme and may have a path in front of `/v2/`. */
  readonly address: string;
  /** The registry that a mirror stands in for: sent as `?ns=`. */
  readonly namespace?: string | undefined;
}

export interface SessionRequest {
  /** Below `/v2/`. */
  readonly path: string;
  readonly scope: string;
  /** What is asked for, in words, for the error. */
  readonly what: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly priority?: Priority | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Statuses beside 2xx that the caller wants to see itself. */
  readonly expected?: readonly number[];
  readonly method?: Method;
  readonly body?: Uint8Array<ArrayBuffer> | undefined;
  /**
   * Where the registry said that the next step goes, instead of `path`. Only at the registry's own origin does the
   * request carry the authorization.
   */
  readonly url?: URL | undefined;
  /** A failure by the way is thrown at once: the caller knows better how to go on than by saying it again. */
  readonly once?: boolean;
  /** How long the head of the answer may take, in ms, where sending takes its time too. */
  readonly headMs?: number;
}

// The first contact must not hang on a port that speaks something else: then plain http is tried, where allowed.
const PROBE_HEAD_MS = 5_000;
// Somebody waits at the terminal for the news that nothing listens there.
const REFUSED_CONNECTION_TRIES = 3;

/** The conversation with one endpoint: finds out its scheme, authenticates, repeats what may be repeated. */
export class RegistrySession {
  readonly host: string;
  readonly #options: SessionOptions;
  readonly #authorizer: Authorizer;
  readonly #namespace: string | undefined;
  readonly #fixed: boolean;
  #base: URL;
  #contact: Promise<void> | undefined;
  #trouble: RegistryError | undefined;

  constructor(endpoint: Endpoint, provider: CredentialProvider, options: SessionOptions) {
    this.#options = options;
    this.#fixed = endpoint.address.includes('://');
    this.#base = new URL(this.#fixed ? endpoint.address : `https://${endpoint.address}`);
    this.host = this.#base.host;
    this.#namespace = endpoint.namespace;
    this.#authorizer = new Authorizer(provider, options.transport, () => this.#base, {
      now: options.now,
      random: options.random,
      exchange: (attempt) => this.#exchange(attempt),
    });
  }

  /** The API's root, with the scheme that the first contact found. */
  get url(): URL {
    return new URL(this.#base);
  }

  get scheme(): Scheme {
    return this.#authorizer.scheme;
  }

  /** A count of failures for work that spans several requests. */
  patience(): Patience {
    const { policy, random, sleep, slots, logger } = this.#options;
    const onFailure = (error: RegistryError) => {
      this.#trouble = error;
    };
    return new Patience({ policy, random, sleep, slots, logger, host: this.host, onFailure });
  }

  /** What the last request ran into that is being tried again; undefined once one has been answered since. */
  get trouble(): RegistryError | undefined {
    return this.#trouble;
  }

  /**
   * Asks `/v2/` once how the registry wants to be spoken to; further calls share the answer.
   *
   * @throws UnreachableError
   */
  async connect(signal?: AbortSignal): Promise<void> {
    this.#contact ??= this.#probe().catch((error) => {
      this.#contact = undefined;
      throw error;
    });
    await waitFor(this.#contact, signal);
  }

  /** The authorization that a request within `scope` would carry. */
  async authorize(scope: string, signal?: AbortSignal): Promise<Authorization> {
    await this.connect(signal);
    return this.#authorizer.authorize(scope, signal);
  }

  /**
   * Sends a request until it is answered by a success or an expected status.
   *
   * @throws AccessRefusedError, RegistryError, UnreachableError, ImgcredError `CANCELLED`
   */
  request(request: SessionRequest): Promise<Reply> {
    return this.#persist(request, () => this.#authorized(request));
  }

  /** The same, at an address that a redirect led to: without any authorization. */
  fetchAt(url: URL, request: SessionRequest): Promise<Reply> {
    const { headers = {}, signal } = request;
    return this.#persist(request, () =>
      this.#options.transport.send({
        url,
        headers: { ...headers, Referer: `${this.#base.origin}/` },
        signal,
      }),
    );
  }

  async #persist(request: SessionRequest, send: () => Promise<Reply>): Promise<Reply> {
    const { signal, priority, expected = [] } = request;
    const patience = this.patience();
    for (;;) {
      const { slots, silentMs } = this.#options;
      const release = await slots.acquire(this.host, priority, signal);
      // A host that says nothing has room for others, and those who ask for something else should not wait for it.
      const silence = setTimeout(release, silentMs);
      try {
        const reply = await send();
        if (isSuccess(reply.status) || expected.includes(reply.status)) {
          this.#trouble = undefined;
          reply.whenSilent(silentMs, release);
          reply.whenSettled(release);
          return reply;
        }
        throw failureError(await readFailure(reply, this.#options.now()), request.what);
      } catch (error) {
        release();
        if (request.once === true) throw error;
        await patience.after(error, signal);
      } finally {
        clearTimeout(silence);
      }
    }
  }

  async #authorized(request: SessionRequest): Promise<Reply> {
    const { scope, signal } = request;
    let authorization = await this.authorize(scope, signal);
    for (let renewals = 0; ; ) {
      const reply = await this.#send(request, authorization);
      if (reply.status !== 401 && reply.status !== 403) {
        if (isSuccess(reply.status)) this.#authorizer.accepted(authorization);
        return reply;
      }
      if (reply.url.origin !== this.#base.origin) return this.#abroad(reply, request);
      const failure = await readFailure(reply, this.#options.now(), authorization.secrets);
      const challenge = reply.headers.get('www-authenticate');
      if (authorization.header !== undefined) renewals += 1;
      const again =
        renewals > 1
          ? undefined
          : await this.#authorizer.afterRefusal(authorization, reply.status, challenge, signal);
      if (again === undefined) {
        if (renewals > 1) this.#authorizer.refusedForGood(authorization);
        throw this.#refusal(failure, authorization, request.what);
      }
      authorization = again;
    }
  }

  #send(request: SessionRequest, { header }: Authorization): Promise<Reply> {
    const url = request.url ?? new URL(`v2/${request.path}`, withSlash(this.#base));
    if (this.#namespace !== undefined) url.searchParams.set('ns', this.#namespace);
    const { headers = {}, method = 'GET', body, headMs, signal } = request;
    return this.#options.transport.send({
      url,
      method,
      headers,
      authorization: url.origin === this.#base.origin ? header : undefined,
      body,
      signal,
      ...(headMs === undefined ? {} : { headMs }),
    });
  }

  /** A refusal by a host that the registry sent us to: not about our credential, which it never saw. */
  async #abroad(reply: Reply, request: SessionRequest): Promise<Reply> {
    if (request.expected?.includes(reply.status) === true) return reply;
    const failure = await readFailure(reply, this.#options.now());
    throw new RegistryError(
      'REGISTRY_ERROR',
      `${failure.host}, where ${this.host} sends us for ${request.what}, refuses it (${describeFailure(failure)})`,
      { registry: failure.host, httpStatus: failure.status, registryCode: failure.code },
    );
  }

  #refusal(failure: Failure, { login, header }: Authorization, what: string): RegistryError {
    const said = describeFailure(failure);
    const common = { registry: this.host, httpStatus: failure.status, registryCode: failure.code };
    if (login.kind === 'anonymous') {
      return new AccessRefusedError('anonymous', `${this.host} wants a login for ${what} (${said})`, {
        ...common,
        hint: 'the image may be private: give the registry’s login, for example --creds-env REGISTRY_USERNAME,REGISTRY_PASSWORD',
      });
    }
    if (header === undefined) {
      const { scheme } = this;
      const wanted = scheme.kind === 'other' ? JSON.stringify(scheme.name) : scheme.kind;
      return new AccessRefusedError(
        'unauthorized',
        `${this.host} wants a login by ${wanted}, which a credential of kind ${login.kind} can't give (${said})`,
        common,
      );
    }
    if (/expired/i.test(`${failure.code} ${failure.message}`)) {
      return new AccessRefusedError('expired', `the credential for ${this.host} has expired (${said})`, {
        ...common,
        hint: 'give a new one',
      });
    }
    if (failure.status === 401 && this.scheme.kind !== 'bearer') {
      return new AccessRefusedError('unauthorized', `${this.host} refused the credential (${said})`, {
        ...common,
        hint: 'check user name and password or token, and whether it was revoked',
      });
    }
    return new AccessRefusedError(
      'denied',
      `the credential for ${this.host} may not read ${what} (${said})`,
      {
        ...common,
        hint: 'give it the right to pull this repository, and check the name: many registries hide what does not exist',
      },
    );
  }

  async #probe(): Promise<void> {
    const { closed } = this.#options;
    const patience = this.patience();
    let overTls: UnreachableError | undefined;
    for (let refusals = 0; ; ) {
      try {
        const speaksTls = await this.#ping(overTls === undefined);
        if (!speaksTls || overTls === undefined) return;
        // The handshake failed for another reason than that nobody speaks TLS here.
        this.#base.protocol = 'https:';
        throw overTls;
      } catch (error) {
        if (!(error instanceof UnreachableError) || error === overTls) throw error;
        const code = systemErrorCode(error.cause);
        if (overTls === undefined && this.#mayBePlain() && (code === 'EPROTO' || error.cause === undefined)) {
          overTls = error;
          this.#base.protocol = 'http:';
          continue;
        }
        if (code === 'ECONNREFUSED') refusals += 1;
        try {
          if (refusals >= REFUSED_CONNECTION_TRIES) throw error;
          await patience.after(error, closed);
        } catch (final) {
          this.#base.protocol = overTls === undefined ? this.#base.protocol : 'https:';
          throw overTls ?? final;
        }
      }
    }
  }

  /** Whether plain http may be tried where https failed. */
  #mayBePlain(): boolean {
    return (
      !this.#fixed && this.#base.protocol === 'https:' && this.#options.transport.allowsPlainHttp(this.#base)
    );
  }

  /** Asks `/v2/` and learns from its challenge. Gives whether it was plain http to a server that wants TLS. */
  async #ping(first: boolean): Promise<boolean> {
    const { transport, closed, now } = this.#options;
    const url = new URL('v2/', withSlash(this.#base));
    const headMs = first && this.#mayBePlain() ? { headMs: PROBE_HEAD_MS } : {};
    const reply = await transport.send({ url, signal: closed, ...headMs });
    const challenge = reply.headers.get('www-authenticate');
    const failure = await readFailure(reply, now());
    if (reply.status === 401 && reply.url.origin === this.#base.origin) {
      await this.#authorizer.learn(challenge, undefined, closed);
    }
    // Other statuses tell nothing: the request itself will show what is wrong.
    return url.protocol === 'http:' && reply.status === 400 && /https/i.test(failure.message ?? '');
  }

  async #exchange(attempt: (signal: AbortSignal) => Promise<IssuedToken>): Promise<IssuedToken> {
    const { closed } = this.#options;
    const patience = this.patience();
    for (;;) {
      try {
        return await attempt(closed);
      } catch (error) {
        await patience.after(error, closed);
      }
    }
  }
}

function isSuccess(status: number): boolean {
  return status >= 200 && status < 300;
}

function withSlash(base: URL): URL {
  const url = new URL(base);
  if (!url.pathname.endsWith('/')) url.pathname += '/';
  return url;
}
