import { importEntry } from '../../entries/index.ts';
import { CredentialError } from '../error.ts';
import type { AwsKeys } from '../login-plan.ts';
import type { RegistryType } from '../registry-type.ts';
import { Secret } from '../secret.ts';
import type { FetchedLogin } from './login-cache.ts';
import { type Fetch, postForJson, readAnswer, refusedBy, textOf } from './service-answer.ts';
import { signPost } from './signature-v4.ts';

const TOKEN_LIFE = 12 * 60 * 60_000;
// The API of ECR Public is in this region only.
const PUBLIC_REGION = 'us-east-1';

export interface EcrOptions {
  /** Replaces the address of AWS's API: for an emulator, or a private endpoint. */
  readonly endpoint?: string | undefined;
  readonly now: () => number;
  readonly fetch: Fetch;
}

/**
 * Fetches the 12 hours' login of a private ECR registry. The keys are passed to the SDK explicitly, so that
 * neither the environment nor a profile of this machine takes part.
 *
 * @throws CredentialError
 * @see https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html
 */
export async function fetchEcrLogin(
  registry: string,
  host: RegistryType,
  keys: AwsKeys,
  options: EcrOptions,
  signal: AbortSignal,
): Promise<FetchedLogin> {
  const { ECRClient, GetAuthorizationTokenCommand } = await importEntry<typeof import('./ecr-sdk.ts')>(
    'credentials/providers/ecr-sdk',
  );
  const client = new ECRClient({
    region: host.region ?? '',
    credentials: keys,
    requestHandler: fetchHandler(options.fetch),
    // The SDK refuses a custom endpoint together with these.
    ...(options.endpoint === undefined
      ? { useFipsEndpoint: host.fips === true, useDualstackEndpoint: host.dualStack === true }
      : { endpoint: options.endpoint }),
  });
  try {
    const answer = await client.send(new GetAuthorizationTokenCommand({}), { abortSignal: signal });
    const [data] = answer.authorizationData ?? [];
    return decodeToken(registry, data?.authorizationToken, data?.expiresAt?.getTime(), options.now());
  } catch (error) {
    throw explain(registry, error);
  } finally {
    client.destroy();
  }
}

/**
 * Fetches the login of `public.ecr.aws`, which has an API of its own that the ECR client doesn't know.
 *
 * @throws CredentialError
 * @see https://docs.aws.amazon.com/AmazonECRPublic/latest/APIReference/API_GetAuthorizationToken.html
 */
export async function fetchEcrPublicLogin(
  registry: string,
  keys: AwsKeys,
  options: EcrOptions,
  signal: AbortSignal,
): Promise<FetchedLogin> {
  const url = new URL(options.endpoint ?? `https://api.ecr-public.${PUBLIC_REGION}.amazonaws.com/`);
  const body = '{}';
  const headers = signPost({
    url,
    body,
    region: PUBLIC_REGION,
    service: 'ecr-public',
    keys,
    date: new Date(options.now()),
    headers: {
      'content-type': 'application/x-amz-json-1.1',
      'x-amz-target': 'SpencerFrontendService.GetAuthorizationToken',
    },
  });
  const answer = await postForJson(
    registry,
    'Amazon ECR Public',
    url.href,
    { headers, body },
    options.fetch,
    signal,
  );
  const data = 'authorizationData' in answer ? answer.authorizationData : undefined;
  const token = typeof data === 'object' && data !== null ? textOf(data, 'authorizationToken') : undefined;
  const seconds =
    typeof data === 'object' && data !== null && 'expiresAt' in data ? data.expiresAt : undefined;
  return decodeToken(
    registry,
    token,
    typeof seconds === 'number' ? seconds * 1000 : undefined,
    options.now(),
  );
}

/**
 * The SDK's transport on our `fetch`, so that proxies and CA files are the same for all that leaves the process.
 * The SDK looks at a response's shape only; the answers of this API are small.
 */
function fetchHandler(fetch: Fetch) {
  return {
    async handle(request: SdkRequest, { abortSignal }: { abortSignal?: unknown } = {}) {
      const port = request.port === undefined ? '' : `:${request.port}`;
      const response = await fetch(`${request.protocol}//${request.hostname}${port}${request.path}`, {
        method: request.method,
        headers: request.headers,
        body: request.body ?? null,
        redirect: 'error',
        ...(abortSignal instanceof AbortSignal ? { signal: abortSignal } : {}),
      });
      const headers = Object.fromEntries(response.headers);
      return {
        response: {
          statusCode: response.status,
          headers,
          body: await readAnswer(response),
        },
      };
    },
  };
}

interface SdkRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number | undefined;
  readonly path: string;
  readonly method: string;
  readonly headers: Record<string, string>;
  readonly body?: string | Uint8Array<ArrayBuffer> | undefined;
}

function decodeToken(
  registry: string,
  token: string | undefined,
  ends: number | undefined,
  now: number,
): FetchedLogin {
  const decoded = Buffer.from(token ?? '', 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  if (colon < 1) throw new CredentialError('REGISTRY_ERROR', registry, 'Amazon ECR answered without a login');
  const password = new Secret(decoded.slice(colon + 1));
  // A token that has just been given has not ended: where it seems so, this machine's clock is wrong.
  const expiresAt = ends !== undefined && ends > now ? ends : now + TOKEN_LIFE;
  return { login: { kind: 'basic', username: decoded.slice(0, colon), password }, expiresAt };
}

function explain(registry: string, error: unknown): CredentialError {
  if (error instanceof CredentialError) return error;
  const status =
    error instanceof Error &&
    '$metadata' in error &&
    typeof error.$metadata === 'object' &&
    error.$metadata !== null
      ? Object.entries(error.$metadata).find(([key]) => key === 'httpStatusCode')?.[1]
      : undefined;
  if (typeof status === 'number') return refusedBy(registry, 'Amazon ECR', status, nameOf(error));
  return new CredentialError('REGISTRY_UNREACHABLE', registry, 'Amazon ECR could not be reached', {
    cause: error,
    hint: "is the API of the registry's region reachable from here?",
  });
}

function nameOf(error: unknown): string | undefined {
  return error instanceof Error && /^\w{1,80}$/.test(error.name) ? error.name : undefined;
}
