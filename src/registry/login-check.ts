import type { CredentialProvider, Login } from '../credentials/index.ts';
import { counted, ImgcredError, toImgcredError } from '../errors/index.ts';
import { formatPlatform, formatReference, type Platform, type Reference } from '../reference/index.ts';
import { RegistryClient } from './client.ts';
import type { ClientOptions } from './client-options.ts';
import { cancelled } from './errors.ts';
import type { ResolvedImage } from './image.ts';
import { printableText, printableUrl } from './redact.ts';
import { pullScope } from './scope.ts';

/** One thing that was tried, in words. Nothing in it is secret. */
export interface LoginStep {
  readonly step: 'connection' | 'challenge' | 'credential' | 'scope' | 'token' | 'manifest' | 'range';
  readonly outcome: 'ok' | 'failed' | 'skipped';
  readonly detail: string;
  readonly hint?: string;
  /** How long it took, in ms. */
  readonly durationMs: number;
  /** What went wrong, for the exit code. */
  readonly error?: ImgcredError;
}

export interface LoginCheckOptions extends ClientOptions {
  readonly platform?: Platform;
  readonly signal?: AbortSignal;
}

type Attempt = Pick<LoginStep, 'outcome' | 'detail'>;

/**
 * Logs in to a reference's registry step by step, as a pull does, and says of each step what happened. It ends
 * after the first that fails.
 *
 * @throws ImgcredError `CANCELLED` only: what fails is told in the last step
 */
export async function* loginCheck(
  reference: Reference,
  provider: CredentialProvider,
  options: LoginCheckOptions = {},
): AsyncGenerator<LoginStep> {
  const { signal } = options;
  const now = options.now ?? Date.now;
  let client: RegistryClient | undefined;
  let resolved: ResolvedImage | undefined;
  try {
    // A mirror would answer for the registry that is to be checked.
    client = new RegistryClient(reference.registry, provider, { ...options, mirrors: [] });
    const { session } = client;
    const scope = pullScope(reference.repository);
    const steps: readonly (readonly [LoginStep['step'], () => Promise<Attempt> | Attempt])[] = [
      [
        'connection',
        async () => {
          await session.connect(signal);
          return ok(`${printableUrl(session.url)} answers`);
        },
      ],
      ['challenge', () => ok(describeScheme(session.scheme))],
      ['credential', async () => ok(describeLogin(await provider.login(signal)))],
      ['scope', () => (session.scheme.kind === 'bearer' ? ok(scope) : skipped('the registry asks for none'))],
      [
        'token',
        async () => {
          const { token } = await session.authorize(scope, signal);
          if (token === undefined) return skipped('no token endpoint takes part');
          return ok(
            `issued, to be renewed in ${Math.max(0, Math.round((token.cached.expiresAt - now()) / 1000))} s`,
          );
        },
      ],
      [
        'manifest',
        async () => {
          resolved = await client?.resolveImage(reference, { platform: options.platform, signal });
          if (resolved === undefined) return skipped('no client');
          const { manifestDigest, platform, layers } = resolved;
          return ok(`${manifestDigest}, ${formatPlatform(platform)}, ${counted(layers.length, 'layer')}`);
        },
      ],
      ['range', async () => checkRange(client, reference, resolved, signal)],
    ];
    for (const [step, attempt] of steps) {
      const started = now();
      let failed = false;
      try {
        yield { step, ...(await attempt()), durationMs: now() - started };
      } catch (thrown) {
        if (signal?.aborted === true) throw cancelled(signal);
        failed = true;
        yield failure(step, thrown, now() - started);
      }
      if (failed) return;
    }
  } catch (thrown) {
    if (signal?.aborted === true) throw cancelled(signal);
    yield failure('connection', thrown, 0);
  } finally {
    client?.close();
  }
}

async function checkRange(
  client: RegistryClient | undefined,
  reference: Reference,
  image: ResolvedImage | undefined,
  signal: AbortSignal | undefined,
): Promise<Attempt> {
  const layer = image?.layers.find(({ descriptor }) => descriptor.size > 1)?.descriptor;
  if (client === undefined || layer === undefined)
    return skipped(`${formatReference(reference)} has no layer to read`);
  const result = await client.readRange(reference.repository, layer, 0, 1, { signal });
  if (result.kind === 'range') return ok('parts of a layer are sent (HTTP 206)');
  await result.stream[Symbol.asyncIterator]().return?.();
  return {
    outcome: 'failed',
    detail:
      'the registry sends whole layers only (HTTP 200 to a range): images start slower, and use more disk',
  };
}

function ok(detail: string): Attempt {
  return { outcome: 'ok', detail };
}

function skipped(detail: string): Attempt {
  return { outcome: 'skipped', detail };
}

function failure(step: LoginStep['step'], thrown: unknown, durationMs: number): LoginStep {
  const error = thrown instanceof ImgcredError ? thrown : toImgcredError(thrown);
  const hint = error.hint === undefined ? {} : { hint: error.hint };
  return { step, outcome: 'failed', detail: error.message, ...hint, durationMs, error };
}

function describeScheme(scheme: RegistryClient['session']['scheme']): string {
  switch (scheme.kind) {
    case 'open':
      return 'none: the registry answers without a login';
    case 'basic':
      return 'Basic: the login goes to the registry itself';
    case 'direct':
      return 'Bearer: the given token goes to the registry itself';
    case 'bearer': {
      const { realm, service } = scheme.service;
      const named = service === undefined ? '' : ` for the service ${printableText(service)}`;
      return `Bearer: tokens come from ${printableUrl(realm)}${named}`;
    }
    case 'other':
      return `${printableText(scheme.name)}: not a scheme that imgcred speaks`;
  }
}

// Some registries take a token as the user's name; then the name is the secret.
const TOKEN_LIKE = /^(gh[pousr]_|github_pat_|glpat-|dckr_pat_|eyJ)|.{65}/;

function describeLogin(login: Login): string {
  switch (login.kind) {
    case 'anonymous':
      return 'none: anonymous';
    case 'basic': {
      const user = TOKEN_LIKE.test(login.username) ? '[redacted]' : printableText(login.username);
      return `user ${user}, password [redacted]`;
    }
    case 'bearer':
      return 'bearer token [redacted]';
    case 'identity-token':
      return 'identity token [redacted]';
  }
}
