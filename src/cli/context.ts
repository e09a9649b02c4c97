import { type Config, loadConfig, readPem, type SettingName } from '../config/index.ts';
import { ImgcredError } from '../errors/index.ts';
import { createLogger, type Logger } from '../observability/index.ts';
import { ApiClient, readTokenFile } from './api-client.ts';
import type { Invocation, Options } from './command.ts';
import { ANOTHERS, type LocalNeeds, prepareLocalServer, startLocalServer } from './local-server.ts';
import { ANY, optionValue, seconds } from './option-values.ts';

/** Options by which a command finds its server. */
export const CONNECTION_OPTIONS = {
  server: {
    value: 'URL',
    // Empty: none, whatever the variable says.
    takes: ANY,
    help: 'address of an imgcred server (IMGCRED_SERVER); else the one on the data directory',
  },
  'token-file': { value: 'FILE', help: 'file with the API token for --server (IMGCRED_TOKEN_FILE)' },
  'server-ca': { value: 'FILE', help: 'certificate authority of --server, PEM (IMGCRED_SERVER_CA)' },
  workspace: { value: 'NAME', help: 'workspace to act in', short: 'w' },
  'data-dir': { value: 'DIR', help: 'where state is kept (IMGCRED_DATA_DIR)' },
  'log-level': {
    value: 'LEVEL',
    help: 'debug, info, warn or error; of a server that this command starts itself',
  },
  json: { help: 'print JSON' },
} satisfies Options;

const READ_TIMEOUT = seconds(0.1, 86_400, '30');

/** Options of the roles that a command may start in its own process. */
export const ROLE_OPTIONS = {
  config: { value: 'FILE', help: 'JSON file with settings, named as the IMGCRED_ variables' },
  'insecure-registry': { value: 'HOST', multiple: true, help: 'registry that is spoken to without TLS' },
  'registry-ca': { value: 'FILE', multiple: true, help: 'certificate authority of registries, PEM' },
  'registry-mirror': { value: 'HOST=URL', multiple: true, help: 'mirror that is asked before a registry' },
  'registry-client-cert': {
    value: 'FILE',
    help: 'certificate by which this machine is known to registries, PEM',
  },
  'registry-client-key': { value: 'FILE', help: 'its key, PEM' },
  'fuse-driver': { value: 'DRIVER', help: 'auto, kernel or fuse-native' },
  runtime: { value: 'PATH', help: 'OCI runtime (crun, else runc)' },
  'cache-limit': { value: 'SIZE', help: 'bytes of content to keep on this machine' },
  'master-key-file': { value: 'FILE', help: 'key that the workspace keys are wrapped with' },
  'read-timeout': {
    value: 'SECONDS',
    takes: READ_TIMEOUT,
    help: 'how long a read may wait for the registry',
  },
  prefetch: { value: 'trace|all|none', help: 'what is fetched ahead of need' },
  'prefetch-limit': { value: 'SIZE', help: 'bytes a second that --prefetch=all may take' },
  keep: { value: 'auto|none|all', help: 'whether registering an image fills the cache' },
} satisfies Options;

/** Options of the commands that an administrator uses. */
export const ADMIN_OPTIONS = {
  ...CONNECTION_OPTIONS,
  'master-key-file': ROLE_OPTIONS['master-key-file'],
} satisfies Options;

/** The settings that an invocation's flags name. */
export function configOf(
  invocation: Invocation,
  overrides: Partial<Record<SettingName, unknown>> = {},
): Config {
  const several = (name: string) => {
    const values = invocation.texts(name);
    return values.length === 0 ? undefined : values;
  };
  const readTimeout = optionValue(invocation, 'read-timeout', READ_TIMEOUT);
  return loadConfig(
    {
      data_dir: invocation.text('data-dir'),
      log_level: invocation.text('log-level'),
      insecure_registries: several('insecure-registry'),
      registry_ca: several('registry-ca'),
      registry_mirrors: several('registry-mirror'),
      registry_client_cert: invocation.text('registry-client-cert'),
      registry_client_key: invocation.text('registry-client-key'),
      fuse_driver: invocation.text('fuse-driver'),
      runtime: invocation.text('runtime'),
      cache_limit: invocation.text('cache-limit'),
      master_key_file: invocation.text('master-key-file'),
      read_timeout_ms: readTimeout === undefined ? undefined : readTimeout * 1000,
      prefetch: invocation.text('prefetch'),
      prefetch_limit: invocation.text('prefetch-limit'),
      keep: invocation.text('keep'),
      ...overrides,
    },
    process.env,
    invocation.text('config'),
  );
}

/** A logger to stderr: JSON lines, so that a person's output on stdout stays clean. */
export function stderrLogger(config: Pick<Config, 'log_level'>): Logger {
  return createLogger({ level: config.log_level, write: (line) => process.stderr.write(line) });
}

/** A server to speak to, and what ends the connection. */
export interface Connection extends AsyncDisposable {
  readonly client: ApiClient;
  /** As {@link LocalServer.own}. */
  readonly own: boolean;
  /** Starts the worker of a server of our own, if it has none yet, and waits for it. @throws as `LocalServer.worker` */
  worker(): Promise<void>;
  /** As {@link LocalServer.checkHost}. */
  checkHost(): Promise<void>;
  /** As {@link LocalServer.idle}. */
  idle(): Promise<void>;
}

/**
 * Finds the server: the one named by --server, else the one on the data directory; where there is none, starts
 * the roles in this process on the data directory until the connection is disposed.
 */
export async function connect(invocation: Invocation, needs: LocalNeeds = {}): Promise<Connection> {
  const workspace = invocation.text('workspace') ?? process.env.IMGCRED_WORKSPACE;
  const url = serverUrl(invocation);
  if (url !== undefined) {
    if (!/^https?:\/\//.test(url)) {
      throw new ImgcredError('USAGE', `--server ${url}: must start with http:// or https://`);
    }
    // Not repeated: a password may stand in it.
    if (/^https?:\/\/[^/]*@/.test(url)) {
      throw new ImgcredError('USAGE', '--server: the address holds a login', {
        hint: 'give the API token by --token-file FILE',
      });
    }
    const tokenFile = invocation.text('token-file') ?? process.env.IMGCRED_TOKEN_FILE;
    const caFile = invocation.text('server-ca') ?? process.env.IMGCRED_SERVER_CA;
    const client = new ApiClient(
      {
        kind: 'url',
        url,
        ...(tokenFile === undefined ? {} : { token: await readTokenFile(tokenFile) }),
        ...(caFile === undefined ? {} : { ca: readPem('--server-ca', caFile, 'CERTIFICATE') }),
      },
      workspace,
    );
    return { client, ...ANOTHERS, [Symbol.asyncDispose]: async () => {} };
  }
  const config = localConfig(invocation);
  const server = await startLocalServer(config, stderrLogger(config), workspace, needs);
  return {
    client: server.client,
    own: server.own,
    worker: () => server.worker(),
    checkHost: () => server.checkHost(),
    idle: () => server.idle(),
    [Symbol.asyncDispose]: () => server.close(),
  };
}

/** To be called before standard input is read where that comes before {@link connect}: see `prepareLocalServer`. */
export async function prepareConnection(invocation: Invocation): Promise<void> {
  if (serverUrl(invocation) === undefined) await prepareLocalServer(localConfig(invocation));
}

/** Whether the invocation speaks to a server that it names, rather than to the data directory's. */
export function namesServer(invocation: Invocation): boolean {
  return serverUrl(invocation) !== undefined;
}

function serverUrl(invocation: Invocation): string | undefined {
  const url = invocation.text('server') ?? process.env.IMGCRED_SERVER;
  return url === '' ? undefined : url;
}

function localConfig(invocation: Invocation): Config {
  return configOf(invocation, {
    // What a command starts for itself speaks up only when something is wrong.
    log_level: invocation.text('log-level') ?? process.env.IMGCRED_LOG_LEVEL ?? 'warn',
  });
}
